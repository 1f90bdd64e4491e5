"""What a layout is: the way one data set's scenes lie on disk."""

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


def no_lists(folder: Path, records: Records) -> None:
    """A layout whose folders say everything."""


@dataclass(frozen=True)
class Layout:
    """One data set. Its functions are module-level, so that worker processes can find them."""

    name: str
    """folder of the data set in the world"""
    classes: tuple[str, ...]
    """class names, by class index"""
    write: Callable[[Path, str, int, Rng], Any]
    """write(folder, split, index, rng) draws and writes one image (and its label file, if the
    layout has one per image) below `folder`; returns what `finish` needs, picklable"""
    finish: Callable[[Path, Records], None] = no_lists
    """finish(folder, records) writes the lists or annotation files of all splits"""
    stream: str = ""
    """the data set whose random streams it shares, so that its images show the same scenes; its
    own if empty"""


def encode_jpeg(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as a JPEG of quality 92 without chroma subsampling."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def save_jpeg(path: Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 as `encode_jpeg` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_jpeg(image))
