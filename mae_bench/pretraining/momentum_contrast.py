"""MoCo v3 (2104.02057), equal to facebookresearch/moco-v3, moco/builder.py and vits.py.

Shapes: B images, S image side, N tokens, C channels, D compared features.

The arithmetic is the reference's, the work is not: both views go through the encoder together, what
the frozen patch projection gives is computed once for both encoders, and the last block is computed
for the class token alone, which is all that the loss sees. Batch norm sees one view at a time, as
there.
"""

import itertools
import math
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

import backbones
from backbones.loading import build, read
from backbones.precision import as_they_are
from backbones.reading import Reading
from backbones.report import LoadReport
from backbones.vit import ViT
from mae_bench.pretraining.methods.moco_v3 import MocoRecipe
from mae_bench.pretraining.task import PretrainingTask
from mae_bench.pretraining.two_views import TwoViews
from tasks.norms import SyncBatchNorm
from tasks.processes import num_processes
from tasks.task import Batch

WHOLE_FILE = "moco_v3.safetensors"
SMALL_HEADS = 12
"""of ViT-S in moco-v3, vits.py; DeiT's has 6"""


def create(name: str, image_size: int) -> ViT:
    """MoCo v3's ViT: fixed positions, rows first; a frozen random patch projection.

    Drawn from torch's generator as `vits.py` does: queries, keys and values are xavier-uniform each
    for itself, the class token normal with std 1e-6, the patch projection's bias 0.
    """
    options: dict[str, Any] = {}
    if name == "vit_s":
        options["anatomy"] = backbones.Anatomy(num_heads=SMALL_HEADS)
    vit = backbones.create(name, image_size, **options)
    require_plain(vit, name)
    for block in vit.blocks:
        weight = block.attn.qkv.weight
        limit = math.sqrt(6 / (weight.shape[0] // 3 + weight.shape[1]))
        nn.init.uniform_(weight, -limit, limit)
    nn.init.normal_(vit.cls_token, std=1e-6)
    nn.init.zeros_(vit.patch_embed.proj.bias)
    columns, rows = vit.pos_embed.data.chunk(2, dim=2)
    vit.pos_embed.data.copy_(torch.cat([rows, columns], dim=2))
    return freeze_stem(vit)


def require_plain(vit: Any, name: str) -> None:
    """Raise `BackboneError` unless the backbone has what MoCo v3 fixes and what it reads."""
    anatomy = getattr(vit, "anatomy", None)  # a plug-in has none
    if anatomy is None or anatomy.relative_position or not anatomy.absolute_position:
        raise backbones.BackboneError(
            f"backbone {name!r} cannot be pre-trained by MoCo v3: expected a plain ViT of ours or "
            "of timm with absolute positions alone"
        )


def freeze_stem(vit: ViT) -> ViT:
    """Fix positions and patch projection (section 4.2 of the paper: it makes training stable)."""
    vit.pos_embed.requires_grad_(False)
    vit.patch_embed.requires_grad_(False)
    return vit


def mlp(widths: list[int]) -> nn.Sequential:
    """Linear layers without bias, each with batch norm; ReLU between them.

    The last batch norm has no factors of its own. moco/builder.py, `_build_mlp`.
    """
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        last = i + 2 == len(widths)
        layers += [nn.Linear(before, after, bias=False), SyncBatchNorm(after, affine=not last)]
        layers += [] if last else [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Branch(nn.Module):
    """An encoder and the projector of its class token."""

    def __init__(self, encoder: ViT, mlp_dim: int, feature_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = mlp([encoder.embed_dim, mlp_dim, mlp_dim, feature_dim])

    def forward(self, patches: Tensor) -> list[Tensor]:
        """Patches (2B, N - 1, C) of two views of B images to the features (B, D) of each."""
        return [self.head(half) for half in self.class_tokens(patches).chunk(2)]

    def patches(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) to embedded patches with their positions, (B, N - 1, C)."""
        return self.encoder.patches(images) + self.encoder.pos_embed[:, 1:]

    def class_tokens(self, patches: Tensor) -> Tensor:
        """(B, N - 1, C) to the class tokens (B, C) after the final norm."""
        # The class token last: a block computes the last tokens alone if it is asked to.
        first = self.encoder.cls_token + self.encoder.pos_embed[:, :1]
        tokens = torch.cat([patches, first.expand(len(patches), -1, -1)], dim=1)
        *blocks, last = self.encoder.blocks
        for block in blocks:
            tokens = block(tokens)
        return self.encoder.norm(last(tokens, num_queries=1)[:, 0])


class MomentumContrast(nn.Module):
    """Two branches, one of them the momentum average of the other, and a predictor."""

    def __init__(
        self, encoder: ViT, mlp_dim: int = 4096, feature_dim: int = 256, temperature: float = 0.2
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.base = Branch(encoder, mlp_dim, feature_dim)
        like = backbones.create(encoder.name, encoder.image_size, anatomy=encoder.anatomy)
        self.average = Branch(like, mlp_dim, feature_dim)
        self.average.requires_grad_(False)
        self.predictor = mlp([feature_dim, mlp_dim, feature_dim])
        self.start_average()

    def start_average(self) -> None:
        """Make the averaged branch a copy of the other."""
        self.average.load_state_dict(self.base.state_dict())

    @torch.no_grad()
    def move_average(self, momentum: float) -> None:
        """Parameters alone; its batch norms have statistics of their own, as in the reference."""
        average: list[Tensor] = list(self.average.parameters())
        torch._foreach_lerp_(average, list(self.base.parameters()), 1 - momentum)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The loss of two views (B, 3, S, S) of the same images."""
        # Frozen, and so the same in both branches, as is what comes of it.
        both = self.base.patches(torch.cat([first, second]))
        q1, q2 = (self.predictor(features) for features in self.base(both))
        with torch.no_grad():
            k1, k2 = self.average(both)
        return self.contrast(q1, k2) + self.contrast(q2, k1)

    def contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        """InfoNCE of queries and keys (B, D); negatives are the keys of all processes.

        Times 2·temperature; in float32 at least, whatever autocast says.
        """
        with as_they_are(queries.device.type):
            kind = torch.promote_types(queries.dtype, torch.float32)
            q, k = (F.normalize(each.to(kind), dim=1) for each in (queries, keys))
            rank, k = gathered(k)
            targets = torch.arange(len(q), device=q.device) + rank * len(q)
            loss = F.cross_entropy(q @ k.T / self.temperature, targets)
        return loss * (2 * self.temperature)

    def checkpoint(self) -> dict[str, Tensor]:
        """All tensors under the reference's names."""
        names = {"base.encoder.": "base_encoder.", "base.head.": "base_encoder.head."}
        names |= {f"average.{k[5:]}": f"momentum{v[4:]}" for k, v in names.items()}
        found = {}
        for key, value in self.state_dict().items():
            start = next((old for old in names if key.startswith(old)), "")
            found[names.get(start, "") + key.removeprefix(start)] = value
        return found


def gathered(keys: Tensor) -> tuple[int, Tensor]:
    """This process's number, and the keys (B, D) of all processes below each other."""
    world = num_processes()
    if world == 1:
        return 0, keys
    parts = [torch.empty_like(keys) for _ in range(world)]
    dist.all_gather(parts, keys.contiguous())
    return dist.get_rank(), torch.cat(parts)


def momentum_at(step: int, num_steps: int, start: float) -> float:
    """Of the average before step `step`, counted from 0; main_moco.py, `adjust_moco_momentum`."""
    return 1 - 0.5 * (1 + math.cos(math.pi * step / num_steps)) * (1 - start)


class MocoPretraining(PretrainingTask):
    """Pairs of views, the two branches and their loss."""

    method = "moco_v3"
    recipe: MocoRecipe

    def __init__(self, recipe: MocoRecipe, folders: list[Path], seed: int) -> None:
        super().__init__(recipe, folders, seed)
        self.train_data = TwoViews(self.images, recipe, seed)
        vit = create(recipe.backbone, recipe.image_size)
        self.moco = MomentumContrast(vit, recipe.mlp_dim, recipe.feature_dim, recipe.temperature)

    @property
    def encoder(self) -> ViT:
        return self.moco.base.encoder

    def start_from(self, checkpoint: str | Path, reading: Reading) -> LoadReport:
        """An encoder; projectors and predictor are drawn anew."""
        name, size = self.recipe.backbone, self.recipe.image_size
        file, converted, report = read(checkpoint, reading)
        vit: Any = build(name, file, converted, report, size)
        require_plain(vit, f"{name} of {file}")
        old = self.moco
        self.moco = MomentumContrast(
            freeze_stem(vit), self.recipe.mlp_dim, self.recipe.feature_dim, old.temperature
        )
        report.said.append("projectors and predictor are drawn anew")
        return report

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        first, second = (self.normalise(each) for each in batch["images"].split(3, dim=1))
        return {"loss": self.moco(first, second)}

    def after_step(self, step: int, num_steps: int) -> None:
        self.moco.move_average(momentum_at(step, num_steps, self.recipe.momentum))

    def is_decayed(self, name: str, parameter: Tensor) -> bool:
        """All are: main_moco.py gives the optimiser one group."""
        return True

    def caveats(self, processes: int) -> list[str]:
        seen, wanted = self.recipe.device_batch * processes, self.recipe.batch_size
        said = f"negatives and batch norm of {seen} images instead of {wanted}"
        return [] if seen == wanted else [said]

    def whole(self) -> tuple[str, dict[str, Tensor]]:
        return WHOLE_FILE, self.moco.checkpoint()
