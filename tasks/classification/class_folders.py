"""Reader of ImageNet's layout: root/{train,val}/<class>/*, a class's index is its rank by name."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tasks import TaskError
from tasks.classification.datasets import DatasetFacts
from tasks.classification.labelled import (
    LabelledImages,
    Split,
    expected,
    identity,
    refuse_no_folder,
    untested,
)
from tasks.images.files import FileNames, is_image_name, list_images, shorten


def read_class_folders(facts: DatasetFacts, root: Path) -> LabelledImages:
    """The data set in a folder.

    Raises `TaskError` for a folder that is missing, empty, unsorted, or has a class that
    training lacks.
    """
    refuse_no_folder(facts, root)
    for split in ("train", "val"):
        if not (root / split).is_dir():
            raise TaskError(f"data folder {root} has no {split}/; {expected(facts)}")
    classes = class_folders(facts, root, "train")
    unknown = sorted(set(class_folders(facts, root, "val")) - set(classes))
    if unknown:
        raise TaskError(
            f"{root / 'val'} has classes that {root / 'train'} lacks: {shorten(unknown)}; "
            "expected the same class folders in both"
        )
    digest = hashlib.sha256()
    train, val = (read_split(root, split, classes, digest.update) for split in ("train", "val"))
    notes = tuple(untested(classes, val))
    return LabelledImages(facts, tuple(classes), train, val, digest.hexdigest()[:16], notes)


def read_own_folders(facts: DatasetFacts, root: Path) -> LabelledImages:
    """The same for one's own data, which are called as their folder is."""
    name = root.resolve().name or facts.name
    return read_class_folders(replace(facts, name=name), root)


def class_folders(facts: DatasetFacts, root: Path, split: str) -> list[str]:
    """Sorted names of the folders in a split; hidden ones do not count."""
    folders, loose = visible(root / split)
    if loose:
        raise TaskError(
            f"{root / split} holds images outside class folders: {shorten(loose, most=2)}; sort "
            f"them into {split}/<class>/ (the official val archive is flat and unsorted)"
        )
    if not folders:
        raise TaskError(f"{root / split} has no class folders; {expected(facts)}")
    return folders


def visible(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted names of the folders, and of the images, that lie in a folder; no hidden ones."""
    with os.scandir(folder) as entries:
        found = sorted((e.name, e.is_dir()) for e in entries if not e.name.startswith("."))
    images = [name for name, is_folder in found if not is_folder and is_image_name(name)]
    return [name for name, is_folder in found if is_folder], images


def read_split(
    root: Path, split: str, classes: Sequence[str], update: Callable[[bytes], None]
) -> Split:
    """The images of a split; feeds what identifies them to a digest's `update`."""
    names: list[str] = []
    counts = [0] * len(classes)
    for index, name in enumerate(classes):
        folder = root / split / name
        if split == "val" and not folder.is_dir():
            continue  # a class without test images
        files = [f"{split}/{name}/{file}" for file in list_images(folder)]
        names += files
        counts[index] = len(files)
        update(identity(root, files))
    targets = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    return Split(root, FileNames(names), targets)
