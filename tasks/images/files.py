"""Names of image files."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self, overload

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

    def __init__(self, names: Sequence[str]) -> None:
        self._bytes = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)

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
        return made

    def as_array(self) -> np.ndarray:
        """The names as uint8 (N, bytes of the longest), zeros behind the others."""
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
