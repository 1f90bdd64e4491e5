"""A walk over a million images, kept for the next process: `tasks.kept` with its checks for it.

Names are current while no folder that holds them has changed. Sizes of files are not looked at
again one by one, but for a few thousand drawn anew at every start: a file that is written over in
its place changes no folder.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.images.files import FileNames
from tasks.images.fingerprint import file_sizes, sampled
from tasks.images.walk import Walk, walk
from tasks.kept import Kept, keep
from tasks.stores import StoredPath
from tasks.unchanged import SETTLED

VERSION = 2
"""of what is kept and of what a walk makes of folders: another one is made anew"""
LEAST_IMAGES = 20_000
"""from which on a list is kept"""
LOOKED_AT = 4096
"""files whose sizes are compared at every start"""

Facts = dict[str, Any]


def kept_walk(folders: Sequence[Path], suffixes: frozenset[str]) -> tuple[Walk, list[FileNames]]:
    """`walk` that leaves out what is held out, without names, and the names in each folder.

    These know the sizes of their files, unless there are so few that nothing is kept.
    """
    identity = {"folders": [str(each) for each in folders], "suffixes": sorted(suffixes)}
    made: list[tuple[Walk, list[FileNames]]] = []

    def is_current(found: Kept) -> bool:
        facts, arrays = found.facts, found.arrays
        return (
            facts["version"] == VERSION
            and facts["identity"] == identity
            and stamps(facts["walk"]["entered"]) == arrays["stamps"].tolist()
            and all(sizes_hold(each, names_of(arrays, at)) for at, each in enumerate(folders))
        )

    def make() -> Kept:
        began = time.time_ns()
        found = walk(folders, suffixes, leave_held_out=True)
        all_names = [FileNames(names) for names in found.names]
        facts = {name: value for name, value in vars(found).items() if name != "names"}
        made.append((Walk(**facts), all_names))
        if sum(map(len, all_names)) < LEAST_IMAGES or not all(map(len, all_names)):
            return Kept({}, {}, "")
        arrays = {"stamps": np.array(stamps(found.entered), dtype=np.int64).reshape(-1, 3)}
        for at, (folder, names) in enumerate(zip(folders, all_names, strict=True)):
            names.sizes = file_sizes(folder, names)
            arrays[f"{at}.names"], arrays[f"{at}.sizes"] = names.as_array(), names.sizes
        about = {"version": VERSION, "identity": identity, "walk": facts}
        return Kept(about, arrays, why_not(arrays["stamps"], began))

    source = ",".join(str(folder.absolute()) for folder in folders)
    kept = keep("walks", source, is_current, make, one=False)
    if made:
        return made[0]
    names = [names_of(kept.arrays, at) for at in range(len(folders))]
    return walk_of(kept.facts["walk"]), names


def names_of(arrays: Mapping[str, np.ndarray], at: int) -> FileNames:
    """The names that were kept of one of the folders, with sizes."""
    names = FileNames.of_array(arrays[f"{at}.names"])
    names.sizes = arrays[f"{at}.sizes"]
    return names


def walk_of(facts: Facts) -> Walk:
    """The walk that was kept, without names."""
    found = Walk(**facts)
    found.passed = Counter(facts["passed"])
    found.twice = [(second, first) for second, first in facts["twice"]]
    return found


def why_not(folders: np.ndarray, began: int) -> str | None:
    """Why the names in folders of these `stamps` are of no use to the next process, if so."""
    if len(folders) and folders[:, 1:].max() > began - SETTLED:
        return "its folders have been written to just now"
    return None


def stamps(folders: Sequence[str]) -> list[list[int]]:
    """Inode, time of writing and of any change of each folder; zeros for one that is not there."""
    found = []
    for folder in folders:
        try:
            status = StoredPath(folder).stat()
        except OSError:
            found.append([0, 0, 0])
            continue
        found.append([status.st_ino, status.st_mtime_ns, status.st_ctime_ns])
    return found


def sizes_hold(root: Path, names: FileNames) -> bool:
    """Whether files are as large as they were: those whose contents count, others drawn anew."""
    assert names.sizes is not None
    drawn = np.random.default_rng().permutation(len(names))[:LOOKED_AT]
    rows = np.union1d(drawn, np.array(sampled(len(names)), dtype=np.int64))
    found = file_sizes(root, [names[row] for row in rows.tolist()])
    return bool((found == names.sizes[rows]).all())
