"""ImageNet-C's 15 corruptions at five severities, for images of 32 x 32 pixels.

Names, order and kinds are those of Hendrycks & Dietterich (arXiv 1903.12261). So are the
strengths of noise, brightness, contrast and pixelation, which hold at any size
(hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py). All other strengths are ours, chosen
by eye for small images, lengths in pixels; and so is the code: frost and fog are drawn, and glass
blur picks neighbours rather than swapping them.

A corruption takes an image, (H, W, 3) float32 in 0..1, a strength and a random generator, and
returns such an image, which may leave 0..1.
"""

import math
from collections.abc import Callable
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from PIL import Image

from tasks.miniature.stuff import Rng, pixel_grid, smooth_noise, unit

SEVERITIES = (1, 2, 3, 4, 5)

ICE, FOG = np.array((0.84, 0.93, 1.0), np.float32), np.array((0.80, 0.81, 0.83), np.float32)
"""(3,) each, sRGB"""


def gaussian_noise(image: np.ndarray, deviation: float, rng: Rng) -> np.ndarray:
    return image + deviation * rng.standard_normal(image.shape, dtype=np.float32)


def shot_noise(image: np.ndarray, photons: float, rng: Rng) -> np.ndarray:
    """Counts of light particles; white is `photons` of them on average."""
    return (rng.poisson(image * photons) / photons).astype(np.float32)


def impulse_noise(image: np.ndarray, share: float, rng: Rng) -> np.ndarray:
    """A share of all values becomes 0 or 1."""
    draw = rng.random(image.shape, dtype=np.float32)
    return np.where(draw < share, (draw < share / 2).astype(np.float32), image)


def defocus_blur(image: np.ndarray, radius: float, rng: Rng) -> np.ndarray:
    """The mean over a disc."""
    reach = math.ceil(radius)
    offsets = np.arange(-reach, reach + 1)
    disc = np.clip(radius + 0.5 - np.hypot(offsets[:, None], offsets), 0, 1)
    return _filter(image, disc)


def glass_blur(image: np.ndarray, reach: float, rng: Rng) -> np.ndarray:
    """Each pixel from a random place at most `reach` away in y and in x, then a soft blur."""
    height, width = image.shape[:2]
    y, x = pixel_grid(height, width)
    shift = rng.uniform(-reach, reach, (2, height, width))
    return cv2.GaussianBlur(_sample(image, y + shift[0], x + shift[1]), (0, 0), 0.5)


def motion_blur(image: np.ndarray, length: float, rng: Rng) -> np.ndarray:
    """The mean along a line of a length and of up to 45 degrees either way."""
    return _filter(image, _line(length, rng.uniform(-math.pi / 4, math.pi / 4)))


def zoom_blur(image: np.ndarray, largest: float, rng: Rng) -> np.ndarray:
    """The mean of the image at evenly spaced magnifications from 1 to the largest."""
    height, width = image.shape[:2]
    y, x = pixel_grid(height, width)
    factors = np.linspace(1, largest, 8)
    zoomed = [
        _sample(image, (y - height / 2) / factor + height / 2, (x - width / 2) / factor + width / 2)
        for factor in factors
    ]
    return np.mean(zoomed, axis=0)


def snow(image: np.ndarray, strength: tuple[float, float], rng: Rng) -> np.ndarray:
    """A whiter image behind streaks: (share of the image that stays, share of pixels that snow)."""
    keep, share = strength
    height, width = image.shape[:2]
    flakes = (rng.random((height, width)) < share).astype(np.float32)
    streaks = _filter(flakes, _line(3, rng.uniform(math.pi / 4, 3 * math.pi / 4))) * 2.2
    grey = image.mean(axis=2, keepdims=True)
    whiter = np.maximum(image, grey * 1.5 + 0.5)
    return keep * image + (1 - keep) * unit(whiter) + streaks[:, :, None]


def frost(image: np.ndarray, growth: float, rng: Rng) -> np.ndarray:
    """Feathers of ice that grow from the edges of the image inwards."""
    height, width = image.shape[:2]
    y, x = pixel_grid(height, width)
    edge = np.maximum(np.abs(2 * y / height - 1), np.abs(2 * x / width - 1))
    # Smooth noise is small along lines: they are the feathers.
    feathers = 1 - 2 * np.abs(smooth_noise(rng, height, width, 8, 8))
    clumps = smooth_noise(rng, height, width, 3, 3) + 0.5 * smooth_noise(rng, height, width, 16, 16)
    ice = unit(growth * (0.35 + 0.4 * edge + 0.3 * clumps + 0.25 * feathers))[:, :, None]
    return image + ice * (ICE - image)


