"""Which patches the encoder sees (MAE, Table 1f).

A mask is given as noise, a number for each patch: the patches with the smallest stay visible. So
every kind of mask leaves exactly as many patches as the next one, which a batch needs.

Shapes: B images, n patches each way, N = n², V of them visible, M = N - V masked.
"""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Kind = Literal["random", "block", "grid"]

SMALLEST_BLOCK = 16
"""patches of a block at the least, of 14 x 14"""
MIN_ASPECT = 0.3
ATTEMPTS = 10
"""boxes that are drawn for a block before blocks are given up"""
GRID_RATIO = 0.75
"""what a grid removes"""


def split(noise: Tensor, num_visible: int) -> tuple[Tensor, Tensor]:
    """Indices of the visible (B, V) and the masked (B, M) patches, by rank of the noise (B, N).

    The patches with the smallest values stay visible: facebookresearch/mae, models_mae.py.
    """
    order = noise.argsort(dim=1)
    return order[:, :num_visible], order[:, num_visible:]


def grid(side: int, device: torch.device | None = None) -> Tensor:
    """Noise (N,) that keeps one of every four patches, in even rows and columns."""
    row = torch.arange(side, device=device)
    kept = (row[:, None] % 2 == 0) & (row % 2 == 0)
    return (~kept).float().flatten()


def block(rng: np.random.Generator, side: int, num_masked: int) -> np.ndarray:
    """Noise float32 (N,) that removes blocks, as BEiT draws them.

    Blocks of 16 patches or more (on grids below 14 x 14 the same share of the image) and an aspect
    of 0.3 to 1 / 0.3 are drawn until as many patches are removed as asked for; one that would
    remove more is drawn again. Source: microsoft/unilm, beit/masking_generator.py, with the
    smallest block of its recipes. BEiT leaves it at what the blocks have removed when ten draws
    in a row do not fit; here the last few patches are taken from the border of the blocks, so that
    the count is exact.
    """
    mask = np.zeros((side, side), dtype=bool)
    smallest = min(SMALLEST_BLOCK, max(1, round(SMALLEST_BLOCK / 14**2 * side**2)))
    left = num_masked
    while left and (box := draw_block(rng, mask, smallest, left)) is not None:
        mask[box] = True
        left = num_masked - int(mask.sum())
    while left:
        mask[border(rng, mask)] = True
        left -= 1
    return (mask + rng.random((side, side))).astype(np.float32).flatten() / 2


def beit(
    rng: np.random.Generator, side: int, num_masked: int, smallest: int, largest: int | None
) -> np.ndarray:
    """A mask bool (N,) as BEiT draws it, True where a patch is masked: of `num_masked` at most.

    Blocks of `smallest` patches and more (of `largest` at most, if one is given) are drawn until
    the count is reached, or ten draws in a row do not fit what is left of it; so masks differ in
    their counts. Source: microsoft/unilm, beit/masking_generator.py.
    """
    mask = np.zeros((side, side), dtype=bool)
    left = num_masked
    while left:
        most = left if largest is None else min(left, largest)
        box = draw_block(rng, mask, smallest, most)
        if box is None:
            break
        mask[box] = True
        left = num_masked - int(mask.sum())
    return mask.flatten()


def draw_block(
    rng: np.random.Generator, mask: np.ndarray, smallest: int, most: int
) -> tuple[slice, slice] | None:
    """A box that removes at least one patch and at most `most`; None if none was found."""
    side = len(mask)
    for _ in range(ATTEMPTS):
        area = smallest + (most - smallest) * rng.random()
        aspect = math.exp(math.log(MIN_ASPECT) * (1 - 2 * rng.random()))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < height < side and 0 < width < side):
            continue
        top = int(rng.integers(side - height + 1))
        left = int(rng.integers(side - width + 1))
        box = slice(top, top + height), slice(left, left + width)
        if 0 < height * width - int(mask[box].sum()) <= most:
            return box
    return None


def border(rng: np.random.Generator, mask: np.ndarray) -> tuple[int, int]:
    """A visible patch beside a removed one, or any where nothing is removed yet."""
    near = np.zeros_like(mask)
    near[1:] |= mask[:-1]
    near[:-1] |= mask[1:]
    near[:, 1:] |= mask[:, :-1]
    near[:, :-1] |= mask[:, 1:]
    near &= ~mask
    rows, columns = np.nonzero(near if near.any() else ~mask)
    chosen = int(rng.integers(len(rows)))
    return int(rows[chosen]), int(columns[chosen])


def pick(rows: Tensor, indices: Tensor) -> Tensor:
    """Rows of (B, N, C) at `indices` (B, K): (B, K, C)."""
    return rows[torch.arange(len(rows), device=rows.device)[:, None], indices]
