"""Predictions for an image of any size from a network of one size.

Shapes: B windows, K classes, S side of a window, (h, w) the network's view of an image, (H, W)
the image itself.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tasks.ade20k.upernet import resize

MOST_LOGITS = 2**28
"""of an image at its own size, 1 GiB; more are computed by bands (150 classes: 1.8 megapixels)"""
BAND_LOGITS = 2**25

Logits = Callable[[Tensor], Tensor]
"""windows (B, 3, S, S) to logits (B, K, S, S)"""


def slide(logits: Logits, image: Tensor, side: int, stride: int, batch_size: int) -> Tensor:
    """Logits (K, h, w) of a normalised image (3, h, w), averaged where windows overlap.

    `batch_size` windows are computed at a time. The last window of a row or column ends with the
    image. Source: mmsegmentation, models/segmentors/encoder_decoder.py (slide_inference), except
    for an image with a side shorter than the window, whose window is smaller there and here padded
    with zeros on the right and at the bottom, since a ViT's positions take one size.
    """
    height, width = image.shape[1:]
    image = F.pad(image, (0, max(0, side - width), 0, max(0, side - height)))
    corners = [
        (top, left)
        for top in starts(image.shape[1], side, stride)
        for left in starts(image.shape[2], side, stride)
    ]
    total: Tensor | None = None
    count = image.new_zeros(image.shape[1:])
    for first in range(0, len(corners), batch_size):
        batch = corners[first : first + batch_size]
        windows = torch.stack([cut(image, corner, side) for corner in batch])
        for corner, found in zip(batch, logits(windows), strict=True):
            if total is None:
                total = found.new_zeros((len(found), *image.shape[1:]))
            cut(total, corner, side).add_(found)
            cut(count, corner, side).add_(1)
    assert total is not None
    return total.div_(count)[:, :height, :width]


def starts(length: int, side: int, stride: int) -> list[int]:
    """First pixel of each window along a side of `length` pixels, `side` or more."""
    number = max(length - side + stride - 1, 0) // stride + 1
    return [min(step * stride, length - side) for step in range(number)]


def cut(image: Tensor, corner: tuple[int, int], side: int) -> Tensor:
    """The window (…, side, side) of an image (…, h, w)."""
    top, left = corner
    return image[..., top : top + side, left : left + side]


def classes(views: Iterable[tuple[Tensor, bool]], size: Sequence[int]) -> Tensor:
    """Classes (H, W), uint8, from the logits (K, h, w) of one or several views of an image.

    With each view comes whether it is mirrored. Logits are resized to `size`, (H, W). Of one view
    the largest wins; of several, the largest mean of their softmax: mmsegmentation,
    models/segmentors/seg_tta.py (merge_preds).
    """
    views = iter(views)
    first = next(views)
    if first[0].shape[0] * size[0] * size[1] > MOST_LOGITS:
        return by_bands([first, *views], size)
    found = at_size(*first, size)
    for number, (logits, mirrored) in enumerate(views):
        if number == 0:
            found = found.softmax(dim=0)
        found += at_size(logits, mirrored, size).softmax(dim=0)
    return found.argmax(dim=0).byte()


def by_bands(views: Sequence[tuple[Tensor, bool]], size: Sequence[int]) -> Tensor:
    """The same a few rows at a time: logits at the size of a large image would not fit.

    The views themselves are as large as the recipe's scale allows, whatever the image.
    """
    height, width = size
    found = torch.empty((height, width), dtype=torch.uint8, device=views[0][0].device)
    step = max(1, BAND_LOGITS // (views[0][0].shape[0] * width))
    for top in range(0, height, step):
        bottom = min(top + step, height)
        bands = [rows_at_size(*view, size, top, bottom) for view in views]
        total = bands[0]
        if bands[1:]:
            total = torch.stack([band.softmax(dim=0) for band in bands]).sum(dim=0)
        found[top:bottom] = total.argmax(dim=0).byte()
    return found


def rows_at_size(
    logits: Tensor, mirrored: bool, size: Sequence[int], top: int, bottom: int
) -> Tensor:
    """The rows from `top` to `bottom` of what `at_size` gives, but for rounding."""
    rows = torch.arange(top, bottom, device=logits.device, dtype=torch.float32)
    place = ((rows + 0.5) * (logits.shape[1] / size[0]) - 0.5).clamp_(min=0)
    upper = place.long().clamp_(max=logits.shape[1] - 1)
    lower = (upper + 1).clamp_(max=logits.shape[1] - 1)
    share = (place - upper).view(1, -1, 1)
    start, end = int(upper[0]), int(lower[-1]) + 1
    wide = resize(logits[None, :, start:end], (end - start, size[1]))[0]
    found = wide[:, upper - start] * (1 - share) + wide[:, lower - start] * share
    return found.flip(-1) if mirrored else found


def at_size(logits: Tensor, mirrored: bool, size: Sequence[int]) -> Tensor:
    """Logits (K, H, W) that are not mirrored."""
    logits = resize(logits[None], size)[0]
    return logits.flip(-1) if mirrored else logits
