"""One plain Vision Transformer.

Shapes: B images, N patches, C channels of a token, H heads, p patch side.
Parameter names are timm's (`VisionTransformer`) and so those of the MAE release.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath, LayerScale
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from backbones.colour import IMAGENET_MEAN, IMAGENET_STD, Colour
from backbones.linear import Linear, linear
from backbones.posembed import sincos_2d
from backbones.precision import attention
from backbones.relative import CLASS_TOKEN_ROWS, autocast, class_token_bias
from backbones.sizes import Anatomy, BackboneError, Size


class Attention(nn.Module):
    """Multi-head self-attention with one fused qkv projection."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, num_queries: int | None = None) -> Tensor:
        return self.proj(attend(self.qkv(x), self.num_heads, num_queries))


class TokenAttention(Attention):
    """Global attention of a class token and a map's tokens, (B, 1 + side², C).

    With `biased`, a table of its own holds the biases of `relative.class_token_bias`, as in BEiT
    (microsoft/unilm, beit/modeling_finetune.py, whose parameter name it has). BEiT's keys have no
    bias of their own; one here changes no output, since it adds the same to a query's logits.
    """

    def __init__(self, dim: int, num_heads: int, side: int, biased: bool) -> None:
        super().__init__(dim, num_heads)
        self.relative_position_bias_table: nn.Parameter | None = None
        if biased:
            table = torch.zeros((2 * side - 1) ** 2 + CLASS_TOKEN_ROWS, num_heads)
            self.relative_position_bias_table = nn.Parameter(table)

    def forward(self, x: Tensor, num_queries: int | None = None) -> Tensor:
        table = self.relative_position_bias_table
        bias = None if table is None else autocast(class_token_bias(table))
        return self.proj(attend(self.qkv(x), self.num_heads, num_queries, bias))


def attend(
    qkv: Tensor, num_heads: int, num_queries: int | None = None, bias: Tensor | None = None
) -> Tensor:
    """Attention from packed projections (B, N, 3C) to (B, Q, C).

    `num_queries` = Q keeps the queries of the last Q tokens only; keys and values of all stay.
    `bias` (1, H, N, N) is added to the logits.
    """
    q, k, v = split_heads(qkv, num_heads)
    if num_queries is not None:
        first = q.shape[2] - num_queries
        q, bias = q[:, :, first:], None if bias is None else bias[:, :, first:]
    return join_heads(attention(q, k, v, bias))


def split_heads(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Packed projections (B, N, 3C) to queries, keys and values (B, H, N, C / H)."""
    batch, length, _ = qkv.shape
    # Unbound before the transpose, so that their gradients are packed again in one copy.
    q, k, v = qkv.view(batch, length, 3, num_heads, -1).unbind(2)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B, H, N, C / H) to (B, N, C)."""
    return x.transpose(1, 2).flatten(2)


class Mlp(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, 4 * dim)
        self.fc2 = Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block with stochastic depth on both branches.

    `attn` replaces the plain attention. `layer_scale` is where the learned factors of both
    branches start; None: there are none.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        drop_path: float = 0.0,
        attn: nn.Module | None = None,
        norm_eps: float = 1e-6,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads) if attn is None else attn
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim)
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, num_queries: int | None = None) -> Tensor:
        """Tokens (B, N, C) to (B, N, C), or to the last `num_queries` of them."""
        kept = x if num_queries is None else x[:, -num_queries:]
        return self.add_branches(kept, self.attn(self.norm1(x), num_queries))

    def recompute(self) -> None:
        """From now on keep no activations of this block; the backward pass computes them again."""
        again = partial(checkpoint, self.forward, use_reentrant=False)
        self.forward = again  # type: ignore[method-assign]

    def add_branches(self, x: Tensor, attended: Tensor) -> Tensor:
        """Tokens, plus what attention made of them, plus what the MLP makes of both."""
        x = x + self.drop_path(self.ls1(attended))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


GRAPHS = 4
"""graphs of a block: with gradients and without, for the last tokens alone, in another precision"""


