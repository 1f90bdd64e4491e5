"""Sheets of pictures beside each other, to look at."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN, CAPTION = 12, 30
TONES = ((0.8, 0.78), (0.55, 0.92), (0.9, 0.5))
"""saturation and value of every third class"""
TOLD_APART = (
    (195, 75, 255),
    (150, 255, 210),
    (120, 0, 15),
    (90, 150, 135),
    (225, 195, 0),
    (45, 60, 105),
    (225, 60, 15),
    (0, 210, 165),
    (120, 30, 210),
    (165, 150, 225),
    (45, 105, 105),
    (195, 195, 255),
    (240, 240, 105),
    (210, 150, 60),
    (135, 105, 180),
    (180, 15, 0),
)
"""of the first classes; any two of them differ also for the colour-blind: by 0.1 and more in OKLab,
with each of Machado et al.'s three simulations (2009)"""
FONT = 14


def spread(count: int, most: int) -> list[int]:
    """Up to `most` of the numbers below `count`, at even distances from the first to the last."""
    return np.linspace(0, count - 1, min(most, count)).astype(int).tolist()


def class_colour(label: int) -> tuple[int, int, int]:
    """TOLD_APART; after them hues at the golden ratio, in TONES of saturation and value."""
    if label < len(TOLD_APART):
        return TOLD_APART[label]
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


def contours(regions: np.ndarray) -> np.ndarray:
    """Where a pixel of `regions` (h, w) has another value than the one right of it or below it."""
    edge = np.zeros(regions.shape, bool)
    edge[:, :-1] |= regions[:, :-1] != regions[:, 1:]
    edge[:-1] |= regions[:-1] != regions[1:]
    return edge


def captioned(image: Image.Image, text: str) -> Image.Image:
    """An image with a line of text below it, cut to its width."""
    font = ImageFont.load_default(size=FONT)
    while len(text) > 1 and font.getlength(text) > image.width:
        text = text.removesuffix("…")[:-1] + "…"
    canvas = Image.new("RGB", (image.width, image.height + FONT + 8), "white")
    canvas.paste(image, (0, 0))
    ImageDraw.Draw(canvas).text((0, image.height + 3), text, fill="black", font=font)
    return canvas
