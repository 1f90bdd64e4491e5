"""Fields of an annotation file one by one: which spellings are read, and which are refused.

Every value comes from a stranger, so none is used before its type is known. What is read in
another spelling than COCO's is noted; what could mean several things is refused.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET

from tasks.coco.notes import Notes
from tasks.columns import bad_value, integers, strings
from tasks.errors import TaskError

Row = dict[str, Any]

MOST_PIXELS = 2**30
"""of an image; pycocotools' run lengths count its pixels in 32 bits"""
MOST_SIDE = 2**20
LONGEST_NUMBER = 20
"""characters of a whole number that is given as text"""
CROWD = {0: False, 1: True, "0": False, "1": True, "false": False, "true": True}
"""spellings of iscrowd, text in lower case; True and 1.0 equal 1"""
CANNOT = "a name that the file system can take"


def whole_numbers(
    path: Path, table: str, rows: Sequence[Row], key: str, split: str, notes: Notes
) -> np.ndarray:
    """A column of whole numbers, int64; "7" and 7.0 are read as 7, and noted."""
    values = [row.get(key) for row in rows]
    if {*map(type, values)} <= {int}:
        return integers(path, table, rows, key)
    read = [as_whole(value) for value in values]
    odd = [row for row, value in enumerate(values) if type(value) is not int]
    if None not in read:
        notes.add(
            f"{split} {table} whose {key} is no whole number but reads as one (read so)",
            [shown(values[row]) for row in odd],
        )
    changed = [
        row if new is None else row | {key: new} for row, new in zip(rows, read, strict=True)
    ]
    return integers(path, table, changed, key)


def as_whole(value: Any) -> int | None:
    """What 7, 7.0 and "7" say; None for all else."""
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, str) and len(value) <= LONGEST_NUMBER and value.isascii():
        digits = value.strip().removeprefix("-")
        return int(value) if digits.isdigit() else None
    return None


def shown(value: Any) -> str:
    return f"{value!r:.40}"


def image_sizes(path: Path, images: Sequence[Row], split: str, notes: Notes) -> np.ndarray:
    """int32 (N, 2): height and width in pixels; 0 where the file gives none.

    None is a key that is missing, null, 0 or -1 (what tools write that never opened the image).
    """
    columns = []
    for key in ("height", "width"):
        unknown = [row.get(key) in (None, 0, -1, "") for row in images]
        given = [row | {key: 0} if none else row for row, none in zip(images, unknown, strict=True)]
        column = whole_numbers(path, "images", given, key, split, notes)
        wrong = np.flatnonzero((column < 0) | (column > MOST_SIDE))
        if len(wrong):
            wanted = f"a number of pixels, at most {MOST_SIDE:,}"
            raise TaskError(bad_value(path, "images", images, int(wrong[0]), key, wanted))
        columns.append(column)
    sizes = np.stack(columns, axis=1)
    wrong = np.flatnonzero(sizes.prod(axis=1) > MOST_PIXELS)
    if len(wrong):
        height, width = sizes[wrong[0]]
        raise TaskError(
            f"{path}: images[{wrong[0]}] is {width} wide and {height} high; expected at most "
            f"{MOST_PIXELS:,} pixels: correct the numbers, or cut the image up"
        )
    sizes[(sizes == 0).any(axis=1)] = 0
    return sizes.astype(np.int32)


def crowd_flags(path: Path, annotations: Sequence[Row], split: str, notes: Notes) -> np.ndarray:
    """Whether each annotation outlines a crowd, bool (A,); absent or null is no.

    0 and 1, false and true, also as text, are read as what they say; all else is refused.
    """
    values = [row.get("iscrowd") for row in annotations]
    flags = np.zeros(len(values), dtype=bool)
    odd = []
    for row, value in enumerate(values):
        if value is None:
            continue
        if type(value) is int and value in (0, 1):
            flags[row] = value
            continue
        key = value.strip().lower() if isinstance(value, str) else value
        known = isinstance(key, bool | float | str) and key in CROWD
        if not known:
            wanted = "0 for an object or 1 for a crowd"
            raise TaskError(bad_value(path, "annotations", annotations, row, "iscrowd", wanted))
        flags[row] = CROWD[key]
        odd.append(row)
    notes.add(
        f"{split} annotations whose iscrowd is no 0 or 1 (read as what it says)",
        [shown(values[row]) for row in odd],
    )
    return flags


def box_columns(values: Sequence[Any]) -> np.ndarray:
    """x, y, width, height of each `bbox`, float64 (A, 4); NaN where that is no such box."""
    boxes = np.full((len(values), 4), np.nan)
    try:
        found = np.array(values)
        if found.shape == boxes.shape and found.dtype.kind in "if":
            return found.astype(np.float64)
    except (ValueError, OverflowError, RecursionError):  # lists of unequal length, 10^400, ...
        pass
    for row, value in enumerate(values):
        if isinstance(value, list) and len(value) == 4 and {*map(type, value)} <= {int, float}:
            boxes[row] = [float(number) if abs(number) < 1e300 else np.nan for number in value]
    return boxes


def area_column(values: Sequence[Any]) -> np.ndarray:
    """Each `area`, float64 (A,); NaN where that is no finite number."""
    if {*map(type, values)} <= {int, float}:
        with suppress(OverflowError):  # 10^400
            areas = np.array(values, dtype=np.float64)
            areas[~(np.abs(areas) < 1e300)] = np.nan
            return areas
    numbers = (value if type(value) in (int, float) else np.nan for value in values)
    return np.array([float(n) if abs(n) < 1e300 else np.nan for n in numbers], dtype=np.float64)


def file_names(path: Path, images: Sequence[Row], split: str, notes: Notes) -> list[str]:
    """File names of the images, which a file system can take, with / between folders.

    LVIS gives `coco_url` alone: its last folder and name (detectron2, data/datasets/lvis.py).
    """
    urls = [row for row, image in enumerate(images) if "file_name" not in image]
    if urls and all(isinstance(image.get("coco_url"), str) for image in images):
        names = ["/".join(image["coco_url"].split("/")[-2:]) for image in images]
        notes.add(f"{split} images without file_name (its name taken from coco_url)", names)
        images = [image | {"file_name": name} for image, name in zip(images, names, strict=True)]
    names = strings(path, "images", images, "file_name")
    windows = [name for name in names if "\\" in name]
    if windows:
        notes.add(f"{split} file names with \\ between folders (read as /)", windows)
        names = [name.replace("\\", "/") for name in names]
    for row, name in enumerate(names):
        if not is_name(name):
            raise TaskError(bad_value(path, "images", images, row, "file_name", CANNOT))
        if ".." in name and ".." in name.split("/"):
            raise TaskError(
                f"{path}: images[{row}] has file_name {name!r:.80}, which leads out of the image "
                "folder by ..; expected a name below it, or the whole path from / on: correct it"
            )
    return names


def is_name(name: str) -> bool:
    """Whether a text can name a file at all."""
    try:
        whole = os.fsencode(name)
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return b"\0" not in whole and len(whole) < 4096 and max(map(len, whole.split(b"/"))) <= 255


def note_ignored(values: Sequence[Any], ids: np.ndarray, split: str, notes: Notes) -> None:
    """`ignore` means something to other tools alone, which is said."""
    rows = [row for row, value in enumerate(values) if value not in (None, 0, UNSET)]
    notes.add(
        f'{split} annotations with "ignore" (taken for ordinary objects, as pycocotools and '
        "detectron2 do)",
        ids[rows],
    )
