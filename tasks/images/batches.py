"""Batches of training images, in which an unreadable file is replaced and reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch import Tensor

from tasks.errors import TaskError
from tasks.images.header import UnreadableImage
from tasks.images.unreadable import Unreadable, by_reason

if TYPE_CHECKING:
    from tasks.task import Batch

MOST_REPLACEMENTS = 100
"""unreadable files in a row after which the data set, not a file, is taken to be at fault"""

GROUP_BYTES = 2**20
"""pixels that a processor keeps close"""


class Pixels(Protocol):
    """What a sample is before it is finished."""

    @property
    def nbytes(self) -> int: ...


Sample = TypeVar("Sample", bound=Pixels)


def load_batch(
    keys: Sequence[tuple[int, int]],
    load_one: Callable[[int, int], Sample],
    names: Sequence[str],
    finish: Callable[[Sample], Tensor] = torch.as_tensor,
) -> Batch:
    """Load the samples `keys` = (epoch, index) into one batch, replacing unreadable files.

    `load_one(epoch, index)` returns one image, uint8 (3, S, S), or something that `finish` makes
    into one, or raises UnreadableImage; then the next index (after the last of `names` comes the
    first) is loaded in its place, and the unreadable one goes into "skipped".

    Returns {"images": uint8 (B, 3, S, S), channels last in memory; "index": int64 (B,), what was
    really loaded (look labels up with it); "skipped": list of `Unreadable`}. Raises TaskError when
    too many files in a row are unreadable.
    """
    skipped: list[Unreadable] = []
    loaded: list[int] = []
    images: Tensor | None = None
    row = 0
    samples = (load_readable(*key, load_one, names, skipped) for key in keys)
    for group in in_groups(samples):
        for sample, index in group:
            image = finish(sample)
            if images is None:
                shape = (len(keys), *image.shape)
                images = torch.empty(shape, dtype=image.dtype, memory_format=torch.channels_last)
            images[row] = image
            loaded.append(index)
            row += 1
    return {"images": images, "index": torch.tensor(loaded), "skipped": skipped}


def in_groups(samples: Iterable[tuple[Sample, int]]) -> Iterator[list[tuple[Sample, int]]]:
    """Samples by lists of as many as the processor keeps close, one at least.

    To load several small images and then finish them takes two thirds of the time of going back
    and forth, because each step finds its own code and tables still in the cache.
    """
    group, held = [], 0
    for sample, index in samples:
        group.append((sample, index))
        held += sample.nbytes
        if held >= GROUP_BYTES:
            yield group
            group, held = [], 0
    if group:
        yield group


def load_readable(
    epoch: int,
    wanted: int,
    load_one: Callable[[int, int], Sample],
    names: Sequence[str],
    skipped: list[Unreadable],
) -> tuple[Sample, int]:
    """The first sample from index `wanted` on that can be read, and its index."""
    attempts = min(MOST_REPLACEMENTS, len(names))
    for attempt in range(attempts):
        index = (wanted + attempt) % len(names)
        try:
            return load_one(epoch, index), index
        except UnreadableImage as error:
            skipped.append(Unreadable(names[index], error.reason))
            last = error
    raise TaskError(
        f"{attempts} image files in a row are unreadable, from {names[wanted]} on; expected "
        f"readable images: check the data set (last: {last})"
    )


class BadImages:
    """The unreadable files of a run, each counted once."""

    def __init__(self, limit: int, what: str = "image files") -> None:
        self.limit = limit
        """files that may be unreadable before the run stops"""
        self.what = what
        self.found: dict[str, Unreadable] = {}
        """by name, in the order they were met"""

    def __len__(self) -> int:
        return len(self.found)

    def __contains__(self, name: str) -> bool:
        return name in self.found

    def add(self, item: Unreadable) -> None:
        """Note an unreadable file. Raises TaskError once there are more than `limit`."""
        if item.name in self.found:
            return
        self.found[item.name] = item
        if len(self.found) > self.limit:
            raise TaskError(
                f"{len(self.found)} {self.what} are unreadable, more than the limit of "
                f"{self.limit}: {'; '.join(by_reason(self.found.values()))}; repair or remove "
                "them, or raise --max-bad-images"
            )
