"""MoCo v3 as facebookresearch/moco-v3 puts it together, with the weights of one of ours.

timm's ViT gives its class token to a head in its place; each view goes through each encoder for
itself, and the momentum encoder moves between the two (moco/builder.py).
"""

import peers
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from mae_bench.pretraining.momentum_contrast import Branch, MomentumContrast

MOMENTUM = 0.99


class Ours(nn.Module):
    """Our networks, whose momentum encoder moves in each step as the peer's does."""

    def __init__(self, moco: MomentumContrast) -> None:
        super().__init__()
        self.moco = moco

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        self.moco.move_average(MOMENTUM)
        return self.moco(first, second)


class Release(nn.Module):
    def __init__(self, moco: MomentumContrast) -> None:
        super().__init__()
        self.temperature = moco.temperature
        self.base, self.average = with_head(moco.base), with_head(moco.average)
        self.predictor = mlp(moco.predictor)
        self.base.patch_embed.requires_grad_(False)
        self.base.pos_embed.requires_grad_(False)
        self.average.requires_grad_(False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        queries = [self.predictor(self.base(view)) for view in (first, second)]
        with torch.no_grad():
            for base, average in zip(
                self.base.parameters(), self.average.parameters(), strict=True
            ):
                average.data = average.data * MOMENTUM + base.data * (1.0 - MOMENTUM)
            keys = [self.average(view) for view in (first, second)]
        return self.contrast(queries[0], keys[1]) + self.contrast(queries[1], keys[0])

    def contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        q, k = normalize(queries, dim=1), normalize(keys, dim=1)
        logits = torch.einsum("nc,mc->nm", [q, k]) / self.temperature
        return cross_entropy(logits, torch.arange(len(q))) * (2 * self.temperature)

    def gradients(self) -> dict[str, Tensor]:
        """Under the names of `MomentumContrast`'s parameters."""
        found = {}
        for name, parameter in self.named_parameters():
            if parameter.grad is not None:
                part, _, rest = name.partition(".")
                inner = part == "base" and not rest.startswith("head.")
                found[f"{part}.encoder.{rest}" if inner else name] = parameter.grad
        return found


def with_head(branch: Branch) -> nn.Module:
    vit = peers.timm_vit(branch.encoder, num_classes=0, global_pool="token")
    vit.load_state_dict(branch.encoder.state_dict())
    vit.head = mlp(branch.head)
    return vit


def mlp(ours: nn.Sequential) -> nn.Sequential:
    """Linear layers without bias, torch's batch norm and ReLU, with the weights of ours."""
    layers: list[nn.Module] = []
    for layer in ours:
        if isinstance(layer, nn.Linear):
            layers.append(nn.Linear(layer.in_features, layer.out_features, bias=False))
        elif isinstance(layer, nn.ReLU):
            layers.append(nn.ReLU(inplace=True))
        else:
            layers.append(nn.BatchNorm1d(layer.num_features, affine=layer.affine))
    made = nn.Sequential(*layers)
    made.load_state_dict(ours.state_dict())
    return made
