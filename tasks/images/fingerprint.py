"""What names a data set by its content, wherever it lies and whenever it was copied."""

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tasks.images.files import FileNames
from tasks.stores import pieces, size_of

DIGITS = 20
"""of a fingerprint; until those of contents there were 16, over names and a few sizes"""
SAMPLE = 512
"""files of a split of which the contents are read: all of a small one"""
PIECE = 2**16
"""bytes read at the start, in the middle and at the end of a long file"""
THREADS = 16
"""for storage on a network, where a look at a file takes a millisecond"""
SLOW = 5e-5
"""seconds that a look takes there at least; where files are near it takes a twentieth, and threads
that wait for each other's Python double it"""
BLOCK = 512
"""files that are looked at in a row"""
GONE = -1
"""size of a file that is not there: a link that leads nowhere"""


class Fingerprint:
    """A digest over names, labels, the sizes of all files and the contents of a sample of them.

    At 1.28 million images the sizes take seconds, and reading all would take hours; so a copy of
    which single files have other pixels, but the same sizes to the byte, can pass. Times and places
    of files do not count.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, *parts: str | bytes | np.ndarray) -> None:
        """Take in texts, bytes, or the bytes of arrays, each apart from the next."""
        for part in parts:
            if isinstance(part, np.ndarray):
                data = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
            else:
                data = memoryview(os.fsencode(part))
            self._digest.update(len(data).to_bytes(8))
            self._digest.update(data)

    def add_files(self, root: Path | str, names: Sequence[str], sample: int = SAMPLE) -> np.ndarray:
        """Take in the files `names`, relative to `root`, in their order.

        The contents of `sample` of them are read. Returns their sizes; see `file_sizes`.
        `FileNames` remember them, so that a million files are not looked at twice.
        """
        sizes = names.sizes if isinstance(names, FileNames) else None
        if sizes is None:
            sizes = file_sizes(root, names)
        self.add(names.lines() if isinstance(names, FileNames) else "\n".join(names))
        self.add(sizes.astype("<i8"))
        if isinstance(names, FileNames):
            names.sizes = sizes
        paths = [f"{root}/{names[row]}" for row in sampled(len(names), sample)]
        with ThreadPoolExecutor(min(THREADS, len(paths) or 1)) as pool:
            self.add(*pool.map(content, paths))
        return sizes

    def hexdigest(self) -> str:
        return self._digest.hexdigest()[:DIGITS]


def sampled(count: int, sample: int = SAMPLE) -> list[int]:
    """Rows of the files, of so many, whose contents are read."""
    return sorted(np.random.default_rng(count).permutation(count)[:sample].tolist())


def file_sizes(root: Path | str, names: Sequence[str]) -> np.ndarray:
    """Bytes of each of the files, int64 (N,); `GONE` for those that cannot be looked at."""
    blocks = [names[start : start + BLOCK] for start in range(0, len(names), BLOCK)]
    found: list[list[int]] = []
    while blocks:
        began = time.perf_counter()
        found.append(look(root, blocks.pop(0)))
        if time.perf_counter() - began > SLOW * len(found[-1]):
            break
    with ThreadPoolExecutor(THREADS) as pool:
        found += pool.map(lambda block: look(root, block), blocks)
    sizes = [np.array(block, dtype=np.int64) for block in found]
    return np.concatenate(sizes or [np.zeros(0, np.int64)])


def look(root: Path | str, names: Sequence[str]) -> list[int]:
    sizes = []
    for name in names:
        try:
            sizes.append(size_of(f"{root}/{name}"))
        except OSError:
            sizes.append(GONE)
    return sizes


def content(path: str) -> bytes:
    """A digest of a file: of three pieces, if it is long; of nothing, if it cannot be read."""
    try:
        return hashlib.sha256(b"".join(pieces(path, PIECE))).digest()
    except OSError:
        return b""


def changed(there: str, here: str) -> str:
    """How two fingerprints of one data set differ, in words."""
    if len(there) != len(here):
        return (
            "the older fingerprint was over names and few sizes, this one is over contents: "
            "whether the data are the same is not known"
        )
    return (
        f"the data are others, or were changed or repaired: fingerprint {there} there, {here} here"
    )
