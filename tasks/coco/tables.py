"""An annotation file in COCO's instances format, as checked columns."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from tasks.coco.fields import (
    Row,
    area_column,
    box_columns,
    file_names,
    image_sizes,
    note_ignored,
    whole_numbers,
)
from tasks.coco.notes import Notes
from tasks.coco.rows import Annotation, Annotations
from tasks.columns import first, rank, read_json, refuse_duplicates, strings
from tasks.errors import TaskError

TABLES = ("images", "annotations", "categories")
FORMAT = "expected COCO's instances format"
MOST_CLASSES = 10_000
"""LVIS, of the known ones, has 1,203; the heads hold weights for each"""
MOST_OBJECTS = 5_000
"""annotations of one image: training and pycocotools compare each with every proposal"""


class Image(TypedDict, total=False):
    """What of an image is read; any of it may be missing, or of any kind."""

    id: Any
    file_name: Any
    coco_url: Any
    height: Any
    width: Any


class Content(TypedDict):
    """An annotation file."""

    images: list[Image]
    annotations: list[Annotation]
    categories: list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Tables:
    """The columns of one annotation file; images and categories in the order of their ids."""

    path: Path
    names: list[str]
    image_ids: np.ndarray
    """int64 (N,), ascending"""
    sizes: np.ndarray
    """int32 (N, 2): height, width; 0 where the file gives none"""
    category_ids: tuple[int, ...]
    """ascending"""
    classes: tuple[str, ...]
    segmentations: list[Any]
    """of the annotations; may be `msgspec.Raw`"""
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
    areas: np.ndarray
    """what the file says, float64 (A,); NaN where that is no number"""


def read_tables(path: Path, split: str, notes: Notes, unlabelled: bool = False) -> Tables:
    """Read and check an annotation file. Raises TaskError for what makes it useless as a whole.

    `unlabelled`: it may lack the table of annotations.
    """
    content = parse(path, unlabelled)
    images, categories = content["images"], content["categories"]
    for name, rows in (("images", images), ("categories", categories)):
        if not rows:
            raise TaskError(f"{path} has no {name}; {FORMAT} with at least one")
    annotations = Annotations(path, content["annotations"], split)
    category_ids = whole_numbers(path, "categories", categories, "id", split, notes)
    image_ids = whole_numbers(path, "images", images, "id", split, notes)
    ids = annotations.whole_numbers("id", notes)
    for name, numbers in zip(TABLES, (image_ids, ids, category_ids), strict=True):
        refuse_duplicates(path, name, numbers)
    by_category, by_image = np.argsort(category_ids), np.argsort(image_ids)
    of_image = annotations.whole_numbers("image_id", notes)
    of_category = annotations.whole_numbers("category_id", notes)
    classes = strings(path, "categories", categories, "name")
    twice = sorted(name for name, count in Counter(classes).items() if count > 1)
    notes.add(f"{split} categories of the same name (kept apart by their ids)", twice)
    names = file_names(path, images, split, notes)
    found = Tables(
        path=path,
        names=[names[row] for row in by_image],
        image_ids=image_ids[by_image],
        sizes=image_sizes(path, images, split, notes)[by_image],
        category_ids=tuple(category_ids[by_category].tolist()),
        # A lone surrogate, which JSON can spell, is no text that a file or a picture takes.
        classes=tuple(classes[row].encode("utf-8", "replace").decode() for row in by_category),
        segmentations=annotations.values("segmentation"),
        ids=ids,
        images=rank(path, of_image, image_ids[by_image], ids, "image_id"),
        labels=rank(path, of_category, category_ids[by_category], ids, "category_id"),
        crowds=annotations.crowd_flags(notes),
        boxes=box_columns(annotations.values("bbox")),
        areas=area_column(annotations.values("area")),
    )
    refuse_crowded(found)
    note_ignored(annotations.values("ignore"), ids, split, notes)
    return found


def refuse_crowded(tables: Tables) -> None:
    """Raise TaskError for an image of more objects than memory and time allow."""
    counts = np.bincount(tables.images, minlength=len(tables.names))
    over = np.flatnonzero(counts > MOST_OBJECTS)
    if len(over):
        name, count = tables.names[over[0]], counts[over[0]]
        raise TaskError(
            f"{tables.path}: {name} has {count:,} annotations; expected at most {MOST_OBJECTS:,} "
            "in one image: cut the image up"
        )


def parse(path: Path, unlabelled: bool = False) -> dict[str, list[Any]]:
    """The three tables of an annotation file."""
    content = read_json(path, Content)
    if unlabelled and isinstance(content, dict):
        content.setdefault("annotations", [])
    if not isinstance(content, dict):
        found = type(content).__name__
        raise TaskError(
            f"{path} holds a {found}; {FORMAT}, an object with {', '.join(TABLES)}"
            + (" (a list is COCO's format of results)" if isinstance(content, list) else "")
        )
    absent = [name for name in TABLES if not isinstance(content.get(name), list)]
    if absent:
        keys = list(content)
        found = ", ".join(f"{key!s:.40}" for key in keys[:8]) + ", ..." * (len(keys) > 8)
        raise TaskError(
            f"{path} has no list of {' or '.join(absent)} (it has {found or 'nothing'}); {FORMAT}: "
            "give an instances file, not captions, keypoints or results"
        )
    count = len(content["categories"])
    if count > MOST_CLASSES:
        raise TaskError(
            f"{path} lists {count:,} categories; expected at most {MOST_CLASSES:,}: leave out "
            "those without objects"
        )
    for name in TABLES:
        if not {*map(type, content[name])} <= {dict, Annotation}:
            row = next(at for at, each in enumerate(content[name]) if not is_object(each))
            raise TaskError(f"{path}: {name}[{row}] is no object; {FORMAT}")
    refuse_other_kinds(path, content["annotations"])
    return {name: content[name] for name in TABLES}


OTHER_KINDS = {
    "segments_info": "a panoptic file",
    "caption": "a file of captions",
}
"""key of its annotations -> what kind of COCO file it is instead"""


def is_object(row: Any) -> bool:
    return isinstance(row, dict | Annotation)


def refuse_other_kinds(path: Path, annotations: Sequence[Annotation | Row]) -> None:
    keys = Annotations(path, annotations[:1], "").dicts[0] if annotations else {}
    for key, kind in OTHER_KINDS.items():
        if key in keys and "bbox" not in keys:
            raise TaskError(
                f"{path} is {kind} (its annotations have {key}); {FORMAT}: give the instances "
                "file, with a box and an outline for each object"
            )


def match_learnt(tables: Tables, learnt: Sequence[str], notes: Notes) -> Tables:
    """A test file's tables with the classes of a model, by name and in its order.

    Raises TaskError for a class that the file does not list, and for objects of another one.
    """
    if tables.classes == tuple(learnt):
        return tables
    own = dict(zip(tables.classes, tables.category_ids, strict=True))
    absent = [name for name in learnt if name not in own]
    if absent:
        raise TaskError(
            f"{tables.path} does not list {len(absent)} of the {len(learnt)} classes that were "
            f"learnt: {first(absent)}; expected all of them in its categories, whatever their ids"
        )
    used = {tables.classes[label] for label in np.unique(tables.labels).tolist()}
    unknown = sorted(used - set(learnt))
    if unknown:
        raise TaskError(
            f"{tables.path} has objects of {len(unknown)} classes that were not learnt: "
            f"{first(unknown)}; expected objects of the {len(learnt)} that were"
        )
    notes.add(
        "categories that were not learnt, without objects (left out)",
        [name for name in tables.classes if name not in learnt],
    )
    index = {name: at for at, name in enumerate(learnt)}
    rows = np.array([index.get(name, -1) for name in tables.classes], dtype=np.int64)
    return replace(
        tables,
        labels=rows[tables.labels],
        classes=tuple(learnt),
        category_ids=tuple(own[name] for name in learnt),
    )


def match_categories(train: Tables, val: Tables, notes: Notes) -> np.ndarray:
    """Class index in the training file of each class index in the test file.

    A test file may list only some of the categories, with the same ids and names. Raises
    TaskError for a category that is another one in each, or that has test objects and is not
    trained at all.
    """
    known, own = (dict(zip(each.category_ids, each.classes, strict=True)) for each in (train, val))
    used = {val.category_ids[label] for label in np.unique(val.labels).tolist()}
    differing = [
        number
        for number in sorted(own)
        if (number in known and own[number] != known[number])
        or (number not in known and (number in used or own[number] in train.classes))
    ]
    if differing:
        number = differing[0]
        there = repr(known[number]) if number in known else "not there"
        raise TaskError(
            f"{train.path} and {val.path} differ in {len(differing)} categories: id {number} is "
            f"{there} in the first and {own[number]!r} in the second; expected the same ids and "
            "names in both: number them alike"
        )
    lacking = [known[number] for number in sorted(known) if number not in own]
    notes.add("categories that the test file does not list (no score of their own)", lacking)
    extra = [own[number] for number in sorted(own) if number not in known]
    notes.add("categories that only the test file lists, without objects (left out)", extra)
    rows = {number: row for row, number in enumerate(train.category_ids)}
    return np.array([rows.get(number, -1) for number in val.category_ids], dtype=np.int64)
