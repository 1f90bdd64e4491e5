"""The stuff of the miniature world: softly textured backgrounds that fill a place in bands."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from tasks.miniature.colour import Colour, oklch

Rng = np.random.Generator
Canvas = np.ndarray
"""(3, H, W) float32, sRGB in about 0..1"""


@lru_cache(maxsize=32)
def pixel_grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres: y (H, 1) and x (1, W), float32."""
    y = np.arange(height, dtype=np.float32)[:, None] + 0.5
    x = np.arange(width, dtype=np.float32)[None, :] + 0.5
    return y, x


def unit(values: np.ndarray) -> np.ndarray:
    """Clip to 0..1, in place (several times faster than np.clip on small arrays)."""
    np.maximum(values, 0, out=values)
    return np.minimum(values, 1, out=values)


@lru_cache(maxsize=512)
def _blend(length: int, knots: int) -> np.ndarray:
    """(length, knots + 1) float32: weights of smooth interpolation between evenly spaced knots."""
    position = (np.arange(length, dtype=np.float32) + 0.5) * (knots / length)
    left = np.minimum(position.astype(int), knots - 1)
    share = position - left
    share = share * share * (3 - 2 * share)
    weights = np.zeros((length, knots + 1), np.float32)
    weights[np.arange(length), left] = 1 - share
    weights[np.arange(length), left + 1] = share
    return weights


def smooth_noise(rng: Rng, height: int, width: int, rows: int, columns: int) -> np.ndarray:
    """(H, W) float32 in -1..1 that varies over H/rows by W/columns pixels."""
    knots = rng.random((rows + 1, columns + 1), dtype=np.float32) * 2 - 1
    return _blend(height, rows) @ knots @ _blend(width, columns).T


def _gradient(height: int, top: Colour, bottom: Colour) -> Canvas:
    """(3, H, 1), from top to bottom."""
    y, _ = pixel_grid(height, 1)
    return top + (bottom - top) * (y / height)


def sky(rng: Rng, height: int, width: int) -> Canvas:
    """Clear day, haze or dusk, with a few soft clouds."""
    hue, low_hue = [(245, 225), (255, 60), (290, 30), (220, 100)][rng.integers(4)]
    light = rng.uniform(0.70, 0.84)
    top, bottom = oklch(light, 0.09, hue), oklch(min(light + 0.12, 0.95), 0.05, low_hue)
    clouds = unit(smooth_noise(rng, height, width, 4, 2) - 0.15) * 0.22
    canvas = _gradient(height, top, bottom)
    return canvas + clouds * (1 - canvas)


