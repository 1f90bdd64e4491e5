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
from tasks.pictures import FONT, captioned, class_colour, fitted, sheet, spread, text_colour

Corners = tuple[float, float, float, float]
"""left, top, right, bottom, pixels"""

NUM_PICTURED = 6
LEAST_SCORE = 0.3
"""of a prediction that is drawn"""
SIDE = 384
"""longer side of a drawn image, pixels"""
NOTHING = f"nothing at a score of {LEAST_SCORE} or above"
MOST_DRAWN = 200
"""instances of an image"""
LARGE_PIXELS = 2**22
"""of an image, from which on its masks are not decoded"""


def comparison_sheet(
    truth: COCO, results: list[dict[str, Any]], data: CocoData, file: Path
) -> None:
    """Write a PNG of a few test images with things: the image, ground truth, predictions.

    Crowd regions are drawn in grey; predictions only from a score of LEAST_SCORE on.
    """
    by_image: dict[int, list[dict[str, Any]]] = {}
    for each in results:
        by_image.setdefault(each["image_id"], []).append(each)
    triples: list[list[Image.Image]] = []
    ids = data.val.image_ids.tolist()
    with_things = [i for i, number in enumerate(ids) if truth.imgToAnns[number]] or range(len(ids))
    for index in (with_things[i] for i in spread(len(with_things), NUM_PICTURED)):
        try:
            image = Image.fromarray(decode_known(data.val, index))
        except UnreadableImage:
            continue
        there = truth.imgToAnns[ids[index]]
        found = [r for r in by_image.get(ids[index], []) if r["score"] >= LEAST_SCORE]
        plain = image.resize(fitted(image, SIDE), Image.Resampling.BICUBIC)
        pictures = (plain, *(outlined(image, each, truth, data) for each in (there, found)))
        captions = ("", counted(there), counted(found) if found else NOTHING)
        triples.append([captioned(*each) for each in zip(pictures, captions, strict=True)])
    # Two images a row, so that the sheet is about as wide as it is high.
    rows = [list(chain(*triples[start : start + 2])) for start in range(0, len(triples), 2)]
    titles = ("image", "ground truth", f"predictions (score {LEAST_SCORE} and above)")
    with atomic(file) as stream:
        sheet(rows, titles * min(2, len(triples)), SIDE).save(stream, "PNG")


def detected(
    image: Image.Image, results: Sequence[dict[str, Any]], sizes: COCO, data: CocoData
) -> Image.Image:
    """An image beside what was found in it, from LEAST_SCORE on; `sizes` knows its size."""
    found = [each for each in results if each["score"] >= LEAST_SCORE]
    plain = image.resize(fitted(image, SIDE), Image.Resampling.BICUBIC)
    drawn = captioned(outlined(image, found, sizes, data), counted(found) if found else NOTHING)
    return sheet([[plain, drawn]], ("image", f"score {LEAST_SCORE} and above"), SIDE)


def counted(instances: Sequence[dict[str, Any]]) -> str:
    """How many, and how many of them are drawn."""
    many = f"{len(instances)} object{'' if len(instances) == 1 else 's'}"
    return many if len(instances) <= MOST_DRAWN else f"{many}, {MOST_DRAWN} of them drawn"


def outlined(
    image: Image.Image, instances: Sequence[dict[str, Any]], truth: COCO, data: CocoData
) -> Image.Image:
    """An image, enlarged or reduced to SIDE, with outlines, boxes and names of instances.

    Names do not lie on each other: one that finds no room is left out.
    """
    scale = SIDE / max(image.size)
    size = fitted(image, SIDE)
    pixels = np.array(image.resize(size, Image.Resampling.BICUBIC))
    # The best and the smallest last, so that they are seen.
    order = sorted(instances, key=lambda each: (each.get("score", 1.0), -box_area(each)))
    order = order[-MOST_DRAWN:]
    for each in order if data.masks else ():
        line = outline(coverage(each, truth, size) >= 0.5)
        pixels[thick(thick(line))] = 255
        pixels[thick(line)] = colour(each, data)
    canvas = Image.fromarray(pixels)
    draw = ImageDraw.Draw(canvas)
    boxes = [box(each, scale) for each in order]
    for each, corners in zip(order, boxes, strict=True):
        draw.rectangle(corners, outline=colour(each, data), width=1 if data.masks else 2)
    taken: list[Corners] = []
    for each, corners in reversed(list(zip(order, boxes, strict=True))):
        name_box(draw, each, corners, taken, data, size)
    return canvas


def box(instance: dict[str, Any], scale: float) -> Corners:
    x, y, w, h = (scale * value for value in instance["bbox"])
    return x, y, max(x + w, x), max(y + h, y)


def name_box(
    draw: ImageDraw.ImageDraw,
    instance: dict[str, Any],
    corners: Corners,
    taken: list[Corners],
    data: CocoData,
    size: tuple[int, int],
) -> None:
    """Write an instance's name above, in or below its box, where no other name lies."""
    font = ImageFont.load_default(size=FONT)
    name = data.classes[data.category_ids.index(instance["category_id"])]
    text = f"{name} {instance['score']:.2f}" if "score" in instance else name
    text = f"crowd of {name}" if instance.get("iscrowd") else text
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    wide, high = right - left + 6, bottom - top + 6
    x0, y0, x1, y1 = corners
    for x, y in (
        (x0, y0 - high),
        (x1 - wide, y0 - high),
        (x0, y1),
        (x0, y0),
        (x1 - wide, y1 - high),
    ):
        x = max(0, min(x, size[0] - wide))
        y = max(0, min(y, size[1] - high))
        place = (x, y, x + wide, y + high)
        if not any(overlap(place, other) for other in taken):
            taken.append(place)
            draw.rectangle(place, fill=colour(instance, data))
            own = text_colour(colour(instance, data))
            draw.text((x + 3 - left, y + 3 - top), text, fill=own, font=font)
            return


def overlap(one: Corners, other: Corners) -> bool:
    """Whether two rectangles share a pixel."""
    apart = one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]
    return not apart


def outline(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask (h, w) that have a neighbour outside of it, or lie at the border."""
    inside = np.pad(mask, 1)
    inner = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return mask & ~inner


def thick(line: np.ndarray) -> np.ndarray:
    """The pixels (h, w) of a line and those beside them."""
    around = np.pad(line, 1)
    return line | around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:]


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
