"""The plain ViT for dense prediction: large images, attention windows, relative positions.

Shapes: B images, S pixels of a side, p patch side, C channels of a token, H heads.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from backbones.linear import Linear
from backbones.posembed import resize, resize_grid, sincos_2d
from backbones.precision import attention
from backbones.relative import attend_decomposed, autocast, shared_bias
from backbones.sizes import Anatomy, Dense, RelativePosition, Size
from backbones.vit import (
    MAE_ANATOMY,
    Backbone,
    Block,
    TokenAttention,
    drop_path_rates,
    init_linear,
    join_heads,
    split_heads,
)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside square windows of a map (B, h, w, C).

    `side` tokens are a window's side; the side of the map itself makes the attention global.
    A map that windows do not divide is padded on the right and at the bottom. Padding takes part
    unmasked, as in detectron2, modeling/backbone/vit.py, where it is zero before the projections.
    """

    def __init__(self, dim: int, num_heads: int, side: int, relative: RelativePosition) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.side = side
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.relative = relative
        if relative == "decomposed":
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, dim // num_heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, dim // num_heads))
        if relative == "per_block":
            table = torch.zeros((2 * side - 1) ** 2, num_heads)
            self.relative_position_bias_table = nn.Parameter(table)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`bias` (1, H, side², side²) is added to the logits."""
        height, width = x.shape[1:3]
        # A zero token projects to the bias alone, so padding need not be projected at all.
        windows = split_windows(self.qkv(x), self.side, padding=self.qkv.bias)
        q, k, v = split_heads(windows, self.num_heads)
        if self.relative == "decomposed":
            out = attend_decomposed(q, k, v, self.rel_pos_h, self.rel_pos_w)
        else:
            if self.relative == "per_block":
                bias = autocast(shared_bias(self.relative_position_bias_table))
            out = attention(q, k, v, bias)
        return self.proj(join_windows(join_heads(out), self.side, height, width))


def split_windows(x: Tensor, side: int, padding: Tensor) -> Tensor:
    """A map (B, h, w, C) to windows (B * windows, side², C), row by row.

    `padding` (C) fills up the map on the right and at the bottom.
    """
    batch, height, width, channels = x.shape
    right, bottom = -width % side, -height % side
    padding = padding.to(x.dtype)
    if right:
        x = torch.cat([x, padding.expand(batch, height, right, -1)], dim=2)
    if bottom:
        x = torch.cat([x, padding.expand(batch, bottom, width + right, -1)], dim=1)
    rows, columns = x.shape[1] // side, x.shape[2] // side
    x = x.view(batch, rows, side, columns, side, channels).transpose(2, 3)
    return x.reshape(-1, side**2, channels)


def join_windows(x: Tensor, side: int, height: int, width: int) -> Tensor:
    """The inverse of `split_windows`, without the padding."""
    rows, columns = -(-height // side), -(-width // side)
    x = x.view(-1, rows, columns, side, side, x.shape[-1]).transpose(2, 3)
    return x.reshape(-1, rows * side, columns * side, x.shape[-1])[:, :height, :width]


class DenseBlock(Block):
    """Transformer block on a map (B, h, w, C), or on a class token and a map, (B, 1 + N, C)."""

    # A map has no last tokens to ask for; attention takes the shared bias in that place.
    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return self.add_branches(x, self.attn(self.norm1(x), bias))


class DenseViT(Backbone):
    """A plain ViT that gives maps, with the options of `backbones.Dense`.

    No class token unless asked for, and no final norm, as in ViTDet (2203.16527; detectron2,
    modeling/backbone/vit.py, whose parameter names these are). Initialised as `ViT` is; relative
    positions start at zero. `pos_embed` (1, n², C) has a row for the class token, the first, only
    where there is one; n is the grid of the pre-training, or that of the tokens with
    `resize_position="load"`; there is none where the anatomy has no absolute positions.

    Raises `BackboneError` for an image size that the patch does not divide and for global blocks
    that the backbone does not have.
    """

    pos_embed: nn.Parameter
    stem: tuple[str, ...] = ("pos_embed", "patch_embed")
    top = ("rel_pos_window", "rel_pos_global")

    def __init__(
        self,
        name: str,
        size: Size,
        image_size: int,
        drop_path: float,
        dense: Dense,
        anatomy: Anatomy = MAE_ANATOMY,
    ) -> None:
        super().__init__(name, size, dense.patch_size or size.patch_size, image_size, anatomy)
        self.check_blocks(dense.global_blocks)
        self.dense = dense
        positions = sincos_2d(size.embed_dim, size.pretrain_image // size.patch_size)
        if dense.resize_position == "load":
            positions = resize(positions, self.grid_size)
        if dense.class_token:
            self.num_prefix_tokens = 1
            self.stem = (*self.stem, "cls_token")
            self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, size.embed_dim))
        else:
            positions = positions[:, 1:]
        if anatomy.absolute_position:
            self.pos_embed = nn.Parameter(positions.clone())
        self.blocks = nn.ModuleList()
        for i, rate in enumerate(drop_path_rates(drop_path, size.depth)):
            attn = self.attention(self.attention_side(self.kind(i)))
            self.blocks.append(
                DenseBlock(
                    size.embed_dim,
                    self.num_heads,
                    rate,
                    attn,
                    anatomy.norm_eps,
                    anatomy.layer_scale,
                )
            )
        if dense.relative_position == "shared":
            for kind in sorted({self.kind(i) for i in range(size.depth)}):
                distances = 2 * self.attention_side(kind) - 1
                table = nn.Parameter(torch.zeros(distances**2, self.num_heads))
                self.register_parameter(f"rel_pos_{kind}", table)
        self.apply(init_linear)

    def attention(self, side: int) -> nn.Module:
        """Attention among a map's tokens, or windows, of `side` each way."""
        relative = self.dense.relative_position
        if self.dense.class_token:
            return TokenAttention(self.embed_dim, self.num_heads, side, relative == "per_block")
        return WindowAttention(self.embed_dim, self.num_heads, side, relative)

    def kind(self, block: int) -> Literal["window", "global"]:
        """How a block attends."""
        windowed = self.dense.window_size is not None and block not in self.dense.global_blocks
        return "window" if windowed else "global"

    def attention_side(self, kind: str) -> int:
        """Tokens of the side of what is attended to at once."""
        window = self.dense.window_size
        return window if kind == "window" and window is not None else self.grid_size

    def feature_maps(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Maps (B, C, S / p, S / p) after the given 0-based blocks, without a final norm."""
        self.check_blocks(blocks)
        x, maps = self.embed(images), {}
        used = range(max(blocks, default=-1) + 1)
        biases = {kind: self.bias(kind) for kind in {self.kind(i) for i in used}}
        for i in used:
            x = self.blocks[i](x, biases[self.kind(i)])
            if i in blocks:
                maps[i] = self.as_map(x).permute(0, 3, 1, 2)
        return [maps[i] for i in blocks]

    def embed(self, images: Tensor) -> Tensor:
        """Patches with their positions: (B, S / p, S / p, C), or (B, 1 + N, C) with class token."""
        x = self.patches(images)
        if self.dense.class_token:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        if self.anatomy.absolute_position:
            x = x + self.positions()
        return x if self.dense.class_token else self.as_map(x)

    def positions(self) -> Tensor:
        """`pos_embed` at the grid of the tokens."""
        table = self.pos_embed
        if table.shape[1] == self.num_prefix_tokens + self.grid_size**2:
            return table
        return (resize if self.dense.class_token else resize_grid)(table, self.grid_size)

    def as_map(self, x: Tensor) -> Tensor:
        """Tokens to a map (B, S / p, S / p, C), without the class token; a map stays as it is."""
        if x.ndim == 4:
            return x
        patches = x[:, self.num_prefix_tokens :]
        return patches.unflatten(1, (self.grid_size, self.grid_size))

    def bias(self, kind: str) -> Tensor | None:
        """The bias (1, H, N, N) that the blocks of a kind share, if relative positions do."""
        if self.dense.relative_position != "shared":
            return None
        return autocast(shared_bias(self.get_parameter(f"rel_pos_{kind}")))

    def no_decay(self) -> set[str]:
        """Parameters that fine-tuning exempts from weight decay besides the 1-D ones."""
        return {name for name in ("pos_embed", "cls_token") if hasattr(self, name)}
