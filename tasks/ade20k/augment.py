"""The training view of an image and its labels, and the resize of the test.

Resize, crop, mirror, distort: the pipeline of BEiT and mmsegmentation (mmsegmentation
configs/_base_/datasets/ade20k.py). Resizing and colours are OpenCV's, as there, so that equal
draws give equal pixels, to the bit, of an equally decoded image.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from tasks.ade20k.datasets import IGNORED
from tasks.errors import TaskError

TRIES = 10
"""crops that are drawn again, at most, for one class filling too much of them"""

BRIGHTNESS = 32.0
"""most that is added to a value or taken away"""
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
HUE = 18
"""most that a hue is turned, of 180 for the whole circle"""
HUES = 180
HUE_CHANNEL, SATURATION_CHANNEL = 0, 1


@dataclass(frozen=True)
class Augment:
    """The random view of an image and its labels."""

    crop_size: int
    """side of the square, pixels"""
    scale: tuple[int, int]
    """longest and shortest side that a resized image fits in, before the ratio, pixels"""
    ratio_range: tuple[float, float]
    """both sides of `scale` are multiplied by a number uniform in it"""
    max_class_share: float
    """of the labelled pixels of a crop; a crop with more of one class is drawn again"""
    flip_prob: float
    photometric: bool = True
    """whether colours are distorted"""

    def __call__(
        self, pixels: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """An image uint8 (H, W, 3) and labels uint8 (H, W) -> the same of a crop, not padded.

        A side is `crop_size` or, if the resized image is smaller, as long as that.
        """
        height, width = labels.shape
        size = fitted_size(height, width, draw_scale(rng, self.scale, self.ratio_range))
        labels = resize_labels(labels, size)
        top, left = draw_crop(rng, labels, self.crop_size, self.max_class_share)
        pixels = resize_image(pixels, size)
        rows, columns = slice(top, top + self.crop_size), slice(left, left + self.crop_size)
        pixels, labels = pixels[rows, columns], labels[rows, columns]
        if rng.random() < self.flip_prob:
            pixels, labels = pixels[:, ::-1], labels[:, ::-1]
        pixels = np.ascontiguousarray(pixels)
        if self.photometric:
            pixels = distort(pixels, rng)
        return pixels, np.ascontiguousarray(labels)


@lru_cache(maxsize=1)
def opencv() -> Any:
    """OpenCV, on one thread: loading processes are what runs side by side.

    Raises TaskError if it cannot be imported.
    """
    try:
        import cv2
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise TaskError(
            f"OpenCV cannot be imported ({reason}); expected the package opencv-python: install it,"
            " or the system library that it names"
        ) from error
    cv2.setNumThreads(0)
    return cv2


def draw_scale(
    rng: np.random.Generator, scale: tuple[int, int], ratio_range: tuple[float, float]
) -> tuple[int, int]:
    """`scale` times one ratio, rounded down: mmcv transforms/processing.py (RandomResize)."""
    low, high = ratio_range
    ratio = rng.random() * (high - low) + low
    return int(scale[0] * ratio), int(scale[1] * ratio)


def fitted_size(height: int, width: int, scale: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the largest image of the same aspect that fits in `scale`.

    The longer side is at most the longer of `scale`, the shorter at most the shorter: mmcv
    image/geometric.py (rescale_size), a side being at least a pixel.
    """
    ratio = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(int(height * ratio + 0.5), 1), max(int(width * ratio + 0.5), 1)


def resize_image(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image uint8 (H, W, 3) resized to `size` (height, width).

    Bilinear between the nearest pixels, without smoothing where it shrinks: OpenCV, as mmcv.
    """
    cv2 = opencv()
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels uint8 (H, W) resized to `size` (height, width), each taken from one pixel."""
    cv2 = opencv()
    return cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST)


