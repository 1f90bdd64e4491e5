"""An annotation file in COCO's instances format, as checked columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks import TaskError
from tasks.columns import (
    bad_value,
    file_names,
    integers,
    rank,
    read_json,
    refuse_duplicates,
    strings,
)

TABLES = ("images", "annotations", "categories")
FORMAT = "expected COCO's instances format"


@dataclass(frozen=True, eq=False)
class Tables:
    """The columns of one annotation file; images and categories in the order of their ids."""

    names: list[str]
    image_ids: np.ndarray
    """int64 (N,), ascending"""
    sizes: np.ndarray
    """int32 (N, 2): height, width"""
    category_ids: tuple[int, ...]
    """ascending"""
    classes: tuple[str, ...]
    annotations: list[dict[str, Any]]
    """as they are in the file"""
    ids: np.ndarray
    """of the annotations, int64 (A,)"""
    images: np.ndarray
    """row of each annotation's image, int64 (A,)"""
    labels: np.ndarray
    """class index of each annotation, int64 (A,)"""
    crowds: np.ndarray
    """whether each annotation outlines a crowd, bool (A,)"""
    boxes: np.ndarray
    """x, y, width, height of each annotation, float64 (A, 4); NaN where there is no such box"""


def read_tables(path: Path) -> Tables:
    """Read and check an annotation file. Raises TaskError for what makes it useless as a whole."""
    content = parse(path)
    images, annotations, categories = (content[name] for name in TABLES)
    for name, rows in (("images", images), ("categories", categories)):
        if not rows:
            raise TaskError(f"{path} has no {name}; {FORMAT} with at least one")
    category_ids = integers(path, "categories", categories, "id")
    image_ids = integers(path, "images", images, "id")
    ids = integers(path, "annotations", annotations, "id")
    for name, numbers in zip(TABLES, (image_ids, ids, category_ids), strict=True):
        refuse_duplicates(path, name, numbers)
    by_category, by_image = np.argsort(category_ids), np.argsort(image_ids)
    of_image = integers(path, "annotations", annotations, "image_id")
    of_category = integers(path, "annotations", annotations, "category_id")
    classes, names = strings(path, "categories", categories, "name"), file_names(path, images)
    return Tables(
        names=[names[row] for row in by_image],
        image_ids=image_ids[by_image],
        sizes=image_sizes(path, images)[by_image],
        category_ids=tuple(category_ids[by_category].tolist()),
        classes=tuple(classes[row] for row in by_category),
        annotations=annotations,
        ids=ids,
        images=rank(path, of_image, image_ids[by_image], ids, "image_id"),
        labels=rank(path, of_category, category_ids[by_category], ids, "category_id"),
        crowds=np.array([bool(row.get("iscrowd", 0)) for row in annotations], dtype=bool),
        boxes=box_columns(annotations),
    )


def parse(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The three tables of an annotation file."""
    content = read_json(path)
    if not isinstance(content, dict):
        found = type(content).__name__
        raise TaskError(f"{path} holds a {found}; {FORMAT}, an object with {', '.join(TABLES)}")
    absent = [name for name in TABLES if not isinstance(content.get(name), list)]
    if absent:
        found = ", ".join(list(content)[:8]) or "nothing"
        raise TaskError(
            f"{path} has no list of {' or '.join(absent)} (it has {found}); {FORMAT}: give an "
            "instances file, not captions, keypoints or results"
        )
    for name in TABLES:
        for row, entry in enumerate(content[name]):
            if not isinstance(entry, dict):
                raise TaskError(f"{path}: {name}[{row}] is no object; {FORMAT}")
    return {name: content[name] for name in TABLES}


def image_sizes(path: Path, images: Sequence[dict[str, Any]]) -> np.ndarray:
    """int32 (N, 2): height, width in pixels, 1 at least."""
    columns = []
    for key in ("height", "width"):
        column = integers(path, "images", images, key)
        wrong = np.flatnonzero((column < 1) | (column >= 2**31))
        if len(wrong):
            raise TaskError(
                bad_value(path, "images", images, int(wrong[0]), key, "a number of pixels")
            )
        columns.append(column.astype(np.int32))
    return np.stack(columns, axis=1)


def box_columns(annotations: Sequence[dict[str, Any]]) -> np.ndarray:
    """Boxes as in `Tables`."""
    values = [row.get("bbox") for row in annotations]
    boxes = np.full((len(values), 4), np.nan)
    try:
        found = np.array(values)
        if found.shape == boxes.shape and found.dtype.kind in "if":
            return found.astype(np.float64)
    except ValueError:  # lists of unequal length
        pass
    for row, value in enumerate(values):
        if isinstance(value, list) and len(value) == 4 and {*map(type, value)} <= {int, float}:
            boxes[row] = [float(number) if abs(number) < 1e300 else np.nan for number in value]
    return boxes
