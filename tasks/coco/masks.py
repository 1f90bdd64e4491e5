"""Instance masks: training targets, pasting into the image, run lengths.

Each as detectron2 does it, because each moves the mask AP: structures/masks.py and
layers/mask_ops.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import roi_align


@dataclass(frozen=True)
class Bitmap:
    """A bitmap, bool (h, w), kept as run lengths: hundreds of a megabyte each fill the memory.

    `np.asarray` gives its pixels.
    """

    rle: dict[str, Any]
    """as pycocotools has them"""
    dtype: ClassVar = np.dtype(bool)

    @classmethod
    def of(cls, pixels: np.ndarray) -> Self:
        return cls(coco_mask.encode(np.asfortranarray(pixels, dtype=np.uint8)))

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.rle["size"]
        return height, width

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return coco_mask.decode(self.rle).astype(dtype or self.dtype)


Mask = list[np.ndarray] | np.ndarray | Bitmap
"""polygons, each (k, 2) float64 (x, y) in pixels; or a bitmap, bool (h, w)"""

LEAST_SIDE = 0.1
"""pixels; a thinner box is drawn as wide as this"""
STRIPE_PIXELS = 2**20
"""pixels that are pasted at a time, for about 20 bytes each"""


def crop_targets(masks: Sequence[Mask], boxes: Tensor, side: int) -> Tensor:
    """What each mask looks like inside its box: (n,) masks and boxes (n, 4) to bool (n, s, s).

    Polygons are drawn anew at that size; a bitmap is sampled by aligned ROIAlign and cut at 0.5.
    """
    targets = torch.zeros((len(masks), side, side), dtype=torch.bool)
    corners = boxes.detach().cpu().numpy().astype(np.float64)
    for i, (mask, box) in enumerate(zip(masks, corners, strict=True)):
        if not isinstance(mask, list):
            targets[i] = crop_bitmap(np.asarray(mask), boxes[i].detach().cpu(), side)
        else:
            extent = np.maximum(box[2:] - box[:2], LEAST_SIDE)
            moved = [((ring - box[:2]) * (side / extent)).ravel().tolist() for ring in mask]
            targets[i] = torch.from_numpy(draw(moved, side, side))
    return targets


def crop_bitmap(mask: np.ndarray, box: Tensor, side: int) -> Tensor:
    """A bitmap (h, w) inside a box (4,), bool (side, side)."""
    roi = torch.cat([torch.zeros(1), box.float()])[None]
    bitmap = torch.from_numpy(mask).float()[None, None]
    return roi_align(bitmap, roi, side, aligned=True)[0, 0] >= 0.5


def draw(polygons: list[list[float]], height: int, width: int) -> np.ndarray:
    """Polygons [x, y, x, y, ...] filled by COCO's rule, bool (height, width)."""
    if not polygons:
        return np.zeros((height, width), bool)
    rles = coco_mask.frPyObjects(polygons, height, width)
    return coco_mask.decode(coco_mask.merge(rles)).astype(bool)


def paste(mask: Tensor, box: Tensor, height: int, width: int) -> dict[str, Any]:
    """Mask probabilities (M, M) put into their box (4,) and cut at 0.5, as COCO's run lengths.

    Each pixel centre is looked up in the mask bilinearly, at sub-pixel box corners, as
    detectron2's paste_masks_in_image does; but by stripes, and no image-sized bitmap is made.
    """
    mask, box = mask.float().cpu(), box.float().cpu()
    left, top = (box[:2].floor() - 1).clamp(min=0).int().tolist()
    right = min(int(box[2].ceil()) + 1, width)
    bottom = min(int(box[3].ceil()) + 1, height)
    x = (torch.arange(left, right) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (torch.arange(top, bottom) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    columns = max(1, STRIPE_PIXELS // max(1, bottom - top))
    edges = []
    for first in range(0, right - left, columns):
        stripe = torch.meshgrid(x[first : first + columns], y, indexing="xy")
        grid = torch.stack(stripe, dim=-1)[None]
        inside = F.grid_sample(mask[None, None], grid, align_corners=False)[0, 0] >= 0.5
        edges.append(runs(inside.numpy(), left + first, top, height))
    return run_lengths(np.concatenate([np.empty((0, 2), np.int64), *edges]), height, width)


def runs(inside: np.ndarray, left: int, top: int, height: int) -> np.ndarray:
    """Runs down the columns of a part, bool (h, w), that lies at (top, left) in a whole.

    int64 (n, 2): where each begins and ends in a whole of that height.
    """
    columns = np.zeros((inside.shape[1], inside.shape[0] + 2), np.int8)
    columns[:, 1:-1] = inside.T
    changes = np.diff(columns, axis=1)
    found = []
    for change in (1, -1):
        column, row = np.nonzero(changes == change)
        found.append((left + column.astype(np.int64)) * height + top + row)
    return np.stack(found, axis=1)


def run_lengths(edges: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """Runs as COCO's compressed RLE, with text instead of bytes."""
    starts, ends = edges.T
    apart = starts[1:] != ends[:-1]  # others go on from a column's end to the next one's start
    first, last = np.append(True, apart), np.append(apart, True)
    bounds = np.stack([starts[first[: len(starts)]], ends[last[: len(ends)]]], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], bounds, [height * width]]))
    counts = counts[: len(counts) - (counts[-1] == 0)]
    rle = {"size": [height, width], "counts": counts.tolist()}
    packed = coco_mask.frPyObjects(rle, height, width)["counts"]
    return {"size": [height, width], "counts": packed.decode()}
