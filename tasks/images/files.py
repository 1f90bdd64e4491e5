"""Names of image files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self, overload

import numpy as np

from tasks import TaskError

SUFFIXES = frozenset(("jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"))
"""The ones of torchvision's ImageFolder, in either case."""


class FileNames(Sequence[str]):
    """File names in one block of memory.

    A list of a million strings would be copied page by page into every loading process, because
    reading an entry writes its reference count.
    """

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

    def take(self, indices: np.ndarray) -> Self:
        """The names at `indices`, in that order."""
        taken = object.__new__(type(self))
        taken._bytes = self._bytes[indices]
        return taken


def list_images(folder: Path) -> list[str]:
    """Sorted POSIX paths, relative to `folder`, of the images anywhere below it.

    Follows links, as ImageFolder does; passes over hidden files and folders. Raises TaskError if
    `folder` is missing, is a file, or holds no image.
    """
    expected = "expected a folder with images (.jpg, .png, .webp, ...) in it or below it"
    if not folder.exists():
        raise TaskError(f"image folder {folder} does not exist; {expected}: check the path")
    if not folder.is_dir():
        raise TaskError(f"image folder {folder} is a file; {expected}: give the folder around it")
    found: list[str] = []
    for place, subfolders, files in os.walk(folder, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        below = Path(place).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        found += [prefix + name for name in files if is_image_name(name)]
    if not found:
        raise TaskError(f"image folder {folder} holds no image; {expected}: check the path")
    return sorted(found)


def is_image_name(name: str) -> bool:
    stem, dot, suffix = name.rpartition(".")
    return bool(stem and dot) and not name.startswith(".") and suffix.lower() in SUFFIXES


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
    """Names in a folder; none if there is no such folder."""
    try:
        with os.scandir(folder) as found:
            return {entry.name for entry in found}
    except OSError:
        return set()
