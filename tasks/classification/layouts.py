"""Readers of the official layouts: from a data folder to file names and class indices."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from tasks import TaskError
from tasks.classification.datasets import DATASETS, DatasetFacts
from tasks.images import FileNames, list_images
from tasks.images.files import is_image_name, shorten


@dataclass(frozen=True, eq=False)
class Split:
    """Images of one split with their class indices, in the order of (class, file name)."""

    root: Path
    names: FileNames
    """paths relative to `root`"""
    targets: np.ndarray
    """class index, int64 (N,)"""

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        return self.root / self.names[index]

    def limited(self, limit: int | None) -> "Split":
        """`limit` images at even distances, so that every class keeps its share; None: all."""
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise TaskError(f"limit is {limit}; expected at least 1 image")
        kept = np.arange(limit) * len(self) // limit
        return Split(self.root, self.names.take(kept), self.targets[kept])


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """A data set on disk."""

    facts: DatasetFacts
    classes: tuple[str, ...]
    """class folders; the position is the class index"""
    train: Split
    val: Split
    fingerprint: str
    """16 hex digits over every file name and the size of each class's first file.

    Sizes of all 1.3 million files would take minutes on network storage at every start; this
    much is enough to tell an incomplete, resized or regenerated copy.
    """

    @property
    def standard(self) -> bool:
        """Whether classes and images are as many as in the official release."""
        counts = (len(self.classes), len(self.train), len(self.val))
        return counts == (self.facts.num_classes, self.facts.num_train, self.facts.num_val)

    def limited(self, limit: int | None) -> Self:
        """`limit` images of each split; the fingerprint stays that of the whole."""
        return replace(self, train=self.train.limited(limit), val=self.val.limited(limit))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and a model's averaged copy must not double it


def read_class_folders(facts: DatasetFacts, root: Path) -> LabelledImages:
    """ImageNet's layout: root/{train,val}/<class>/*; a class's index is its rank by name.

    Raises `TaskError` for a folder that is missing, empty, unsorted, or has a class that
    training lacks.
    """
    if not root.is_dir():
        raise TaskError(f"data folder {root} does not exist; {expected(facts)}")
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
    return LabelledImages(facts, tuple(classes), train, val, digest.hexdigest()[:16])


def class_folders(facts: DatasetFacts, root: Path, split: str) -> list[str]:
    """Sorted names of the folders in a split; hidden ones do not count."""
    with os.scandir(root / split) as entries:
        visible = [(e.name, e.is_dir()) for e in entries if not e.name.startswith(".")]
    loose = sorted(name for name, is_folder in visible if not is_folder and is_image_name(name))
    if loose:
        raise TaskError(
            f"{root / split} holds images outside class folders: {shorten(loose, most=2)}; sort "
            f"them into {split}/<class>/ (the official val archive is flat and unsorted)"
        )
    folders = sorted(name for name, is_folder in visible if is_folder)
    if not folders:
        raise TaskError(f"{root / split} has no class folders; {expected(facts)}")
    return folders


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
        size = (root / files[0]).stat().st_size
        update(os.fsencode("\n".join([*files, f"{size}\n"])))
    targets = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    return Split(root, FileNames(names), targets)


def expected(facts: DatasetFacts) -> str:
    return f"expected {facts.layout}; {facts.obtain}"


READERS: dict[str, Callable[[DatasetFacts, Path], LabelledImages]] = {
    "imagenet1k": read_class_folders,
}


def read(task: str, root: Path) -> LabelledImages:
    """The data of a classification task from its folder; `TaskError` if it is not as expected."""
    return READERS[task](DATASETS[task], root)
