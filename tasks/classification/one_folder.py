"""One folder of class folders, without train/ and val/: split here into training and test images.

A fifth of each class, rounded, is for testing, and at least one image. Which ones follows from a
fixed seed and the names alone, so that runs of all seeds are scored on the same images, and an
image that is added later changes the side of few others. Copies of an image stay together.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tasks.classification.datasets import DatasetFacts
from tasks.classification.labelled import LabelledImages, Split, identify, refuse_one_class
from tasks.errors import TaskError
from tasks.images.files import FileNames
from tasks.images.fingerprint import Fingerprint, content
from tasks.images.turned import turned_note
from tasks.images.walk import plural

TEST_SHARE = 0.2
"""of the images of each class"""
SPLIT_SEED = 0

LEARN = frozenset({"train", "training", "learn"})
TEST = frozenset({"val", "valid", "validation", "test", "testing", "eval", "dev"})
"""what public data sets call the folders of their splits; of Kaggle's also training_set,
seg_train and the like"""
AROUND = frozenset({"set", "data", "dataset", "images", "image", "imgs", "img", "split", "seg"})


def is_one_folder(folders: Sequence[str]) -> bool:
    """Whether a folder that holds these folders is one of classes, without a split."""
    return bool(folders) and not {"train", "val"} & set(folders)


def called_as(folders: Sequence[str], names: frozenset[str]) -> list[str]:
    """Those of the folders that are called as one of `names`, in any case and with words around."""
    found = []
    for folder in folders:
        words = set(re.findall("[a-z]+", folder.lower())) - AROUND
        if words and words <= names:
            found.append(folder)
    return found


def refuse_splits(root: Path, folders: Sequence[str]) -> None:
    """Raise `TaskError` for folders that are splits by their names, and would be classes."""
    learn, test = called_as(folders, LEARN), called_as(folders, TEST)
    if learn and test:
        raise TaskError(
            f"{root}: its folders {', '.join(learn + test)} are called as splits are, and would be "
            f"classes; expected train/<class>/* and val/<class>/*: rename {learn[0]} to train, and "
            f"{test[0]} to val (or the one that is for testing)"
        )


def split_folder(
    facts: DatasetFacts,
    root: Path,
    classes: Sequence[str],
    names: Sequence[str],
    counts: Sequence[int],
    notes: Sequence[str],
) -> LabelledImages:
    """The data set of one folder: `names` of images below `root`, `counts` of them in each class.

    Raises `TaskError` for one class, and for a class that cannot be on both sides.
    """
    refuse_splits(root, classes)
    refuse_one_class(root, classes)
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    groups = copies(root, names)
    of_group: dict[str, set[int]] = defaultdict(set)
    for group, label in zip(groups, labels.tolist(), strict=True):
        of_group[group].add(label)
    shared = frozenset(group for group, found in of_group.items() if len(found) > 1)
    tested = np.zeros(len(names), dtype=bool)
    for label, name in enumerate(classes):
        rows = np.flatnonzero(labels == label).tolist()
        tested[chosen(root / name, rows, groups, shared)] = True
    splits = []
    for side in (~tested, tested):
        part = FileNames([names[row] for row in np.flatnonzero(side).tolist()])
        splits.append(Split(root, part, labels[side], upright=True))
    train, val = splits
    fingerprint = Fingerprint()
    fingerprint.add(f"split {TEST_SHARE} {SPLIT_SEED}", *classes)
    for split in splits:
        identify(fingerprint, split)
    said = (
        f"one folder without train/ and val/: split by mae-bench into {len(train):,} training and "
        f"{len(val):,} test images, {TEST_SHARE:.0%} of each class for testing, seed {SPLIT_SEED}; "
        "pictures of one series may be on both sides: where that matters, sort them into train/ "
        "and val/ yourself"
    )
    twins = len(names) - len(set(groups))
    more = [f"{twins} images are copies of others; copies stay on one side"] if twins else []
    more += turned_note([f"{root}/{name}" for name in names], upright=True)
    found = (said, *notes, *more)
    return LabelledImages(facts, tuple(classes), train, val, fingerprint.hexdigest(), found)


def copies(root: Path, names: Sequence[str]) -> list[str]:
    """For each image the first name of those with its content; only equal sizes are read."""
    sizes = [(root / name).stat().st_size for name in names]
    alike: dict[int, list[int]] = defaultdict(list)
    for row, size in enumerate(sizes):
        alike[size].append(row)
    first = list(names)
    for rows in alike.values():
        seen: dict[bytes, str] = {}
        for row in rows if len(rows) > 1 else ():
            digest = content(str(root / names[row]))
            if digest:  # else it cannot be read
                first[row] = seen.setdefault(digest, names[row])
    return first


def chosen(
    place: Path, rows: Sequence[int], groups: Sequence[str], shared: frozenset[str]
) -> list[int]:
    """Those of a class's `rows` that are test images; never one of a group that is `shared`."""
    members: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        members[groups[row]].append(row)
    free = sorted((group for group in members if group not in shared), key=rank)
    if not free or len(members) < 2:
        raise TaskError(
            f"{place}: holds {plural(len(members), 'different image')}, "
            f"{len(members) - len(free)} of them in other classes, too; expected two at least, "
            "one to train on and one to test: add some, or remove the folder"
        )
    wanted, taken = max(1, round(TEST_SHARE * len(rows))), list[int]()
    for group in free[: len(members) - 1]:  # something is left to train on
        if len(taken) >= wanted:
            break
        taken += members[group]
    return taken


def rank(name: str) -> str:
    """What orders the images of a class, at random but for ever."""
    return hashlib.sha256(f"{SPLIT_SEED} {name}".encode("utf-8", "surrogateescape")).hexdigest()
