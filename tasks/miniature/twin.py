"""What a twin is: a small data set of drawn scenes in the official layout of a large one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.miniature.stuff import Rng

Records = Mapping[str, list[Any]]
"""Per split, what `write` returned for its images, in order of their index."""


Facts = Mapping[str, Any]
"""what the world's manifest says of a twin: classes, images per split"""
Row = tuple[str, list[Image.Image]]
"""label and pictures; those that do not fit are left out"""


def no_lists(folder: Path, records: Records) -> None:
    """Of a data set whose folders say everything."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Twin:
    """The miniature of one data set. Its functions are module-level, so that worker processes can
    find them.
    """

    name: str
    """of the data set, and of its folder in the world"""
    sizes: Mapping[str, int]
    """split -> images, if nobody wants another number"""
    write: Callable[[Path, str, int, Rng], Any]
    """write(folder, split, index, rng) draws and writes one image (and its label file, if there is
    one per image) below `folder`; returns what `finish` needs, picklable"""
    classes: tuple[str, ...] = ()
    """class names, by class index"""
    finish: Callable[[Path, Records], None] = no_lists
    """finish(folder, records) writes the lists or annotation files of all splits"""
    stream: str = ""
    """the data set whose random streams it shares, so that its images show the same scenes; its
    own if empty"""
    version: int = 1
    """counts changes that alter any of its files; then worlds that are there get it anew"""
    title: str
    """of its section of the contact sheet, which several may share"""
    remark: str = ""
    """beside the title"""
    rows: Callable[[Path, Facts], list[Row]]
    """rows(folder, facts): pictures for the contact sheet"""


def encode_jpeg(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as a JPEG of quality 92 without chroma subsampling."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def save_jpeg(path: Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 as `encode_jpeg` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_jpeg(image))
