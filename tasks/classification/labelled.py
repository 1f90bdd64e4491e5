"""Images with class indices, as every layout's reader returns them; what the readers share."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from tasks.classification.datasets import WNID, DatasetFacts, RobustnessFacts
from tasks.errors import TaskError
from tasks.holding_out import divided_fingerprint, hold_out
from tasks.images.files import FileNames, entries, shorten
from tasks.images.fingerprint import SAMPLE, Fingerprint
from tasks.images.twins import find_twins


@dataclass(frozen=True, eq=False)
class Split:
    """Images of one split with their class indices, in the order of (class, file name)."""

    root: Path
    names: FileNames
    """paths relative to `root`"""
    targets: np.ndarray
    """class index, int64 (N,)"""
    upright: bool = False
    """whether images are turned by their EXIF tags: one's own are, official ones never were"""

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
        return self.take(kept)

    def take(self, rows: np.ndarray) -> "Split":
        """The images at `rows`."""
        return replace(self, names=self.names.take(rows), targets=self.targets[rows])


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """A data set on disk."""

    facts: DatasetFacts
    classes: tuple[str, ...]
    """names by class index: folders, species or places"""
    train: Split
    val: Split
    fingerprint: str
    """over names, classes, labels, the sizes of all files and a sample of their contents"""
    notes: tuple[str, ...] = ()
    """what is odd, but no reason to refuse the data; a line each"""

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def upright(self) -> bool:
        """Whether images are turned by their EXIF tags."""
        return self.val.upright

    @property
    def own(self) -> bool:
        """Whether the classes are the user's: ImageNet's own are called by their wnids."""
        named = WNID if self.facts.name == "imagenet1k" else None
        return named is not None and not all(map(named.fullmatch, self.classes))

    @property
    def standard(self) -> bool:
        """Whether classes and images are as many as in the official release."""
        counts = (len(self.classes), len(self.train), len(self.val))
        official = (self.facts.num_classes, self.facts.num_train, self.facts.num_val)
        return counts == official and not self.own

    def limited(self, limit: int | None) -> Self:
        """`limit` images of each split; the fingerprint stays that of the whole."""
        return replace(self, train=self.train.limited(limit), val=self.val.limited(limit))

    def divided(self, share: float, seed: int) -> Self:
        """The training images alone: `share` of each class in place of the test images."""
        held = hold_out(self.train.targets, share, seed)
        return replace(
            self,
            train=self.train.take(np.flatnonzero(~held)),
            val=self.train.take(np.flatnonzero(held)),
            fingerprint=divided_fingerprint(self.fingerprint, len(held), share, seed),
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and a model's averaged copy must not double it


class Lists(NamedTuple):
    """What the lists of a data set say."""

    classes: Sequence[str]
    rows: dict[str, tuple[Path, list[str], list[int]]]
    """split -> folder, names relative to it, class indices"""
    notes: Iterable[str]


def labelled_images(
    facts: DatasetFacts,
    classes: Sequence[str],
    splits: dict[str, Split],
    notes: Iterable[str],
    both: list[str],
) -> LabelledImages:
    """A data set from what its lists say; `both` is what `overlap` says of its splits.

    Raises `TaskError` for a class without training images.
    """
    train, val = splits["train"], splits["val"]
    refuse_one_class(train.root, classes)
    counts = np.bincount(train.targets, minlength=len(classes))
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise TaskError(
            f"{train.root}: {len(empty)} of {len(classes)} classes have no training images: "
            f"{shorten(empty)}; expected some for each"
        )
    fingerprint = Fingerprint()
    fingerprint.add(*classes)
    sizes = [identify(fingerprint, split) for split in (train, val)]
    both = both or find_twins(train, val, *sizes).line(train, val)
    found = (*notes, *both, *untested(classes, val))
    return LabelledImages(facts, tuple(classes), train, val, fingerprint.hexdigest(), found)


def sorted_split(root: Path, names: Sequence[str], labels: Sequence[int]) -> Split:
    """A split in the order of (class, file name)."""
    pairs = sorted(zip(labels, names, strict=True))
    targets = np.fromiter((label for label, _ in pairs), dtype=np.int64, count=len(pairs))
    return Split(root, FileNames([name for _, name in pairs]), targets)


def identify(fingerprint: Fingerprint, split: Split, sample: int = SAMPLE) -> np.ndarray:
    """Feed all that a score on a split depends on to a fingerprint; returns the files' sizes."""
    if split.upright:
        fingerprint.add("upright")
    fingerprint.add(split.targets.astype("<i8").tobytes())
    return fingerprint.add_files(split.root, split.names, sample)


def refuse_one_class(root: Path, classes: Sequence[str], hint: str = "") -> None:
    """Raise TaskError if there is nothing to tell apart."""
    if len(classes) == 1:
        raise TaskError(
            f"{root} has one class, {classes[0]}, and top-1 of one class is 100 whatever the model "
            f"does; expected two at least{hint}"
        )


def untested(classes: Sequence[str], val: Split) -> list[str]:
    """A note about the classes without test images, if there are any."""
    counts = np.bincount(val.targets, minlength=len(classes))
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    return [f"{len(empty)} classes without test images: {shorten(empty)}"] if empty else []


def overlap(
    train_root: Path, train_names: Sequence[str], val_root: Path, val_names: Sequence[str]
) -> list[str]:
    """A note about the images that are in both splits, if there are any."""
    if train_root != val_root:
        return []
    both = sorted(set(val_names).intersection(train_names))
    return [f"{len(both)} images are in both splits: {shorten(both)}"] if both else []


def repeated(
    source: Path, names: Sequence[str], labels: Sequence[int], where: Callable[[str], str]
) -> list[str]:
    """A note about the images that `source` names more than once, if it does.

    Raises `TaskError` if the labels of such an image differ; `where` tells where a name stands.
    """
    if len(set(names)) == len(names):
        return []
    twice = {name for name, count in Counter(names).items() if count > 1}
    known: dict[str, int] = {}
    for name, label in zip(names, labels, strict=True):
        if name in twice and known.setdefault(name, label) != label:
            raise TaskError(
                f"{source}, {where(name)}: {name} has the labels {known[name]} and {label}; "
                "expected one: correct the file"
            )
    what = f"{source.name} names {len(twice)} images more than once, and so they count"
    return [f"{what}: {shorten(sorted(twice))}"]


def refuse_outside(source: Path, names: Sequence[str], where: Callable[[int], str]) -> None:
    """Raise `TaskError` unless all names are paths below the data folder."""
    for row, name in enumerate(names):
        if name.startswith("/") or (".." in name and ".." in name.split("/")) or no_path(name):
            raise TaskError(
                f"{source}, {where(row)}: {name!r:.80} is no path below the data folder; "
                "correct the file"
            )


def no_path(name: str) -> bool:
    """Whether no file system takes a name."""
    if "\0" in name:
        return True
    try:
        return not name.isascii() and not os.fsencode(name)
    except UnicodeEncodeError:
        return True


def refuse_missing(source: Path, root: Path, names: Sequence[str]) -> None:
    """Raise `TaskError` if images that `source` names are not there; lists each folder once."""
    by_folder: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        by_folder.setdefault(folder, []).append(file)
    count = 0
    examples: list[str] = []
    for folder, files in by_folder.items():
        listed = entries(root / folder)
        absent = [file for file in files if file not in listed]
        count += len(absent)
        if len(examples) < 3:
            examples += [f"{folder}/{file}".lstrip("/") for file in absent[:3]]
    if count:
        more = f" and {count - len(examples[:3])} more" if count > len(examples[:3]) else ""
        raise TaskError(
            f"{count} of {len(names)} images named in {source} are not in {root}: "
            f"{', '.join(examples[:3])}{more}; a part of the images makes another score: unpack "
            "the rest, or remove their lines"
        )


def find_file(facts: DatasetFacts, root: Path, name: str, folders: Sequence[str] = ("",)) -> Path:
    """A file of the official release in the first of `folders` below `root` that has it."""
    for folder in folders:
        if (root / folder / name).is_file():
            return root / folder / name
    raise TaskError(f"data folder {root} has no {name}; {expected(facts)}")


def refuse_no_folder(facts: DatasetFacts | RobustnessFacts, root: Path) -> None:
    if not root.is_dir():
        reason = "is a file" if root.exists() else "does not exist"
        raise TaskError(f"data folder {root} {reason}; {expected(facts)}")


def expected(facts: DatasetFacts | RobustnessFacts) -> str:
    return f"expected {facts.layout}; {facts.obtain}"
