"""A 3 x 3 convolution over maps of several sizes, which are resized to the first one's only after.

Resizing is linear and the same for all channels, so the products with the weights can come first,
where the smaller maps are: a map of half the side takes a quarter of the multiplications, one of an
eighth a sixty-fourth, and no map that holds all is put together. In real numbers it is the same.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = 3
"""rows and columns of the convolution"""


def conv_of_resized(weight: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """A convolution, padding 1, of `maps` (B, C_i, h_i, w_i), resized to h_0 and w_0 and joined.

    Bilinearly, corners not aligned. `weight`: (O, C_0 + C_1 + ..., 3, 3). Returns (B, O, h_0, w_0).
    """
    first, *others = maps
    of_first, *of_others = weight.split([each.shape[1] for each in maps], dim=1)
    found = F.conv2d(first, of_first, padding=1)
    batch, channels, height, width = found.shape
    found = found.flatten(0, 1)
    for small, of_small in zip(others, of_others, strict=True):
        h, w = small.shape[2:]
        across = taps_of_resized(w, width, small).mT.reshape(TAPS, w, width)
        down = taps_of_resized(h, height, small)
        rows: Any = None  # (B, 3 O h, w_0): by rows of the weights, at the final width
        for column in range(TAPS):  # one after the other, which needs no transposed copies
            taps = of_small[..., column].mT.reshape(1, channels * TAPS, -1)
            seen = taps.expand(batch, -1, -1) @ small.flatten(2)
            seen = seen.view(batch, channels * TAPS * h, w)
            to = across[column].expand(batch, -1, -1)
            rows = seen @ to if rows is None else torch.baddbmm(rows, seen, to)
        rows = rows.view(batch * channels, TAPS * h, width)
        found = torch.baddbmm(found, down.expand(batch * channels, -1, -1), rows)
    return found.view(batch, channels, height, width)


def taps_of_resized(small: int, large: int, like: Tensor) -> Tensor:
    """What each of `large` places sees through three taps of a line of `small`, resized to `large`.

    (large, 3 small): for the place before, the place itself and the place after, the share that
    each of the line's values has in it; nothing beyond the ends.
    """
    line = torch.eye(small, dtype=like.dtype, device=like.device)
    resized = F.interpolate(line[None], large, mode="linear", align_corners=False)[0].mT
    padded = F.pad(resized, (0, 0, 1, 1))
    return torch.cat([padded[tap : tap + large] for tap in range(TAPS)], dim=1)
