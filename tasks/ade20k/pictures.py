"""Segmentations beside the ground truth, to look at."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from backbones.files import atomic
from tasks.ade20k.data import decode_pair
from tasks.ade20k.datasets import IGNORED, NUM_CLASSES
from tasks.ade20k.layout import SegmentationData
from tasks.images import UnreadableImage
from tasks.pictures import FONT, MARGIN, captioned, class_colour, contours, fitted, sheet

NUM_PICTURED = 6
SIDE = 264
"""longer side of a drawn image, pixels"""
SWATCH, LINE = 16, 26
"""side of a legend's square and height of its lines, pixels"""
TITLES = ("image", "ground truth", "prediction", "errors")
UNLABELLED, WRONG = "unlabelled", "error (last column)"
NO_CLASS, ERROR, RIGHT = (0, 0, 0), (213, 45, 45), (255, 255, 255)
PALE = 0.7
"""share of RIGHT in the picture below the errors"""


def comparison_sheet(
    predictions: Mapping[int, np.ndarray], data: SegmentationData, file: Path
) -> None:
    """Write a PNG of test images: the image, ground truth, prediction, errors; below, a legend.

    `predictions` maps the index of a test image to classes (H, W); there is at least one.
    """
    palette = colours(data)
    rows: list[list[Image.Image]] = []
    present: set[int] = set()
    for index, predicted in predictions.items():
        try:
            pixels, labels = decode_pair(data.val, index, data.rule)
        except UnreadableImage:
            continue
        rows.append(compared(pixels, labels, predicted, palette))
        present |= set(np.unique(labels).tolist()) | set(np.unique(predicted).tolist())
    # Two images a row, so that the sheet is about as wide as it is high.
    pairs = [list(chain(*rows[start : start + 2])) for start in range(0, len(rows), 2)]
    pictures = sheet(pairs, TITLES * min(2, len(rows)), SIDE)
    shown = [(data.classes[label], palette[label]) for label in sorted(present - {IGNORED})]
    if IGNORED in present:
        shown.append((UNLABELLED, palette[IGNORED]))
    below = legend([*shown, (WRONG, np.array(ERROR))], pictures.width)
    with atomic(file) as stream:
        above(pictures, below).save(stream, "PNG")


def labelled(pixels: np.ndarray, found: np.ndarray, data: SegmentationData) -> Image.Image:
    """An image (H, W, 3) beside its predicted classes (H, W), and below them a legend."""
    palette = colours(data)
    row = compared(pixels, np.full_like(found, IGNORED), found, palette)
    pictures = sheet([[row[0], row[2]]], (TITLES[0], TITLES[2]), SIDE)
    shown = [(data.classes[label], palette[label]) for label in np.unique(found).tolist()]
    return above(pictures, legend(shown, pictures.width))


def above(pictures: Image.Image, below: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (pictures.width, pictures.height + below.height), "white")
    canvas.paste(pictures, (0, 0))
    canvas.paste(below, (0, pictures.height))
    return canvas


def colours(data: SegmentationData) -> np.ndarray:
    """A colour of each label, uint8 (256, 3): ADE20K's own for its classes, black for none.

    Source of ADE20K's: mmsegmentation, mmseg/utils/class_names.py, which has them from the
    authors' color150.mat.
    """
    palette = np.array([class_colour(label) for label in range(IGNORED + 1)], np.uint8)
    if data.official and len(data.classes) == NUM_CLASSES:
        from mmseg.utils import ade_palette

        own = ade_palette()
        palette[: len(own)] = own
    palette[IGNORED] = NO_CLASS
    return palette


def compared(
    pixels: np.ndarray, labels: np.ndarray, predicted: np.ndarray, palette: np.ndarray
) -> list[Image.Image]:
    """An image (H, W, 3), its true and predicted classes (H, W), and where these differ.

    Each is enlarged or reduced to SIDE. Classes have lines between them, in white. Errors are
    drawn on the pale image, with the ground truth's outlines.
    """
    image = Image.fromarray(pixels)
    size = fitted(image, SIDE)
    image = image.resize(size, Image.Resampling.BICUBIC)
    truth, found = (
        np.asarray(Image.fromarray(each).resize(size, Image.Resampling.NEAREST))
        for each in (labels, predicted)
    )
    grey = np.asarray(image.convert("L").convert("RGB"))
    errors = (grey + PALE * (np.array(RIGHT) - grey)).round().astype(np.uint8)
    errors[(truth != found) & (truth != IGNORED)] = ERROR
    errors[contours(truth)] = 0
    drawn = [image]
    for each in (truth, found):
        drawn.append(Image.fromarray(np.where(contours(each)[..., None], 255, palette[each])))
    drawn.append(Image.fromarray(errors))
    known = (labels != IGNORED).any()
    score = said(iou(labels, predicted)) if known else classes_in(predicted)
    captions = ("", classes_in(labels), score, wrong(labels, predicted))
    return [captioned(*each) for each in zip(drawn, captions, strict=True)]


def classes_in(labels: np.ndarray) -> str:
    count = len(np.unique(labels[labels != IGNORED]))
    return f"{count} class{'' if count == 1 else 'es'}"


def iou(labels: np.ndarray, predicted: np.ndarray) -> float | None:
    """Mean IoU in percent over the classes in an image's truth or prediction; None: no label."""
    counted = labels != IGNORED
    truth, found = labels[counted], predicted[counted]
    both, true, claimed = (
        np.bincount(each, minlength=IGNORED) for each in (truth[truth == found], truth, found)
    )
    union = true + claimed - both
    return float(100 * (both[union > 0] / union[union > 0]).mean()) if truth.size else None


def said(value: float | None) -> str:
    return "no labels" if value is None else f"mIoU {value:.1f}"


def wrong(labels: np.ndarray, predicted: np.ndarray) -> str:
    """The share of an image's labelled pixels that have another class than the true one."""
    counted = labels != IGNORED
    if not counted.any():
        return ""
    return f"{100 * np.mean(labels[counted] != predicted[counted]):.1f} % of labelled pixels"


def legend(shown: list[tuple[str, np.ndarray]], width: int) -> Image.Image:
    """Squares of colour with what they stand for, in lines of up to `width` pixels."""
    font = ImageFont.load_default(size=FONT)
    places: list[tuple[int, int]] = []
    x, y = MARGIN, 0
    for name, _ in shown:
        wide = SWATCH + 6 + round(font.getlength(name)) + 2 * MARGIN
        if x + wide > width and x > MARGIN:
            x, y = MARGIN, y + LINE
        places.append((x, y))
        x += wide
    canvas = Image.new("RGB", (width, y + LINE + MARGIN // 2), "white")
    draw = ImageDraw.Draw(canvas)
    for (name, colour), (x, y) in zip(shown, places, strict=True):
        draw.rectangle((x, y, x + SWATCH, y + SWATCH), fill=tuple(colour.tolist()))
        draw.text((x + SWATCH + 6, y), name, fill="black", font=font)
    return canvas