def compile_blocks(network: nn.Module, **options: Any) -> None:
    """Compile each transformer block of a network; `options` are those of `torch.compile`.

    Blocks share a graph unless their rates of stochastic depth differ, which torch writes into it
    as a constant. Beyond eight graphs it would leave all further blocks uncompiled, with a line in
    its own log, so the limit is raised to what there can be.
    """
    from torch._dynamo import config  # slow to import, and for this alone

    blocks = [module for module in network.modules() if isinstance(module, Block)]
    config.recompile_limit = max(config.recompile_limit, GRAPHS * len(blocks))
    for block in blocks:
        block.compile(**options)


class PatchEmbed(nn.Module):
    """Linear projection of non-overlapping patches, row by row: (B, 3, S, S) to (B, N, C)."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)

    def rows(self, pixels: Tensor) -> Tensor:
        """The same of patches as rows (B, V, 3·p·p) in the order (channel, row, column)."""
        return linear(pixels, self.proj.weight.flatten(1), self.proj.bias)


class Backbone(nn.Module):
    """Name, shape and patches: what `ViT` and `backbones.dense.DenseViT` have in common."""

    stem: tuple[str, ...] = ()
    """parameters and modules before the first block"""
    top: tuple[str, ...] = ()
    """those that belong to no block and no stem"""
    num_prefix_tokens: int = 0
    """tokens before those of the patches: the class token, where there is one"""
    pixel_mean: Colour = IMAGENET_MEAN
    """of the images that its weights were pre-trained on; whoever feeds it takes this out"""
    pixel_std: Colour = IMAGENET_STD

    def __init__(
        self, name: str, size: Size, patch_size: int, image_size: int, anatomy: Anatomy
    ) -> None:
        super().__init__()
        if image_size < 1 or image_size % patch_size:
            nearest = max(1, round(image_size / patch_size)) * patch_size
            raise BackboneError(
                f"image size {image_size} is not divisible by the patch size {patch_size} "
                f"of {name}; nearest: {nearest}"
            )
        self.name = name
        self.anatomy = anatomy
        self.image_size = image_size
        self.patch_size = patch_size
        self.embed_dim, self.depth = size.embed_dim, size.depth
        self.num_heads = anatomy.num_heads or size.num_heads
        if self.embed_dim % self.num_heads:
            raise BackboneError(
                f"{name}: {self.num_heads} heads do not divide its {self.embed_dim} channels"
            )
        self.grid_size = image_size // patch_size
        self.patch_embed = PatchEmbed(patch_size, size.embed_dim)

    def patches(self, images: Tensor) -> Tensor:
        """Embedded patches (B, N, C), before positions; `BackboneError` for another image size."""
        if images.shape[-2:] != (self.image_size, self.image_size):
            height, width = images.shape[-2:]
            raise BackboneError(
                f"images are {height} x {width}; this {self.name} takes "
                f"{self.image_size} x {self.image_size} (image_size={self.image_size})"
            )
        return self.patch_embed(images)

    def check_blocks(self, blocks: Sequence[int]) -> None:
        """Raise `BackboneError` unless all are 0-based numbers of blocks."""
        unknown = [i for i in blocks if not 0 <= i < self.depth]
        if unknown:
            raise BackboneError(
                f"{self.name} has blocks 0 to {self.depth - 1}; asked for {unknown}"
            )

    def layer_index(self, name: str) -> int:
        """Layer of a parameter: 0 for the stem, i + 1 for block i, depth + 1 for the rest.

        Source: facebookresearch/mae, util/lr_decay.py.
        """
        head, _, rest = name.partition(".")
        if head == "blocks":
            return int(rest.partition(".")[0]) + 1
        if head in self.stem:
            return 0
        if head in self.top:
            return self.depth + 1
        raise BackboneError(f"{name!r} is no parameter of {self.name}")


MAE_ANATOMY = Anatomy()


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Stochastic depth of each block, rising linearly from 0 to `last`."""
    return [last * i / max(1, depth - 1) for i in range(depth)]


