"""BEiT's masked image modelling (2106.08254), exact to microsoft/unilm, beit/modeling_pretrain.py.

Shapes: B images, N patches, K masked patches of a batch (an image may have fewer than the next),
V tokens of the codebook.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import backbones
from backbones.linear import Linear, linear
from backbones.sizes import Anatomy
from backbones.vit import ViT
from mae_bench.pretraining.masks import pick
from mae_bench.pretraining.methods.beit import refuse_foreign

INIT_STD = 0.02

Where = tuple[Tensor, Tensor]
"""Indices (B, M) of masked patches, M those of the fullest image: the rows of others end with
patches that are not masked, so that a batch is one tensor; and which of the B · M are (K,)."""


class MaskedImageModel(nn.Module):
    """A ViT that sees mask tokens, and a head that names the visual token of each masked patch.

    `encoder` is a `backbones.ViT` with layer scale and without absolute positions. All its blocks
    have one and the same table of relative positions, as in pre-training (`rel_pos_bias`); a file
    of the encoder has it once a block, as BEiT spreads it before it fine-tunes
    (beit/run_class_finetuning.py). Raises `backbones.BackboneError` for a backbone that is no ViT
    of ours.
    """

    def __init__(
        self,
        backbone: str,
        image_size: int = 224,
        codebook: int = 8192,
        drop_path: float = 0.0,
        layer_scale: float = 0.1,
    ) -> None:
        super().__init__()
        refuse_foreign(backbone)
        anatomy = Anatomy(layer_scale=layer_scale, absolute_position=False, relative_position=True)
        self.encoder = backbones.create(backbone, image_size, drop_path, anatomy=anatomy)
        self.num_patches = self.encoder.grid_size**2
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.encoder.embed_dim))
        self.lm_head = Linear(self.encoder.embed_dim, codebook)
        share_table(self.encoder)
        self.initialise()

    def initialise(self) -> None:
        """Normal weights cut at one deviation, deeper blocks' last layers smaller."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                cut_normal(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        cut_normal(self.encoder.cls_token)
        cut_normal(self.mask_token)
        for depth, block in enumerate(blocks_of(self.encoder), start=1):
            block.attn.proj.weight.data.div_(math.sqrt(2 * depth))
            block.mlp.fc2.weight.data.div_(math.sqrt(2 * depth))

    def forward(
        self, images: Tensor, mask: Tensor, tokens: Tensor, where: Where | None = None
    ) -> Tensor:
        """Cross-entropy over the masked patches of all images together.

        `images` (B, 3, S, S), normalised; `mask` bool (B, N), True = masked; `tokens` int64
        (B, N), of which those of masked patches are looked at; `where` is `masked_places(mask)`,
        which a GPU would wait for.
        """
        places, filled = where or masked_places(mask)
        logits = self.logits(images, mask, (places, filled))
        return F.cross_entropy(logits, tokens.gather(1, places).flatten()[filled])

    def logits(self, images: Tensor, mask: Tensor, where: Where | None = None) -> Tensor:
        """Predictions (K, V) for the masked patches, image by image, row by row.

        The last block's MLP, the norm and the head see masked patches alone; nothing else reaches
        the loss.
        """
        if mask.shape != (len(images), self.num_patches):
            raise backbones.BackboneError(
                f"mask is {tuple(mask.shape)}; expected {(len(images), self.num_patches)}"
            )
        patches = self.encoder.patches(images)
        patches = torch.where(mask[..., None], self.mask_token.to(patches.dtype), patches)
        x = self.encoder.with_prefix(patches)
        *blocks, last = blocks_of(self.encoder)
        for block in blocks:
            x = block(x)
        places, filled = where or masked_places(mask)
        attended = last.attn(last.norm1(x))
        x = last.add_branches(pick(x, places + 1), pick(attended, places + 1))
        return self.lm_head(self.encoder.norm(x.flatten(0, 1)[filled]))


def blocks_of(encoder: ViT) -> list[Any]:
    """Blocks whose attention is a `TokenAttention`."""
    return list(encoder.blocks)


def masked_places(mask: Tensor) -> Where:
    """Where the masked patches of a mask bool (B, N) are."""
    most = int(mask.sum(dim=1).max())
    places = mask.long().argsort(dim=1, descending=True, stable=True)[:, :most]
    return places, mask.gather(1, places).flatten().nonzero().flatten()


def share_table(encoder: ViT) -> None:
    """Give all blocks the first one's table, and their keys no bias."""
    blocks = blocks_of(encoder)
    shared = blocks[0].attn.relative_position_bias_table
    for block in blocks:
        block.attn.relative_position_bias_table = shared
        block.attn.qkv = KeysWithoutBias(block.attn.qkv)


class KeysWithoutBias(Linear):
    """The projection to queries, keys and values, (B, N, C) to (B, N, 3C).

    BEiT's keys have no bias, and here it stays at zero. One would change no output; its gradient is
    rounding, of which AdamW would make steps of full size.
    """

    biased: Tensor

    def __init__(self, like: nn.Linear) -> None:
        """With the parameters of `like`."""
        width = like.in_features
        super().__init__(width, 3 * width, device="meta")  # which draws nothing
        self.weight, self.bias = like.weight, like.bias
        ones, zeros = torch.ones(width), torch.zeros(width)
        self.register_buffer("biased", torch.cat([ones, zeros, ones]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias * self.biased)


def cut_normal(weight: Tensor) -> None:
    nn.init.trunc_normal_(weight, std=INIT_STD, a=-INIT_STD, b=INIT_STD)
