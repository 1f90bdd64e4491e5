"""Sheets of pictures beside each other, to look at."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN, CAPTION = 12, 30
NUM_HUES = 10
VALUES = (0.75, 0.4, 1.0)


def spread(count: int, most: int) -> list[int]:
    """Up to `most` of the numbers below `count`, at even distances from the first to the last."""
    return np.linspace(0, count - 1, min(most, count)).astype(int).tolist()


def class_colour(label: int) -> tuple[int, int, int]:
    """NUM_HUES hues, as far apart as that allows, then the same darker and lighter and so on."""
    number, hue = divmod(label, NUM_HUES)
    shift = number // len(VALUES) * 0.037
    value = VALUES[number % len(VALUES)]
    red, green, blue = colorsys.hsv_to_rgb((hue / NUM_HUES + shift) % 1.0, 0.85, value)
    return round(255 * red), round(255 * green), round(255 * blue)


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
