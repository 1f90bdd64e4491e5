"""Renditions: the thing of a scene, drawn again by hand in another style.

A rendition takes a scene with one thing and returns (H, W, 3) uint8. The shape is kept, but for
an unsteady hand; of colours, patterns and light, each style keeps something else.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from tasks.miniature.colour import Colour, oklch
from tasks.miniature.scene import Scene, Thing, object_coordinates
from tasks.miniature.shapes import OUTLINES
from tasks.miniature.stuff import STUFF, Canvas, Rng, pixel_grid, smooth_noise, unit

BLACK, WHITE = oklch(0, 0, 0), oklch(1, 0, 0)
LINEN, THREAD_PIXELS = oklch(0.93, 0.03, 85), 4
PAPER, GRAPHITE = oklch(0.94, 0.02, 90), oklch(0.30, 0.01, 260)

FLAT = {
    "sky": (0.84, 0.09, 230),
    "grass": (0.80, 0.16, 135),
    "water": (0.70, 0.13, 250),
    "sand": (0.90, 0.09, 90),
    "brick": (0.68, 0.13, 40),
    "wood": (0.74, 0.09, 70),
}
"""lightness, chroma and hue of each stuff in cartoons"""


def cartoon(rng: Rng, scene: Scene) -> np.ndarray:
    """Flat loud colours, one flat light, thick black outlines."""
    (thing,) = scene.things
    height, width = scene.stuff.shape
    colours = np.concatenate([oklch(*FLAT[name]) for name in STUFF], axis=2)[:, 0]  # (3, stuff)
    canvas = colours[:, scene.stuff]
    distance = _distance(thing, height, width)
    _paint(canvas, unit(0.5 - distance), oklch(0.68, 0.22, thing.hue))
    # What a shift to the lower right leaves uncovered of the thing is lit.
    lit = unit(0.5 - distance) * unit(0.5 + _distance(thing, height, width, 0.16 * thing.radius))
    _paint(canvas, lit, oklch(0.84, 0.16, thing.hue + 10))
    _paint(canvas, _line(distance, rng.uniform(2.5, 4)), oklch(0.15, 0.02, thing.hue))
    return _pixels(canvas)


def embroidery(rng: Rng, scene: Scene) -> np.ndarray:
    """Slanted threads of two tones with ragged ends, on woven linen."""
    (thing,) = scene.things
    height, width = scene.stuff.shape
    y, x = pixel_grid(height, width)
    canvas = LINEN * (1 + 0.05 * np.sin(y * (math.pi / 2)) * np.sin(x * (math.pi / 2)))
    slant = rng.choice((-0.5, 0.5))
    thread = (y + slant * x) / THREAD_PIXELS
    ragged = np.sin(np.floor(thread) * 12.99) * 1.2
    inside = unit(0.5 - (_distance(thing, height, width) + ragged))
    tone = unit(0.5 + 0.5 * np.cos(2 * math.pi * (thread - np.floor(thread) - 0.5)))
    dark, light = oklch(0.42, 0.13, thing.hue), oklch(0.74, 0.16, thing.hue)
    _paint(canvas, inside, dark + (light - dark) * tone)
    return _pixels(canvas)


def painting(rng: Rng, scene: Scene) -> np.ndarray:
    """Few tones in broad dabs, the whole palette turned to another hue."""
    dabs = ImageOps.posterize(Image.fromarray(scene.image), 3).filter(ImageFilter.ModeFilter(5))
    hue, saturation, value = dabs.convert("HSV").split()
    turn = int(rng.integers(60, 197))
    turned = hue.point([(level + turn) % 256 for level in range(256)])
    return np.asarray(Image.merge("HSV", (turned, saturation, value)).convert("RGB"))


def sketch(rng: Rng, scene: Scene) -> np.ndarray:
    """Pencil on paper: some unsteady outlines and slanted hatching."""
    (thing,) = scene.things
    height, width = scene.stuff.shape
    y, x = pixel_grid(height, width)
    canvas = np.broadcast_to(PAPER, (3, height, width)).copy()
    hatch = unit(np.sin((x + y) * rng.uniform(1.0, 1.4)) + 0.1)
    inside = unit(0.5 - _distance(thing, height, width))
    _paint(canvas, inside * hatch * 0.45, GRAPHITE)
    _paint(canvas, _outlines(rng, thing, height, width, 2) * 0.85, GRAPHITE)
    return _pixels(canvas)


def line_drawing(rng: Rng, scene: Scene) -> np.ndarray:
    """Black outlines on white, drawn in one go or two: no colour, no texture, no place."""
    (thing,) = scene.things
    height, width = scene.stuff.shape
    canvas = np.broadcast_to(WHITE, (3, height, width)).copy()
    _paint(canvas, _outlines(rng, thing, height, width, int(rng.integers(1, 3))), BLACK)
    return _pixels(canvas)


RENDITIONS: dict[str, Callable[[Rng, Scene], np.ndarray]] = {
    style.__name__: style for style in (cartoon, embroidery, painting, sketch)
}
"""the styles of ImageNet-R's twin, by names that the original has too"""


def _distance(
    thing: Thing, height: int, width: int, shift: float = 0.0, wobble: np.ndarray | None = None
) -> np.ndarray:
    """(H, W): about the distance of each pixel to the outline, pixels, negative inside."""
    y, x = pixel_grid(height, width)
    if wobble is not None:
        y, x = y + wobble[0], x + wobble[1]
    return OUTLINES[thing.shape](*object_coordinates(thing, y, x, shift)) * thing.radius


def _line(distance: np.ndarray, thickness: float) -> np.ndarray:
    """(H, W) in 0..1: coverage by a line along the outline, pixels thick."""
    return unit(thickness / 2 + 0.5 - np.abs(distance))


def _outlines(rng: Rng, thing: Thing, height: int, width: int, times: int) -> np.ndarray:
    """(H, W) in 0..1: ink of the outline, drawn several times with an unsteady hand."""
    ink = np.zeros((height, width), np.float32)
    for _ in range(times):
        wobble = np.stack([smooth_noise(rng, height, width, 4, 4) for _ in range(2)]) * 1.6
        line = _line(_distance(thing, height, width, wobble=wobble), rng.uniform(1.2, 2.2))
        ink = np.maximum(ink, line)
    return ink


def _paint(canvas: Canvas, coverage: np.ndarray, colour: Colour | Canvas) -> None:
    canvas += coverage * (colour - canvas)


def _pixels(canvas: Canvas) -> np.ndarray:
    pixels = (unit(canvas) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
