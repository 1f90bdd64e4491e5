"""Names of image files."""

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Self, overload

import numpy as np

from tasks.errors import TaskError
from tasks.stores import names_in


class FileNames(Sequence[str]):
    """File names in one block of memory.

    A list of a million strings would be copied page by page into every loading process, because
    reading an entry writes its reference count.
    """

    sizes: np.ndarray | None = None
    """bytes of each file when they were first asked for, int64 (N,); None: never so far"""
    _kept: np.ndarray | None = None
    """the array that they are part of, if it is one of `of_array`"""

    def __init__(self, names: Sequence[str]) -> None:
        self._bytes = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)

    def __reduce__(self) -> Any:
        """Another process gets the place of what is kept in a file, not the bytes."""
        return type(self).of_array, (self.as_array(),), {"sizes": self.sizes}

    def __len__(self) -> int:
        return len(self._bytes)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [os.fsdecode(name) for name in self._bytes[index]]
        return os.fsdecode(self._bytes[index])

    def __iter__(self) -> Iterator[str]:
        return map(os.fsdecode, self._bytes.tolist())

    @classmethod
    def of_array(cls, characters: np.ndarray) -> Self:
        """From what `as_array` gives, whose memory it keeps."""
        made = object.__new__(cls)
        width = characters.shape[1]
        made._bytes = np.asarray(characters).view(f"S{width}")[:, 0]
        made._kept = characters
        return made

    def as_array(self) -> np.ndarray:
        """The names as uint8 (N, bytes of the longest), zeros behind the others."""
        if self._kept is not None:
            return self._kept
        return np.ascontiguousarray(self._bytes)[:, None].view(np.uint8)

    def take(self, indices: np.ndarray) -> Self:
        """The names at `indices`, in that order."""
        taken = object.__new__(type(self))
        taken._bytes = self._bytes[indices]
        taken.sizes = None if self.sizes is None else self.sizes[indices]
        return taken

    def lines(self) -> bytes:
        """The names as the file system has them, a line each."""
        return b"\n".join(self._bytes.tolist())

    def in_first_folders(self) -> Counter[str]:
        """First part of the names -> how many have it; "." for those that are in no folder.

        Names that are below one folder must follow each other, as in a sorted list.
        """
        found: Counter[str] = Counter()
        if not len(self):
            return found
        characters = self.as_array()
        is_slash = characters == ord("/")
        end = is_slash.argmax(axis=1)
        bare = ~is_slash[np.arange(len(self)), end]
        folders = characters[:, : end.max()]
        inside = folders * (np.arange(folders.shape[1]) < end[:, None])
        other = (inside[1:] != inside[:-1]).any(axis=1) | (bare[1:] != bare[:-1])
        starts = [0, *(np.flatnonzero(other) + 1).tolist()]
        for start, count in zip(starts, np.diff([*starts, len(self)]).tolist(), strict=True):
            found["." if bare[start] else self[start].partition("/")[0]] += count
        return found


class Paths(Sequence[str]):
    """The paths of files in several folders, one folder after the other."""

    def __init__(self, parts: Mapping[str, FileNames]) -> None:
        self.parts = dict(parts)
        """folder -> names relative to it"""
        self._rows = [(f"{folder}/", names) for folder, names in self.parts.items()]
        self._starts = [0, *accumulate(map(len, self.parts.values()))]

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"{index} of {len(self)} paths")
        part = bisect_right(self._starts, row) - 1
        folder, names = self._rows[part]
        return folder + names[row - self._starts[part]]


def shorten(names: Sequence[str], most: int = 4) -> str:
    """The first few names and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def missing(root: Path, names: Sequence[str]) -> list[str]:
    """Those of `names` that are no entries below `root`: one listing for each folder."""
    listed: dict[str, set[str]] = {}
    absent = []
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder not in listed:
            listed[folder] = entries(root / folder)
        if file not in listed[folder]:
            absent.append(name)
    return absent


def entries(folder: Path) -> set[str]:
    """Names in a folder; none if there is no such folder. TaskError if it cannot be listed."""
    try:
        return set(names_in(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise TaskError(
            f"{folder} cannot be listed: {error.strerror}; give yourself the permission, or "
            "correct the path"
        ) from error
