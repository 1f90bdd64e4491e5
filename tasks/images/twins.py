"""Test images that training has too, whatever they are called."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from tasks.images.fingerprint import THREADS, content

TESTED, COMPARED = 256, 1024
"""test images of which a twin is looked for, and training images that are read for it at most"""


class Images(Protocol):
    """Files of images."""

    @property
    def names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def path(self, index: int) -> Path: ...


class Twins(NamedTuple):
    """What was found in how many."""

    pairs: list[tuple[int, int]]
    """rows of a test image and of a training image of the same content, by the first"""
    looked_at: int
    """test images"""

    def line(self, train: Images, val: Images) -> list[str]:
        """A note, if there are any."""
        if not self.pairs:
            return []
        row, other = self.pairs[0]
        of = f"{len(val):,}" if self.looked_at == len(val) else f"a sample of {self.looked_at}"
        return [
            f"{len(self.pairs)} of {of} test images are training images, too: {val.names[row]} is "
            f"{train.names[other]}"
        ]


def find_twins(train: Images, val: Images, train_sizes: np.ndarray, val_sizes: np.ndarray) -> Twins:
    """Twins of a sample of the test images; the sizes are those of the files.

    Only training images of the same size to the byte are read, and `COMPARED` at most.
    """
    rows = np.random.default_rng(len(val)).permutation(len(val))[:TESTED]
    rows = rows[val_sizes[rows] > 0]
    order = np.argsort(train_sizes, kind="stable")
    ordered = train_sizes[order]
    first = np.searchsorted(ordered, val_sizes[rows], "left")
    last = np.searchsorted(ordered, val_sizes[rows], "right")
    tested = np.cumsum(last - first) <= COMPARED
    pairs = [
        (int(row), order[low:high].tolist())
        for row, low, high in zip(rows[tested], first[tested], last[tested], strict=True)
    ]
    with ThreadPoolExecutor(THREADS) as pool:
        alike = pool.map(lambda pair: twin(train, val, *pair), pairs)
        found = [(row, other) for (row, _), other in zip(pairs, alike, strict=True) if other >= 0]
    return Twins(sorted(found), len(pairs))


def twin(train: Images, val: Images, row: int, others: Sequence[int]) -> int:
    """The one of the training images `others` that is the test image `row`; -1 if none is."""
    if not others:
        return -1
    wanted = content(str(val.path(row)))
    return next((k for k in others if wanted and content(str(train.path(k))) == wanted), -1)
