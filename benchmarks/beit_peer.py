"""BEiT's pre-training of Hugging Face's transformers, with the weights of ours.

Both take images and noise as the autoencoders of `peers` do; of the noise the largest values are
masked. Tokens are given.
"""

import re

import torch
from torch import Tensor, nn

from mae_bench.pretraining.beit import MaskedImageModel, masked_places

MASKED = 75
"""of 196 patches"""
CODES = 8192


class Ours(nn.Module):
    def __init__(self, backbone: str, batch: int) -> None:
        super().__init__()
        self.beit = MaskedImageModel(backbone, codebook=CODES)
        self.tokens = torch.randint(CODES, (batch, self.beit.num_patches))

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        mask = masked(noise)
        return self.beit(images, mask, self.tokens, masked_places(mask))


class HuggingFace(nn.Module):
    """`BeitForMaskedImageModeling`, whose default attention is torch's fused one."""

    def __init__(self, ours: Ours) -> None:
        super().__init__()
        from transformers import BeitConfig, BeitForMaskedImageModeling

        encoder = ours.beit.encoder
        config = BeitConfig(
            vocab_size=CODES,
            hidden_size=encoder.embed_dim,
            num_hidden_layers=encoder.depth,
            num_attention_heads=encoder.num_heads,
            intermediate_size=4 * encoder.embed_dim,
            use_mask_token=True,
            use_shared_relative_position_bias=True,
            layer_scale_init_value=0.1,
            layer_norm_eps=1e-6,
            drop_path_rate=0.0,
        )
        self.tokens = ours.tokens
        self.model = BeitForMaskedImageModeling(config)
        weights = {name: p.detach() for name, p in ours.beit.named_parameters()}
        self.model.load_state_dict(mapped(weights))

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        mask = masked(noise)
        return self.model(images, bool_masked_pos=mask, labels=self.tokens[mask]).loss


def masked(noise: Tensor) -> Tensor:
    """The patches with the largest values, bool (B, N)."""
    rank = noise.argsort(dim=1).argsort(dim=1)
    return rank >= noise.shape[1] - MASKED


def mapped(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameters of `MaskedImageModel`, or their gradients, under Hugging Face's names."""
    out = {}
    for name, value in ours.items():
        name = name.removeprefix("encoder.")
        if ".attn.qkv." in name:
            start, kind = re.sub(r"^blocks\.(\d+)\.attn\.qkv\.", r"beit.layers.\1 ", name).split()
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                if (letter, kind) != ("k", "bias"):
                    out[f"{start}.attention.{letter}_proj.{kind}"] = part
            continue
        for pattern, new in NAMES.items():
            name = re.sub(pattern, new, name)
        out[name] = value
    return out


NAMES = {
    r"^blocks\.\d+\.attn\.relative": "beit.shared_position_bias.relative",
    r"^(cls_token|mask_token)$": r"beit.embeddings.\1",
    r"^patch_embed\.proj\.": "beit.embeddings.patch_embeddings.projection.",
    r"^norm\.": "layernorm.",
    r"^blocks\.": "beit.layers.",
    r"\.attn\.proj\.": ".attention.o_proj.",
    r"\.norm1\.": ".layernorm_before.",
    r"\.norm2\.": ".layernorm_after.",
    r"\.ls([12])\.gamma$": r".lambda_\1",
}