class ViT(Backbone):
    """A plain ViT with a class token (2010.11929), initialised as MAE's encoder is.

    Xavier-uniform linear layers with zero biases (the fused qkv counts as one matrix), class
    token normal with std 0.02, positions at the 2-D sin-cos table. `pos_embed` is an ordinary
    parameter; whoever wants it fixed switches its gradient off. Stochastic depth rises linearly
    over the blocks up to `drop_path`. There is no `pos_embed` where the anatomy has no absolute
    positions, and `norm` does nothing where it has no final norm.
    """

    pos_embed: nn.Parameter
    stem = ("cls_token", "pos_embed", "patch_embed")
    top = ("norm",)
    num_prefix_tokens = 1

    def __init__(
        self,
        name: str,
        size: Size,
        image_size: int,
        drop_path: float = 0.0,
        anatomy: Anatomy = MAE_ANATOMY,
    ) -> None:
        super().__init__(name, size, size.patch_size, image_size, anatomy)
        self.cls_token = nn.Parameter(torch.empty(1, 1, size.embed_dim))
        if anatomy.absolute_position:
            self.pos_embed = nn.Parameter(sincos_2d(size.embed_dim, self.grid_size))
        self.blocks = nn.ModuleList(
            Block(
                size.embed_dim,
                self.num_heads,
                rate,
                self.biased_attention() if anatomy.relative_position else None,
                anatomy.norm_eps,
                anatomy.layer_scale,
            )
            for rate in drop_path_rates(drop_path, size.depth)
        )
        norm = nn.LayerNorm(size.embed_dim, eps=anatomy.norm_eps)
        self.norm = norm if anatomy.final_norm else nn.Identity()
        nn.init.normal_(self.cls_token, std=0.02)
        self.apply(init_linear)

    def biased_attention(self) -> TokenAttention:
        """Attention with a table of biases of relative positions."""
        return TokenAttention(self.embed_dim, self.num_heads, self.grid_size, biased=True)

    def forward(self, images: Tensor, norm: bool = True) -> Tensor:
        """Images (B, 3, S, S) to tokens (B, 1 + N, C), class token first.

        After the final norm, or before it with `norm=False`.
        """
        return self.through_blocks(self.embed(images), norm)

    def through_blocks(self, tokens: Tensor, norm: bool = True) -> Tensor:
        """Embedded tokens (B, T, C), of all patches or of some, through every block."""
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens) if norm else tokens

    def feature_maps(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Maps (B, C, S / p, S / p) after the given 0-based blocks, without the final norm."""
        self.check_blocks(blocks)
        x, maps = self.embed(images), {}
        for i, block in enumerate(self.blocks[: max(blocks, default=-1) + 1]):
            x = block(x)
            if i in blocks:
                patches = x[:, self.num_prefix_tokens :]
                grid = patches.unflatten(1, (self.grid_size, self.grid_size))
                maps[i] = grid.permute(0, 3, 1, 2)
        return [maps[i] for i in blocks]

    def embed(self, images: Tensor) -> Tensor:
        """Class token and patches with their positions: (B, 1 + N, C)."""
        patches = self.patches(images)
        if self.anatomy.absolute_position:
            patches = patches + self.pos_embed[:, self.num_prefix_tokens :]
        return self.with_prefix(patches)

    def embed_rows(self, pixels: Tensor, indices: Tensor) -> Tensor:
        """Class token and some patches of each image with their positions: (B, 1 + V, C).

        `pixels` (B, V, 3·p·p) in the (channel, row, column) order of convolutions, of the patches
        at `indices` (B, V). For an anatomy with absolute positions.
        """
        return self.place(self.patch_embed.rows(pixels), indices)

    def place(self, patches: Tensor, indices: Tensor) -> Tensor:
        """Class token and patches (B, V, C) with the positions of `indices` (B, V)."""
        return self.with_prefix(patches + self.pos_embed[0, self.num_prefix_tokens :][indices])

    def with_prefix(self, patches: Tensor) -> Tensor:
        """The class token, with its position, before each image's patches (B, V, C)."""
        cls: Tensor = self.cls_token
        if self.anatomy.absolute_position:
            cls = cls + self.pos_embed[:, : self.num_prefix_tokens]
        # Not `len`, which would bind an exported program to one number of images.
        return torch.cat([cls.expand(patches.shape[0], -1, -1), patches], dim=1)

    def no_decay(self) -> set[str]:
        """Parameters that fine-tuning exempts from weight decay besides the 1-D ones."""
        return {"cls_token", "pos_embed"} if self.anatomy.absolute_position else {"cls_token"}


def init_linear(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases; the patch projection counts as a linear layer.

    Its bias stays at the convolution's default. Source: facebookresearch/mae, models_mae.py.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.data.flatten(1))
