"""Predictions beside the ground truth, to look at."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools.coco import COCO

from tasks.coco.annotations import CocoData
from tasks.images import UnreadableImage, decode
from tasks.pictures import class_colour, fitted, sheet, spread, text_colour

NUM_PICTURED = 6
LEAST_SCORE = 0.3
"""of a prediction that is drawn"""
SIDE = 384
"""longer side of a drawn image, pixels"""
OPACITY = 0.45


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
            image = Image.fromarray(decode(data.val.path(index)))
        except UnreadableImage:
            continue
        found = [r for r in by_image.get(ids[index], []) if r["score"] >= LEAST_SCORE]
        both = (truth.imgToAnns[ids[index]], found)
        pairs.append([overlay(image, each, truth, data) for each in both])
    # Two pairs a row, so that the sheet is about as wide as it is high.
    rows = [list(chain(*pairs[start : start + 2])) for start in range(0, len(pairs), 2)]
    titles = ("ground truth", f"predictions (score {LEAST_SCORE} and above)")
    sheet(rows, titles * min(2, len(pairs)), SIDE).save(file, "PNG")


def overlay(
    image: Image.Image, instances: Sequence[dict[str, Any]], truth: COCO, data: CocoData
) -> Image.Image:
    """An image, enlarged or reduced to SIDE, with the masks, boxes and names of instances."""
    scale = SIDE / max(image.size)
    size = fitted(image, SIDE)
    pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
    # The best and the smallest last, so that they are seen.
    order = sorted(instances, key=lambda each: (each.get("score", 1.0), -box_area(each)))
    for each in order:
        mask = Image.fromarray(truth.annToMask(each) * 255).resize(size, Image.Resampling.BILINEAR)
        opacity = np.asarray(mask)[..., None] / 255 * OPACITY
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


def box_area(instance: dict[str, Any]) -> float:
    return instance["bbox"][2] * instance["bbox"][3]


def colour(instance: dict[str, Any], data: CocoData) -> tuple[int, int, int]:
    """That of the class; grey for a crowd."""
    if instance.get("iscrowd"):
        return 110, 110, 110
    return class_colour(data.category_ids.index(instance["category_id"]))