def grass(rng: Rng, height: int, width: int) -> Canvas:
    """Green to dry, with short upright blades."""
    hue, light = rng.uniform(105, 150), rng.uniform(0.58, 0.74)
    canvas = _gradient(height, oklch(light + 0.05, 0.10, hue), oklch(light - 0.05, 0.11, hue + 6))
    blades = smooth_noise(rng, height, width, max(height // 6, 1), max(width // 2, 1))
    return canvas * (1 + 0.045 * blades)


def water(rng: Rng, height: int, width: int) -> Canvas:
    """Blue to green, with long low waves that widen towards the viewer."""
    hue, light = rng.uniform(185, 250), rng.uniform(0.58, 0.76)
    canvas = _gradient(height, oklch(light + 0.06, 0.07, hue), oklch(light - 0.05, 0.09, hue + 8))
    y, _ = pixel_grid(height, width)
    waves = np.sin(np.sqrt(y + 2) * 5 + smooth_noise(rng, height, width, 3, 3) * 2.4)
    return canvas * (1 + 0.035 * waves)


def sand(rng: Rng, height: int, width: int) -> Canvas:
    """Pale yellow to grey dunes with a fine grain."""
    hue, light, chroma = rng.uniform(60, 100), rng.uniform(0.74, 0.87), rng.uniform(0.03, 0.08)
    canvas = _gradient(height, oklch(light + 0.04, chroma, hue), oklch(light - 0.06, chroma, hue))
    dunes = smooth_noise(rng, height, width, 4, 2)
    grain = rng.random((height, width), dtype=np.float32) - 0.5
    return canvas * (1 + 0.035 * dunes + 0.04 * grain)


def brick(rng: Rng, height: int, width: int) -> Canvas:
    """Courses of bricks, red to sandstone, with pale joints."""
    hue, light, chroma = rng.uniform(25, 75), rng.uniform(0.58, 0.76), rng.uniform(0.04, 0.09)
    y, x = pixel_grid(height, width)
    course = rng.uniform(6, 9)
    row = np.floor(y / course)
    along = x / (2 * course) + 0.5 * (row % 2)
    column = np.floor(along)
    tone = np.sin(row * 12.99 + column * 78.23) * 0.03
    edge = np.minimum(y - row * course, (along - column) * (2 * course))
    return oklch(light, chroma, hue) * (1 + tone + 0.09 * unit(1.5 - edge))


def wood(rng: Rng, height: int, width: int) -> Canvas:
    """Planks with long grain, honey to grey."""
    hue, light, chroma = rng.uniform(50, 85), rng.uniform(0.60, 0.78), rng.uniform(0.03, 0.09)
    y, _ = pixel_grid(height, width)
    plank = rng.uniform(9, 14)
    row = np.floor(y / plank)
    tone = np.sin(row * 12.99 + rng.uniform(0, 6)) * 0.045
    gap = unit(1.3 - (y - row * plank)) * 0.14
    grain = smooth_noise(rng, height, width, max(height // 2, 1), 3) * 0.025
    return oklch(light, chroma, hue) * (1 + (tone - gap) + grain)


STUFF: dict[str, Callable[[Rng, int, int], Canvas]] = {
    stuff.__name__: stuff for stuff in (sky, grass, water, sand, brick, wood)
}
"""the stuff classes, in order of their class index"""

PLACES: dict[str, tuple[str, ...]] = {
    "barn": ("wood", "grass"),
    "beach": ("sky", "water", "sand"),
    "courtyard": ("brick", "grass"),
    "desert": ("sky", "sand"),
    "lakeside": ("sky", "grass", "water"),
    "loft": ("brick", "wood"),
    "meadow": ("sky", "grass"),
    "pier": ("sky", "water", "wood"),
}
"""the place classes, in order of their class index: which stuff, from top to bottom"""


def draw_place(rng: Rng, height: int, width: int, place: str) -> tuple[Canvas, np.ndarray]:
    """Paint a place; return the canvas and the stuff index of each pixel, (H, W) uint8."""
    bands = PLACES[place]
    edges = _edges(rng, height, width, len(bands), straight=bands[0] in ("brick", "wood"))
    bottoms = [min(int(edge.max()) + 2, height) for edge in edges] + [height]
    y, _ = pixel_grid(height, width)
    canvas = np.empty((3, height, width), np.float32)
    labels = np.empty((height, width), np.uint8)
    for number, (band, bottom) in enumerate(zip(bands, bottoms, strict=True)):
        label = list(STUFF).index(band)
        top = max(int(edges[number - 1].min()) - 1, 0) if number else 0
        paint = STUFF[band](rng, bottom - top, width)
        if number == 0:
            canvas[:, :bottom] = paint
            labels[:bottom] = label
            continue
        # A band is painted over the one above; below that one's last row nothing shows through.
        below = unit(y[top:bottom] - edges[number - 1] + 0.5)
        seam = bottoms[number - 1] - top
        canvas[:, top + seam : bottom] = paint[:, seam:]
        canvas[:, top : top + seam] += below[:seam] * (
            paint[:, :seam] - canvas[:, top : top + seam]
        )
        labels[top:bottom] = np.where(below > 0.5, label, labels[top:bottom])
    return canvas, labels


def _edges(rng: Rng, height: int, width: int, bands: int, straight: bool) -> list[np.ndarray]:
    """The y of each boundary between bands, (1, W) float32, from top to bottom."""
    _, x = pixel_grid(height, width)
    share = rng.uniform(0.35, 0.60)
    edges = []
    for _ in range(bands - 1):
        bend = 0.0 if straight else rng.uniform(0.0, 0.03) * height
        wave = np.sin(x * (rng.uniform(2, 6) / width) + rng.uniform(0, 6))
        edges.append(height * share + bend * wave)
        share += (1 - share) * rng.uniform(0.4, 0.6)
    return edges
