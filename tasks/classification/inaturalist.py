"""Reader of iNaturalist 2017, 2018 and 2019: which images are in a split is in its JSON file.

    {train,val}<year>.json, in the data folder or in train_val<year>/
    categories.json (2018, 2019; may be missing)  what the numbers that name the categories mean
    train_val_images/... or train_val<year>/...   the images of both splits, as the JSON names them

A class's index is the rank of its category's id, and never that of a folder: the official ids of
2018 and 2019 are the ranks already.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tasks.classification.datasets import DatasetFacts
from tasks.classification.keeping import keep_lists
from tasks.classification.labelled import (
    LabelledImages,
    Lists,
    find_file,
    refuse_missing,
    refuse_no_folder,
    refuse_outside,
    repeated,
)
from tasks.columns import (
    file_names,
    first,
    integers,
    rank,
    read_json,
    refuse_duplicates,
    strings,
)
from tasks.errors import TaskError
from tasks.images.files import shorten

CATEGORIES = "categories.json"
TABLES = ("images", "annotations", "categories")
FORMAT = f"expected iNaturalist's format, an object with the lists {', '.join(TABLES)}"

Rows = list[dict[str, Any]]


def read_inaturalist(facts: DatasetFacts, root: Path) -> LabelledImages:
    """The data set of one year.

    Raises `TaskError` for files that are missing or broken, contradict each other, or name images
    that are not there.
    """
    refuse_no_folder(facts, root)
    year = facts.name.removeprefix("inat")
    folders = ("", f"train_val{year}")
    files = {
        split: find_file(facts, root, f"{split}{year}.json", folders) for split in ("train", "val")
    }
    named = [root / folder / CATEGORIES for folder in folders]
    named = [path for path in named if path.is_file()][:1]
    lists = [*files.values(), *named]
    return keep_lists(facts, root, lists, {}, lambda: read_lists(root, files, named))


def read_lists(root: Path, files: dict[str, Path], named: list[Path]) -> Lists:
    """What the two files say, with the names of the categories that `named` gives, if any."""
    rows, categories, notes = {}, {}, []
    for split, file in files.items():
        names, labels, categories[split], found = read_split(file)
        refuse_missing(file, root, names)
        rows[split] = (root, names, labels)
        notes += found
    if categories["train"] != categories["val"]:
        refuse_different(files, categories)
    ids, classes = tuple(categories["train"]), tuple(categories["train"].values())
    if ids != tuple(range(len(ids))):
        notes.append(
            f"category ids are not 0 to {len(ids) - 1}: class indices are their ranks, from 0 for "
            f"{ids[0]} to {len(ids) - 1} for {ids[-1]}"
        )
    return Lists(full_names(named[0], ids) if named else classes, rows, notes)


def read_split(path: Path) -> tuple[list[str], list[int], dict[int, str], list[str]]:
    """Names of a split's images, their class indices, id -> name of the categories, and notes."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise TaskError(f"{path} holds a {type(content).__name__}; {FORMAT}")
    absent = [table for table in TABLES if not is_table(content.get(table))]
    if absent:
        raise TaskError(
            f"{path} has no {' and no '.join(absent)}; {FORMAT}: the files of the test set and of "
            "the bounding boxes are others"
        )
    categories = read_categories(path, content["categories"])
    images, annotations = content["images"], content["annotations"]
    image_ids = integers(path, "images", images, "id")
    refuse_duplicates(path, "images", image_ids)
    names = file_names(path, images)
    refuse_outside(path, names, lambda row: f"images[{row}]")
    labels, notes = label_images(path, image_ids, names, annotations, categories)
    notes += repeated(
        path, names, labels, lambda name: f"images[{names.index(name)}] and a later one"
    )
    return names, labels, categories, notes


def is_table(value: Any) -> bool:
    """Whether a value is a list of objects, one at least."""
    return isinstance(value, list) and bool(value) and all(type(row) is dict for row in value)


def read_categories(path: Path, rows: Rows) -> dict[int, str]:
    """Id -> name of the categories in a file, in the order of ids."""
    ids = integers(path, "categories", rows, "id")
    refuse_duplicates(path, "categories", ids)
    names = strings(path, "categories", rows, "name")
    return dict(sorted(zip(ids.tolist(), names, strict=True)))


def label_images(
    path: Path,
    image_ids: np.ndarray,
    names: list[str],
    annotations: Rows,
    categories: dict[int, str],
) -> tuple[list[int], list[str]]:
    """The class index of each image, and notes.

    Raises `TaskError` unless every image has one category, and every annotation an image.
    """
    ids = integers(path, "annotations", annotations, "id")
    of_image = integers(path, "annotations", annotations, "image_id")
    of_category = integers(path, "annotations", annotations, "category_id")
    by_id = np.argsort(image_ids)
    rows = by_id[rank(path, of_image, image_ids[by_id], ids, "image_id")]
    ranks = rank(path, of_category, np.array(list(categories)), ids, "category_id")
    labels = np.full(len(names), -1)
    labels[rows] = ranks
    unlabelled = np.flatnonzero(labels < 0)
    if len(unlabelled):
        examples = shorten([names[row] for row in unlabelled])
        raise TaskError(
            f"{path}: {len(unlabelled)} images have no annotation: {examples}; expected one for "
            "each: correct the file"
        )
    differing = np.flatnonzero(labels[rows] != ranks)
    if len(differing):
        row, other = rows[differing[0]], ranks[differing[0]]
        known = list(categories)
        raise TaskError(
            f"{path}, images[{row}]: {names[row]} has annotations of the categories "
            f"{known[other]} and {known[labels[row]]}; expected one: correct the file"
        )
    surplus = len(annotations) - len(names)
    notes = [f"{path.name} has {surplus} annotations that repeat others"] if surplus else []
    unique, uses = np.unique(ids, return_counts=True)
    twice = unique[uses > 1]
    if len(twice):
        notes.append(f"{path.name} has {len(twice)} ids of several annotations: {first(twice)}")
    return labels.tolist(), notes


def full_names(path: Path, ids: tuple[int, ...]) -> tuple[str, ...]:
    """Class names from categories.json, which has them in full."""
    rows = read_json(path)
    if not is_table(rows):
        raise TaskError(f"{path} is no list of categories; get it again, or remove it")
    categories = read_categories(path, rows)
    if tuple(categories) != ids:
        raise TaskError(
            f"{path} has {len(categories)} categories, others than the {len(ids)} of "
            "the annotations; expected the same ids: get it again, or remove it"
        )
    return tuple(categories.values())


def refuse_different(files: dict[str, Path], categories: dict[str, dict[int, str]]) -> None:
    """Raise `TaskError` that names a category in which the two files differ."""
    train, val = categories["train"], categories["val"]
    differing = sorted(n for n in train.keys() | val.keys() if train.get(n) != val.get(n))
    number = differing[0]
    raise TaskError(
        f"{files['train']} and {files['val']} differ in {len(differing)} categories: id {number} "
        f"is {train.get(number)!r} in the first and {val.get(number)!r} in the second; expected "
        "the same in both"
    )
