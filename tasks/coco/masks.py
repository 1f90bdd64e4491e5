"""Instance masks: training targets, pasting into the image, run lengths.

Each as detectron2 does it, because each moves the mask AP: structures/masks.py and
layers/mask_ops.py.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import roi_align

Mask = list[np.ndarray] | np.ndarray
"""polygons, each (k, 2) float64 (x, y) in pixels; or a bitmap, bool (h, w)"""

LEAST_SIDE = 0.1
"""pixels; a thinner box is drawn as wide as this"""


def crop_targets(masks: Sequence[Mask], boxes: Tensor, side: int) -> Tensor:
    """What each mask looks like inside its box: (n,) masks and boxes (n, 4) to bool (n, s, s).

    Polygons are drawn anew at that size; a bitmap is sampled by aligned ROIAlign and cut at 0.5.
    """
    targets = torch.zeros((len(masks), side, side), dtype=torch.bool)
    corners = boxes.detach().cpu().numpy().astype(np.float64)
    for i, (mask, box) in enumerate(zip(masks, corners, strict=True)):
        if isinstance(mask, np.ndarray):
            targets[i] = crop_bitmap(mask, boxes[i].detach().cpu(), side)
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


def paste(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Mask probabilities (n, M, M) put into their boxes (n, 4) and cut at 0.5.

    Returns bool (n, height, width) on the CPU. Each pixel centre is looked up in the mask
    bilinearly, at sub-pixel box corners, as detectron2's paste_masks_in_image does.
    """
    pasted = torch.zeros((len(masks), height, width), dtype=torch.bool)
    masks, boxes = masks.float().cpu(), boxes.float().cpu()
    for i, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
        left, top = (box[:2].floor() - 1).clamp(min=0).int().tolist()
        right = min(int(box[2].ceil()) + 1, width)
        bottom = min(int(box[3].ceil()) + 1, height)
        x = (torch.arange(left, right) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
        y = (torch.arange(top, bottom) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
        inside = F.grid_sample(mask[None, None], grid, align_corners=False)[0, 0]
        pasted[i, top:bottom, left:right] = inside >= 0.5
    return pasted


def run_lengths(masks: Tensor) -> list[dict[str, Any]]:
    """COCO's compressed RLE of bool masks (n, H, W), with text instead of bytes."""
    if not len(masks):
        return []
    stacked = np.asfortranarray(masks.numpy().astype(np.uint8).transpose(1, 2, 0))
    return [{**rle, "counts": rle["counts"].decode()} for rle in coco_mask.encode(stacked)]
