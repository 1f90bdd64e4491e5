"""What the shapes of a checkpoint's tensors, under our names, tell of its backbone."""

import math
import re

from backbones.formats import BIAS_TABLE, PATCHES, SHARED_TABLE, Tensors
from backbones.posembed import is_square
from backbones.relative import CLASS_TOKEN_ROWS
from backbones.sizes import SIZES, Size

MOST_BLOCKS = 1000
"""of a ViT; a file that names more is of something else"""


def size_in(state: Tensors) -> Size | None:
    """The size of the backbone that a file's tensors show, without its heads; None: they do not."""
    patches = state.get(PATCHES)
    blocks = {key.split(".")[1] for key in state if re.match(r"blocks\.\d+\.", key)}
    if patches is None or patches.ndim != 4 or not 0 < len(blocks) <= MOST_BLOCKS:
        return None
    return Size(patches.shape[0], len(blocks), 1, patches.shape[2])


def fitting(state: Tensors) -> list[str]:
    """The rows of `SIZES` that a file's tensors have the size of."""
    size = size_in(state)
    return [name for name, row in SIZES.items() if size is not None and same_size(row, size)]


def same_size(one: Size, other: Size) -> bool:
    """Whether both are as wide, deep and finely cut."""
    names = ("embed_dim", "depth", "patch_size")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def grid_in(state: Tensors, grid: tuple[int, int] | None) -> int | None:
    """Tokens of the side of the images that a file's positions belong to; None: it has none.

    `grid` is that of its absolute positions; None too for one that is not square.
    """
    if "pos_embed" in state:
        return grid[0] if grid is not None and grid[0] == grid[1] else None
    table = next((t for k, t in state.items() if k.endswith(BIAS_TABLE) or k == SHARED_TABLE), None)
    if table is None or not is_square(max(0, len(table) - CLASS_TOKEN_ROWS)):
        return None
    return (math.isqrt(len(table) - CLASS_TOKEN_ROWS) + 1) // 2