def fog(image: np.ndarray, density: float, rng: Rng) -> np.ndarray:
    """Drifts of pale grey, from large to small, that cover this share of the image on average."""
    height, width = image.shape[:2]
    knots = (2, 4, 8, 16)
    drifts = np.stack([smooth_noise(rng, height, width, each, each) / each for each in knots])
    cover = unit(density * (1 + 0.5 * drifts.sum(axis=0)))[:, :, None]
    return image + cover * (FOG - image)


def brightness(image: np.ndarray, gain: float, rng: Rng) -> np.ndarray:
    """More value in the HSV colour space."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[:, :, 2] = np.minimum(hsv[:, :, 2] + gain, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def contrast(image: np.ndarray, share: float, rng: Rng) -> np.ndarray:
    """A share of the contrast to the mean colour stays."""
    mean = image.mean(axis=(0, 1))
    return mean + share * (image - mean)


def elastic_transform(image: np.ndarray, reach: float, rng: Rng) -> np.ndarray:
    """Regions of an eighth of the side are pulled about, each way by up to `reach` pixels."""
    height, width = image.shape[:2]
    y, x = pixel_grid(height, width)
    shift = [reach * smooth_noise(rng, height, width, 8, 8) for _ in range(2)]
    return _sample(image, y + shift[0], x + shift[1])


def pixelate(image: np.ndarray, share: float, rng: Rng) -> np.ndarray:
    """Fewer pixels: this share of them along each side."""
    height, width = image.shape[:2]
    few = _to_pillow(image).resize((int(width * share), int(height * share)), Image.Resampling.BOX)
    return np.asarray(few.resize((width, height), Image.Resampling.BOX), np.float32) / 255


def jpeg_compression(image: np.ndarray, quality: int, rng: Rng) -> np.ndarray:
    buffer = BytesIO()
    _to_pillow(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer), np.float32) / 255


CORRUPTIONS: dict[str, tuple[Callable[[np.ndarray, Any, Rng], np.ndarray], tuple[Any, ...]]] = {
    corruption.__name__: (corruption, strengths)
    for corruption, strengths in (
        (gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
        (shot_noise, (60, 25, 12, 5, 3)),
        (impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
        (defocus_blur, (0.8, 1.2, 1.7, 2.3, 3.0)),
        (glass_blur, (0.9, 1.4, 2.0, 2.7, 3.5)),
        (motion_blur, (2.5, 3.5, 5, 7, 9)),
        (zoom_blur, (1.1, 1.16, 1.24, 1.34, 1.46)),
        (snow, ((0.9, 0.01), (0.85, 0.02), (0.75, 0.035), (0.65, 0.055), (0.55, 0.08))),
        (frost, (0.45, 0.65, 0.85, 1.05, 1.25)),
        (fog, (0.3, 0.42, 0.54, 0.66, 0.76)),
        (brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
        (contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
        (elastic_transform, (0.8, 1.2, 1.7, 2.3, 3.0)),
        (pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
        (jpeg_compression, (60, 35, 20, 12, 7)),
    )
}
"""function, and strength at severities 1 to 5, of each corruption, in the order of the paper"""


def corrupt(image: np.ndarray, name: str, severity: int, rng: Rng) -> np.ndarray:
    """(H, W, 3) uint8, corrupted."""
    corruption, strengths = CORRUPTIONS[name]
    pixels = image.astype(np.float32) / 255
    changed = corruption(pixels, strengths[severity - 1], rng)
    return (np.clip(changed, 0, 1) * 255 + 0.5).astype(np.uint8)


def _filter(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean around each pixel; the image is mirrored at its edges."""
    return cv2.filter2D(image, -1, (weights / weights.sum()).astype(np.float32))


def _line(length: float, angle: float) -> np.ndarray:
    """(K, K): coverage of pixels around the middle one by a line, radians from the x axis."""
    reach = math.ceil(length / 2)
    offsets = np.arange(-reach, reach + 1)
    y, x = offsets[:, None], offsets
    along = np.abs(x * math.cos(angle) + y * math.sin(angle))
    across = np.abs(y * math.cos(angle) - x * math.sin(angle))
    return np.clip(length / 2 + 0.5 - along, 0, 1) * np.clip(1 - across, 0, 1)


def _sample(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The image at pixel centres as `pixel_grid` has them, bilinear, mirrored at its edges."""
    y, x = np.broadcast_arrays((y - 0.5).astype(np.float32), (x - 0.5).astype(np.float32))
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _to_pillow(image: np.ndarray) -> Image.Image:
    return Image.fromarray((image * 255 + 0.5).astype(np.uint8))