def draw_crop(
    rng: np.random.Generator, labels: np.ndarray, size: int, max_class_share: float
) -> tuple[int, int]:
    """(top, left) of a random square within labels uint8 (H, W).

    It is drawn again, up to ten times, as long as there is but one class in it or one has
    `max_class_share` of its labelled pixels or more; the last is taken whatever it holds.
    Source: mmsegmentation datasets/transforms/transforms.py (RandomCrop).
    """
    margins = [max(side - size, 0) for side in labels.shape]

    def draw() -> tuple[int, int]:
        top, left = (int(rng.integers(0, margin + 1)) for margin in margins)
        return top, left

    top, left = draw()
    if max_class_share >= 1:
        return top, left
    for _ in range(TRIES):
        if is_mixed(labels[top : top + size, left : left + size], max_class_share):
            break
        top, left = draw()
    return top, left


def is_mixed(labels: np.ndarray, max_class_share: float) -> bool:
    """Whether there are several classes, each with less than the share of labelled pixels."""
    counts = np.bincount(labels.ravel(), minlength=IGNORED + 1)[:IGNORED]
    several = np.count_nonzero(counts) > 1
    return bool(several and counts.max() / counts.sum() < max_class_share)


def distort(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue of an image uint8 (H, W, 3) RGB, each at random.

    Each is changed with a chance of a half; contrast comes before or after the colours. Values
    are cut to 0..255 and rounded down after every step. Source: mmsegmentation
    datasets/transforms/transforms.py (PhotoMetricDistortion).
    """
    if rng.integers(2):
        pixels = opencv().LUT(pixels, linear(add=rng.uniform(-BRIGHTNESS, BRIGHTNESS)))
    contrast_first = rng.integers(2) == 1
    if contrast_first:
        pixels = distort_contrast(pixels, rng)
    if rng.integers(2):
        pixels = map_hsv(pixels, SATURATION_CHANNEL, linear(times=rng.uniform(*SATURATION)))
    if rng.integers(2):
        pixels = map_hsv(pixels, HUE_CHANNEL, turned(int(rng.integers(-HUE, HUE))))
    return pixels if contrast_first else distort_contrast(pixels, rng)


def distort_contrast(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.integers(2):
        return opencv().LUT(pixels, linear(times=rng.uniform(*CONTRAST)))
    return pixels


def map_hsv(pixels: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """An RGB image with one channel of its HSV form sent through `table`, uint8 (256,)."""
    cv2 = opencv()
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    hsv[:, :, channel] = table[hsv[:, :, channel]]
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def linear(times: float = 1.0, add: float = 0.0) -> np.ndarray:
    """value -> times * value + add, cut to 0..255 and rounded down, uint8 (256,)."""
    values = np.arange(256, dtype=np.float32) * times + add
    return np.clip(values, 0, 255).astype(np.uint8)


def turned(by: int) -> np.ndarray:
    """Hue -> hue turned, uint8 (256,)."""
    return ((np.arange(256) + by) % HUES).astype(np.uint8)


def pad_image(pixels: np.ndarray, size: int) -> np.ndarray:
    """An image uint8 (h, w, 3) in the upper left corner of zeros (3, size, size).

    A view with channels last in memory.
    """
    canvas = np.zeros((size, size, 3), dtype=np.uint8)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    return canvas.transpose(2, 0, 1)


def pad_labels(labels: np.ndarray, size: int) -> np.ndarray:
    """Labels uint8 (h, w) in the upper left corner of 255, (size, size)."""
    canvas = np.full((size, size), IGNORED, dtype=np.uint8)
    canvas[: labels.shape[0], : labels.shape[1]] = labels
    return canvas


def resize_for_test(pixels: np.ndarray, scale: tuple[int, int]) -> np.ndarray:
    """An image uint8 (H, W, 3) as large as fits in `scale`, uint8 (3, h, w), channels last."""
    size = fitted_size(pixels.shape[0], pixels.shape[1], scale)
    return resize_image(pixels, size).transpose(2, 0, 1)
