"""Segmentations beside the ground truth, to look at."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from backbones.files import atomic
from tasks.ade20k.data import decode_pair
from tasks.ade20k.datasets import IGNORED
from tasks.ade20k.layout import SegmentationData
from tasks.images import UnreadableImage
from tasks.pictures import MARGIN, class_colour, fitted, sheet

NUM_PICTURED = 6
SIDE = 264
"""longer side of a drawn image, pixels"""
OPACITY = 0.65
SWATCH, LINE = 16, 26
"""side of a legend's square and height of its lines, pixels"""
TITLES = ("image", "ground truth", "prediction")
UNLABELLED = "unlabelled"


def overlay_sheet(
    predictions: Mapping[int, np.ndarray], data: SegmentationData, file: Path
) -> None:
    """Write a PNG of test images: the image, its ground truth, its prediction; below, a legend.

    `predictions` maps the index of a test image to classes (H, W); there is at least one.
    """
    triples: list[list[Image.Image]] = []
    present: set[int] = set()
    for index, predicted in predictions.items():
        try:
            pixels, labels = decode_pair(data.val, index, data.rule)
        except UnreadableImage:
            continue
        triples.append([overlay(pixels, None), overlay(pixels, labels), overlay(pixels, predicted)])
        present |= set(np.unique(labels).tolist()) | set(np.unique(predicted).tolist())
    # Two images a row, so that the sheet is about as wide as it is high.
    rows = [list(chain(*triples[start : start + 2])) for start in range(0, len(triples), 2)]
    pictures = sheet(rows, TITLES * min(2, len(triples)), SIDE)
    names = {label: data.classes[label] for label in sorted(present - {IGNORED})}
    if IGNORED in present:
        names[IGNORED] = UNLABELLED
    below = legend(names, pictures.width)
    canvas = Image.new("RGB", (pictures.width, pictures.height + below.height), "white")
    canvas.paste(pictures, (0, 0))
    canvas.paste(below, (0, pictures.height))
    with atomic(file) as stream:
        canvas.save(stream, "PNG")


def overlay(pixels: np.ndarray, labels: np.ndarray | None) -> Image.Image:
    """An image (H, W, 3), enlarged or reduced to SIDE, under the colours of `labels` (H, W)."""
    image = Image.fromarray(pixels)
    size = fitted(image, SIDE)
    image = image.resize(size, Image.Resampling.BICUBIC)
    if labels is None:
        return image
    palette = np.array([colour(label) for label in range(IGNORED + 1)], np.uint8)
    reduced = Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)
    return Image.blend(image, Image.fromarray(palette[np.asarray(reduced)]), OPACITY)


def colour(label: int) -> tuple[int, int, int]:
    """That of the class; black where nothing counts."""
    return (0, 0, 0) if label == IGNORED else class_colour(label)


def legend(names: Mapping[int, str], width: int) -> Image.Image:
    """Squares of colour with the names of classes, in lines of up to `width` pixels."""
    font = ImageFont.load_default(size=14)
    places: list[tuple[int, int]] = []
    x, y = MARGIN, 0
    for name in names.values():
        wide = SWATCH + 6 + round(font.getlength(name)) + 2 * MARGIN
        if x + wide > width and x > MARGIN:
            x, y = MARGIN, y + LINE
        places.append((x, y))
        x += wide
    canvas = Image.new("RGB", (width, y + LINE + MARGIN // 2), "white")
    draw = ImageDraw.Draw(canvas)
    for (label, name), (x, y) in zip(names.items(), places, strict=True):
        draw.rectangle((x, y, x + SWATCH, y + SWATCH), fill=blended(colour(label)))
        draw.text((x + SWATCH + 6, y), name, fill="black", font=font)
    return canvas


def blended(rgb: Sequence[int]) -> tuple[int, int, int]:
    """A colour as it looks over a medium grey."""
    red, green, blue = (round(OPACITY * value + (1 - OPACITY) * 128) for value in rgb)
    return red, green, blue
