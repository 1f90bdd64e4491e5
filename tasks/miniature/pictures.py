"""Pictures of a twin for the contact sheet: which files, which colours."""

from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

from PIL import Image

from tasks.miniature.colour import oklch


def open_image(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def by_turns(folders: Iterable[Path], pattern: str) -> list[Path]:
    """The files of some folders: the first of each, then the second of each, and so on."""
    files = [sorted(folder.glob(pattern)) for folder in sorted(folders)]
    turns = zip_longest(*files)
    return [path for turn in turns for path in turn if path is not None]


def first_of_each_folder(folder: Path) -> list[Image.Image]:
    first: dict[Path, Path] = {}
    for path in sorted(folder.rglob("*.jpg")):
        first.setdefault(path.parent, path)
    return [open_image(path) for path in first.values()]


def class_colour(label: int) -> tuple[int, ...]:
    """A colour per class; multiples of the golden ratio spread over the circle of hues."""
    turn = 0.618 * label
    lightness = 0.62 + 0.16 * (turn * 2.3 % 1)
    return tuple(int(255 * channel) for channel in oklch(lightness, 0.13, 360 * turn).ravel())
