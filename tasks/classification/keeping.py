"""Lists of a million images, kept for the next process: `tasks.kept` with its checks for them.

As in `tasks.images.keeping`, for images with classes, and lists of them.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.classification.datasets import DatasetFacts
from tasks.classification.labelled import (
    LabelledImages,
    Lists,
    Split,
    labelled_images,
    overlap,
    sorted_split,
)
from tasks.images.files import FileNames
from tasks.images.fingerprint import file_sizes
from tasks.images.keeping import LEAST_IMAGES, sizes_hold, stamps, why_not
from tasks.kept import Kept, keep
from tasks.unchanged import identify, is_same, state_of

VERSION = 1
"""of what is kept and of what reading makes of folders and lists: another one is made anew"""

Facts = dict[str, Any]


def keep_splits(
    source: str,
    root: Path,
    identity: Facts,
    files: Sequence[Path],
    read: Callable[[], tuple[dict[str, Split], Iterable[str], Facts]],
) -> tuple[dict[str, Split], Facts]:
    """What `read` returns: splits below `root`, and facts as JSON has them; or the same as kept.

    `read` also returns the folders that lie open to change. `identity`: what else determines the
    result. `files`: the lists that are read. The splits know the sizes of their files.
    """

    def is_current(found: Kept) -> bool:
        facts, lists = found.facts, found.facts["files"]
        return (
            facts["version"] == VERSION
            and facts["identity"] == identity
            and len(lists) == len(files)
            and all(is_same(known, file) for known, file in zip(lists, files, strict=True))
            and stamps(facts["folders"]) == found.arrays["folders"].tolist()
            and all(sizes_hold(each.root, each.names) for each in splits_of(found, root).values())
        )

    made: dict[str, Split] = {}

    def make() -> Kept:
        began = time.time_ns()
        before = [state_of(file) for file in files]
        splits, folders, facts = read()
        made.update(splits)
        if sum(map(len, splits.values())) < LEAST_IMAGES:
            return Kept({"read": facts}, {}, "")
        arrays: dict[str, np.ndarray] = {}
        for name, split in splits.items():
            split.names.sizes = file_sizes(split.root, split.names)
            arrays[f"{name}.names"] = split.names.as_array()
            arrays[f"{name}.sizes"], arrays[f"{name}.targets"] = split.names.sizes, split.targets
        known = [identify(file) for file in files]
        entered = list(folders)
        about = {"version": VERSION, "identity": identity, "files": known, "read": facts}
        about |= {"folders": entered, "roots": relative(splits, root)}
        arrays["folders"] = np.array(stamps(entered), dtype=np.int64).reshape(-1, 3)
        return Kept(about, arrays, why_not(arrays["folders"], began) or changed(before, known))

    kept = keep("images", source, is_current, make, one=False)
    return (made if made else splits_of(kept, root)), kept.facts["read"]


def keep_lists(
    facts: DatasetFacts,
    root: Path,
    files: Sequence[Path],
    identity: Facts,
    read: Callable[[], Lists],
) -> LabelledImages:
    """The data set of the lists `files`, which `read` reads."""

    def read_all() -> tuple[dict[str, Split], list[str], Facts]:
        lists = read()
        splits = {name: sorted_split(*row) for name, row in lists.rows.items()}
        places = {
            str(where / folder)
            for where, names, _ in lists.rows.values()
            for folder in {name.rpartition("/")[0] for name in names}
        }
        both = overlap(*lists.rows["train"][:2], *lists.rows["val"][:2])
        # What is no text cannot be written to the files and tables that name the classes.
        classes = [name.encode("utf-8", "replace").decode() for name in lists.classes]
        about = {"classes": classes, "notes": list(lists.notes), "both": both}
        return splits, sorted(places), about

    source = f"{root.absolute()} ({facts.name})"
    splits, found = keep_splits(source, root, identity, files, read_all)
    return labelled_images(facts, found["classes"], splits, found["notes"], found["both"])


def changed(before: Sequence[Facts], after: Sequence[Facts]) -> str | None:
    """Why lists of these states are of no use to the next process, if so."""
    keys = ("size", "times", "place")
    same = all(a[key] == b[key] for a, b in zip(before, after, strict=True) for key in keys)
    return None if same else "its lists have changed while they were read"


def relative(splits: Mapping[str, Split], root: Path) -> dict[str, str]:
    """Where splits lie below the data folder."""
    return {name: str(split.root.relative_to(root)) for name, split in splits.items()}


def splits_of(kept: Kept, root: Path) -> dict[str, Split]:
    """The splits in what is kept."""
    splits = {}
    for name, below in kept.facts["roots"].items():
        names = FileNames.of_array(kept.arrays[f"{name}.names"])
        names.sizes = np.asarray(kept.arrays[f"{name}.sizes"])
        splits[name] = Split(root / below, names, np.asarray(kept.arrays[f"{name}.targets"]))
    return splits
