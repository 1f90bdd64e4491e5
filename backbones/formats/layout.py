"""What a layout of checkpoints says, and what tells one from another."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from backbones.colour import IMAGENET_MEAN, IMAGENET_STD, Colour
from backbones.posembed import is_square, sincos_2d
from backbones.report import Pooling

Tensors = dict[str, Tensor]

BIAS_TABLE = "attn.relative_position_bias_table"
"""end of the name of BEiT's tables of relative position"""
SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"
"""the table that all blocks of a pre-training BEiT share"""
PATCHES = "patch_embed.proj.weight"
HALF: Colour = (0.5, 0.5, 0.5)

CLASSIFIER = "classifier"
CLASSIFIER_NORM = "classifier's norm, which follows pooling"
INDEX = "index, computed from the grid"
DECODER = "MAE decoder"
PRETEXT = "head of the pre-training"
MASK_TOKEN = "mask token of the pre-training"


@dataclass(frozen=True)
class Format:
    """One layout of checkpoints, and what its weights were made with."""

    source: str
    """repository and file that write it"""
    fits: Callable[[Tensors], bool]
    """whether the file can have this layout"""
    told: Callable[[Tensors], bool] = lambda _: True
    """whether a file that can, has; of all formats this is true of one at most"""
    skip: Mapping[str, str] = field(default_factory=dict)
    """pattern that a key begins with -> the rule that leaves it out"""
    prefix: str = ""
    """pattern that comes off the beginning of keys"""
    rename: Mapping[str, str] = field(default_factory=dict)
    """pattern anywhere in a key -> what replaces it, in this order"""
    rewrite: Callable[[Tensors], Tensors] = lambda tensors: tensors
    """what renaming alone cannot do, afterwards"""
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD
    pooling: Pooling = "cls"
    """what its own classifier reads: the class token or the mean of the patches"""
    norm_eps: float = 1e-6
    heads: Mapping[int, int] = field(default_factory=dict)
    """width -> heads, where they are not those of our sizes"""
    sure: Callable[[Tensors], bool] = lambda _: True
    """whether the file shows that these are its heads; else they are assumed, and a name that
    states its heads knows better"""
    square: bool = True
    """whether all grids of patches are square; else a square one is assumed"""
    assumed: str = ""
    """what other weights of the same layout have otherwise"""


def any_key(tensors: Tensors, pattern: str) -> bool:
    """Whether the pattern is found in a key."""
    return any(re.search(pattern, key) for key in tensors)


def is_plain(tensors: Tensors) -> bool:
    """Whether the names are timm's `VisionTransformer`'s."""
    return PATCHES in tensors and not is_beit(tensors)


def is_beit(tensors: Tensors) -> bool:
    """Whether they are BEiT's, whose keys have no bias."""
    return PATCHES in tensors and any_key(tensors, r"^blocks\..*attn\.q_bias$")


def has_classifier_norm(tensors: Tensors) -> bool:
    """Whether the last norm follows a mean over patches."""
    return "fc_norm.weight" in tensors and "norm.weight" not in tensors


def has_fixed_positions(tensors: Tensors, rows_first: bool = False) -> bool:
    """Whether the positions are the sin-cos table, columns first as MAE's, or as MoCo v3's.

    MoCo v3's (vits.py) is MAE's with the halves of the channels exchanged.
    """
    table = next((t for k, t in tensors.items() if re.search("(pos|position)_embed(dings)?$", k)
                  and "decoder" not in k), None)  # fmt: skip
    if table is None or table.ndim != 3 or not is_square(table.shape[1] - 1):
        return False
    side = int((table.shape[1] - 1) ** 0.5)
    return is_fixed_table(table, (side, side), rows_first)


def is_fixed_table(table: Tensor, grid: tuple[int, int], rows_first: bool = False) -> bool:
    """Whether positions (1, 1 + rows·columns, C) are the sin-cos table of a grid."""
    width = table.shape[2]
    numbers = table.is_floating_point() and table.element_size() > 1
    if width == 0 or width % 4 or table.shape[0] != 1 or not numbers:
        return False
    fixed = sincos_2d(width, grid)
    fixed = fixed.roll(width // 2, dims=2) if rows_first else fixed
    # bfloat16 rounds by up to 0.002.
    return torch.allclose(table.float(), fixed, rtol=0, atol=3e-3)


def is_fixed_plain(tensors: Tensors) -> bool:
    """A plain ViT whose positions tell MAE or MoCo v3."""
    return has_fixed_positions(tensors) or has_fixed_positions(tensors, rows_first=True)


def never(_: Tensors) -> bool:
    """For formats that other layouts hide, so that only a user can tell them."""
    return False


def stack_qkv(tensors: Tensors) -> Tensors:
    """Separate queries, keys and values to one projection; a bias that keys lack is zero."""
    out = {key: value for key, value in tensors.items() if not re.search(r"attn\.[qkv]\.", key)}
    for key, value in tensors.items():
        if not key.endswith(("attn.q.weight", "attn.q.bias")):
            continue
        start, _, kind = key.rpartition("q.")
        rest = [tensors.get(f"{start}{part}.{kind}") for part in "kv"]
        if kind == "bias" and rest[0] is None:
            rest[0] = torch.zeros_like(value)
        if any(part is None for part in rest):  # strict loading names what is missing
            continue
        out[f"{start}qkv.{kind}"] = torch.cat([value, *(part for part in rest if part is not None)])
    return out


HEAD = {r"head\.": CLASSIFIER}
FINE_TUNED = {r"fc_norm\.": CLASSIFIER_NORM, **HEAD}
LAYER_SCALE = {r"gamma_([12])$": r"ls\1.gamma"}
