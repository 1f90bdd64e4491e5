"""Predictions beside the ground truth, to look at."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools.coco import COCO

from backbones.files import atomic
from tasks.coco.data import decode_known
from tasks.coco.layout import CocoData
from tasks.coco.segmentation import string_lengths
from tasks.images import UnreadableImage
from tasks.pictures import class_colour, fitted, sheet, spread, text_colour

NUM_PICTURED = 6
LEAST_SCORE = 0.3
"""of a prediction that is drawn"""
SIDE = 384
"""longer side of a drawn image, pixels"""
OPACITY = 0.45
MOST_DRAWN = 200
"""instances of an image"""
LARGE_PIXELS = 2**22
"""of an image, from which on its masks are not decoded"""


def overlay_sheet(truth: COCO, results: list[dict[str, Any]], data: CocoData, file: Path) -> None:
    """Write a PNG: a few test images with things, ground truth left, predictions right.

    Crowd regions are drawn in grey; predictions only from a score of LEAST_SCORE on.
    """
    by_image: dict[int, list[dict[str, Any]]] = {}
    for each in results:
        by_image.setdefault(each["image_id"], []).append(each)
    pairs: list[list[Image.Image]] = []
    ids = data.val.image_ids.tolist()
    with_things = [i for i, number in enumerate(ids) if truth.imgToAnns[number]] or range(len(ids))
    for index in (with_things[i] for i in spread(len(with_things), NUM_PICTURED)):
        try:
            image = Image.fromarray(decode_known(data.val, index))
        except UnreadableImage:
            continue
        found = [r for r in by_image.get(ids[index], []) if r["score"] >= LEAST_SCORE]
        both = (truth.imgToAnns[ids[index]], found)
        pairs.append([overlay(image, each, truth, data) for each in both])
    # Two pairs a row, so that the sheet is about as wide as it is high.
    rows = [list(chain(*pairs[start : start + 2])) for start in range(0, len(pairs), 2)]
    titles = ("ground truth", f"predictions (score {LEAST_SCORE} and above)")
    with atomic(file) as stream:
        sheet(rows, titles * min(2, len(pairs)), SIDE).save(stream, "PNG")


def overlay(
    image: Image.Image, instances: Sequence[dict[str, Any]], truth: COCO, data: CocoData
) -> Image.Image:
    """An image, enlarged or reduced to SIDE, with the masks, boxes and names of instances."""
    scale = SIDE / max(image.size)
    size = fitted(image, SIDE)
    pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
    # The best and the smallest last, so that they are seen.
    order = sorted(instances, key=lambda each: (each.get("score", 1.0), -box_area(each)))
    order = order[-MOST_DRAWN:]
    for each in order if data.masks else ():
        opacity = coverage(each, truth, size)[..., None] * OPACITY
        pixels += opacity * (np.array(colour(each, data), np.float32) - pixels)
    canvas = Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=14)
    for each in order:
        x, y, w, h = (scale * value for value in each["bbox"])
        draw.rectangle((x, y, max(x + w, x), max(y + h, y)), outline=colour(each, data), width=2)
        name = data.classes[data.category_ids.index(each["category_id"])]
        text = f"{name} {each['score']:.2f}" if "score" in each else name
        text = f"crowd of {name}" if each.get("iscrowd") else text
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        x = max(0, min(x, size[0] - (right - left) - 6))
        y = max(0, min(y - (bottom - top) - 6, size[1] - (bottom - top) - 6))
        draw.rectangle((x, y, x + right - left + 6, y + bottom - top + 6), fill=colour(each, data))
        own = text_colour(colour(each, data))
        draw.text((x + 3 - left, y + 3 - top), text, fill=own, font=font)
    return canvas


def coverage(instance: dict[str, Any], truth: COCO, size: tuple[int, int]) -> np.ndarray:
    """How much of each pixel of a picture of `size` (width, height) a mask covers, (h, w), 0 to 1.

    Of a large image a few points are looked up, in its run lengths; no bitmap of it is made.
    """
    rle = truth.annToRLE(instance)
    height, width = rle["size"]
    if height * width <= LARGE_PIXELS:
        mask = Image.fromarray(truth.annToMask(instance) * 255)
        return np.asarray(mask.resize(size, Image.Resampling.BILINEAR)) / 255
    counts = rle["counts"]
    lengths = string_lengths(counts.decode() if isinstance(counts, bytes) else counts)
    assert lengths is not None  # pycocotools' own, or checked when it was read
    rows, columns = (
        ((np.arange(2 * new) + 0.5) * old / (2 * new)).astype(np.int64)
        for new, old in ((size[1], height), (size[0], width))
    )
    inside = np.searchsorted(lengths.cumsum(), rows[:, None] + height * columns, side="right") % 2
    return inside.reshape(size[1], 2, size[0], 2).mean(axis=(1, 3))


def box_area(instance: dict[str, Any]) -> float:
    return instance["bbox"][2] * instance["bbox"][3]


def colour(instance: dict[str, Any], data: CocoData) -> tuple[int, int, int]:
    """That of the class; grey for a crowd."""
    if instance.get("iscrowd"):
        return 110, 110, 110
    return class_colour(data.category_ids.index(instance["category_id"]))
