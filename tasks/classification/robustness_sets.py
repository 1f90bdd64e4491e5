"""Readers of ImageNet-A, -R, -Sketch and -C: test images in folders called by ImageNet's wnids.

<wnid>/*                             ImageNet-A, -R, -Sketch; the data folder, or imagenet-a/,
                                     imagenet-r/, sketch/ in it
<corruption>/<severity>/<wnid>/*     ImageNet-C; a corruption lies in the data folder, or in
                                     noise/, blur/, weather/, digital/ as the archives have it
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from tasks.classification.class_folders import images_of, visible
from tasks.classification.datasets import CORRUPTIONS, ROBUSTNESS, SEVERITIES, RobustnessFacts
from tasks.classification.labelled import Split, expected, identify, refuse_no_folder
from tasks.errors import TaskError
from tasks.images.files import FileNames, shorten
from tasks.images.fingerprint import SAMPLE, Fingerprint
from tasks.images.walk import SUFFIXES
from tasks.stores import opened

LEAST_READ = 8
"""images of each split of which the contents are read"""


@dataclass(frozen=True, eq=False)
class RobustnessImages:
    """A data set of test images on disk."""

    facts: RobustnessFacts
    splits: dict[str, Split]
    """"<corruption>/<severity>" -> images, for ImageNet-C; else the name of the set -> images.
    Targets are indices into the model's classes."""
    class_indices: np.ndarray
    """those of the model's classes that have images, ascending, int64"""
    fingerprint: str
    """over names, classes, the sizes of all files and a sample of their contents"""
    notes: tuple[str, ...] = ()
    """what is odd, but no reason to refuse the data; a line each"""

    def __len__(self) -> int:
        """Images of all splits."""
        return sum(len(split) for split in self.splits.values())

    @property
    def standard(self) -> bool:
        """Whether classes and images are as many as in the official release."""
        facts = self.facts
        counts = [len(split) for split in self.splits.values()]
        return (
            len(self.class_indices) == facts.num_classes
            and counts == [facts.num_images] * facts.num_sets
        )

    def limited(self, limit: int | None) -> Self:
        """`limit` images of each split; the fingerprint stays that of the whole."""
        splits = {name: split.limited(limit) for name, split in self.splits.items()}
        return replace(self, splits=splits)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and a model's copy must not double it


def read_robustness(name: str, root: str | Path, wnids: Sequence[str]) -> RobustnessImages:
    """The data set `name` in a folder; `wnids` are the model's class folders in index order.

    Raises `TaskError` for a folder that is missing or empty, or is called by none of `wnids`.
    """
    facts = ROBUSTNESS[name]
    folders = locate(facts, opened(root))
    return read_folders(facts, folders, wnids)


def read_folders(
    facts: RobustnessFacts, folders: dict[str, Path], wnids: Sequence[str]
) -> RobustnessImages:
    """The images in `folders`, a split each."""
    fingerprint = Fingerprint()
    splits, notes = {}, []
    for key, folder in folders.items():
        splits[key], found = read_split(facts, folder, wnids)
        notes += [f"{key}: {note}" for note in found]
        fingerprint.add(key)
        identify(fingerprint, splits[key], max(LEAST_READ, SAMPLE // len(folders)))
    class_indices = np.unique(np.concatenate([split.targets for split in splits.values()]))
    notes += unequal(splits)
    return RobustnessImages(facts, splits, class_indices, fingerprint.hexdigest(), tuple(notes))


def locate(facts: RobustnessFacts, root: Path) -> dict[str, Path]:
    """Name of a split -> folder of its classes. `TaskError` if one is missing."""
    refuse_no_folder(facts, root)
    inner = root / facts.folder
    if facts.name != "imagenet_c":
        return {facts.name: inner if inner.is_dir() else root}
    root = inner if inner.is_dir() else root
    found: dict[str, Path] = {}
    absent = []
    for group, corruptions in CORRUPTIONS.items():
        for corruption in corruptions:
            places = [
                folder
                for folder in (root / corruption, root / group / corruption)
                if folder.is_dir()
            ]
            if len(places) > 1:
                both = " and ".join(str(place) for place in places)
                raise TaskError(f"{both} are both there; keep one of them")
            for severity in SEVERITIES:
                key = f"{corruption}/{severity}"
                if places and (places[0] / str(severity)).is_dir():
                    found[key] = places[0] / str(severity)
                else:
                    absent.append(key)
    if absent:
        raise TaskError(
            f"{root} lacks {len(absent)} of {len(absent) + len(found)} corruptions with severity: "
            f"{shorten(absent)}; {expected(facts)}"
        )
    return found


def read_split(
    facts: RobustnessFacts, folder: Path, wnids: Sequence[str]
) -> tuple[Split, list[str]]:
    """The images of one split, and notes."""
    folders = wnid_folders(facts, folder)
    index_of = {wnid: index for index, wnid in enumerate(wnids)}
    unknown = [name for name in folders if name not in index_of]
    if unknown:
        raise TaskError(
            f"{folder} has {len(unknown)} folders that are none of the model's {len(wnids)} "
            f"classes: {shorten(unknown)}; expected {facts.layout} with ImageNet's wnids"
        )
    classes = sorted(folders, key=index_of.__getitem__)
    names, counts, notes, _ = images_of(folder, classes, SUFFIXES)
    empty = [wnid for wnid, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise TaskError(
            f"{folder}: {len(empty)} of {len(classes)} class folders hold no image: "
            f"{shorten(empty)}; unpack the archive again"
        )
    indices = np.array([index_of[wnid] for wnid in classes], dtype=np.int64)
    return Split(folder, FileNames(names), np.repeat(indices, counts)), notes


def wnid_folders(facts: RobustnessFacts, folder: Path) -> list[str]:
    """Sorted names of the class folders. `TaskError` if there are none, or images beside them."""
    folders, loose = visible(folder)
    if loose:
        raise TaskError(
            f"{folder} holds images outside class folders: {shorten(loose, most=2)}; expected "
            f"{facts.layout}"
        )
    if not folders:
        raise TaskError(f"{folder} has no class folders; {expected(facts)}")
    return folders


def unequal(splits: dict[str, Split]) -> list[str]:
    """A note about the splits that have fewer images than the fullest, if there are any."""
    most = max(len(split) for split in splits.values())
    fewer = [f"{key} ({len(split):,})" for key, split in splits.items() if len(split) < most]
    if not fewer:
        return []
    what = (
        f"{len(fewer)} of {len(splits)} corruptions with severity have fewer images than {most:,}"
    )
    return [f"{what}: {shorten(fewer)}"]
