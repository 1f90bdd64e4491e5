"""Sheets of pictures beside each other, to look at."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN, CAPTION = 12, 30
TONES = ((0.8, 0.78), (0.55, 0.92), (0.9, 0.5))
"""saturation and value of every third class"""


def spread(count: int, most: int) -> list[int]:
    """Up to `most` of the numbers below `count`, at even distances from the first to the last."""
    return np.linspace(0, count - 1, min(most, count)).astype(int).tolist()


def class_colour(label: int) -> tuple[int, int, int]:
    """Hues at the golden ratio, so that neighbours differ, in TONES of saturation and value."""
    saturation, value = TONES[label % len(TONES)]
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def text_colour(background: tuple[int, int, int]) -> str:
    """Black on light colours, white on dark ones (by the luma of ITU-R BT.601)."""
    red, green, blue = background
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else "white"


def fitted(image: Image.Image, side: int) -> tuple[int, int]:
    """(width, height) at which the longer side of an image is `side`, each at least one pixel."""
    scale = side / max(image.size)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def sheet(rows: list[list[Image.Image]], titles: Sequence[str], side: int) -> Image.Image:
    """Images of up to `side` pixels in columns under their titles, on white.

    A row may be short.
    """
    step = side + MARGIN
    heights = [max(image.height for image in row) for row in rows]
    height = CAPTION + sum(heights) + MARGIN * len(rows)
    canvas = Image.new("RGB", (MARGIN + len(titles) * step, height), "white")
    draw = ImageDraw.Draw(canvas)
    for column, title in enumerate(titles):
        at = (MARGIN + column * step, 7)
        draw.text(at, title, fill="black", font=ImageFont.load_default(size=16))
    top = CAPTION
    for row, tall in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            canvas.paste(image, (MARGIN + column * step, top))
        top += tall + MARGIN
    return canvas
