"""What lies in the label images of a split, all of them: counted once, then kept in the cache."""

import hashlib
import io
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Self

import numpy as np

from backbones.files import atomic, read_regular
from tasks.ade20k.labels import count_values, decode_with_palette
from tasks.ade20k.layout import SegmentationSplit
from tasks.cache import cache_folder
from tasks.images import UnreadableImage
from tasks.images.header import LARGE_PIXELS, Stored, stored

VALUES = 256
"""that a pixel of a label image may have"""
VERSION = 2
"""of what is counted, and of the files in the cache"""
WORTH_KEEPING = 2.0
"""seconds of counting from which on the result is kept"""
MOST_KEPT = 2**28
"""bytes of a file in the cache"""
THREADS = min(16, 4 * (os.cpu_count() or 1))
"""decoding lets others run, and so does waiting for a network's disk"""
ALONE = Lock()
"""held while the label image of a large image is decoded, so that one of them is in memory"""

Progress = Callable[[], None]
"""called after each pair"""


class Pair(NamedTuple):
    """An image and its label image, as far as they can be read."""

    counts: np.ndarray
    """uint32 (256,): pixels of each value in the label image"""
    label_size: tuple[int, int]
    """(height, width); (0, 0) if it cannot be read"""
    colours: np.ndarray
    """int32 (256,): 65536 red + 256 green + blue of each value that occurs; -1 where the palette,
    if there is one, says nothing"""
    image: Stored
    """zeros if its header cannot be read"""
    label_fault: str
    """why the label image cannot be read"""
    image_fault: str
    """why the image's header cannot be read"""


@dataclass(frozen=True, eq=False)
class Census:
    """All pairs of a split, N of them, in its order."""

    counts: np.ndarray
    """uint32 (N, 256): pixels of each value in each label image"""
    label_sizes: np.ndarray
    """int64 (N, 2): height and width; zeros if it cannot be read"""
    colours: np.ndarray
    """int32 (N, 256): what palettes show the values as; see `Pair`"""
    images: np.ndarray
    """int64 (N, 3): height, width and EXIF orientation as stored; zeros if it cannot be read"""
    label_faults: dict[int, str]
    """row -> why its label image cannot be read"""
    image_faults: dict[int, str]
    """row -> why its image's header cannot be read"""

    @property
    def pixels(self) -> np.ndarray:
        """Of each value, int64 (256,)."""
        return self.counts.sum(axis=0, dtype=np.int64)

    @property
    def files(self) -> np.ndarray:
        """Label images with each value, int64 (256,)."""
        return np.count_nonzero(self.counts, axis=0)

    def take(self, rows: np.ndarray) -> Self:
        """The pairs at `rows`."""
        places = {int(row): place for place, row in enumerate(rows)}

        def taken(faults: dict[int, str]) -> dict[int, str]:
            return {places[row]: why for row, why in faults.items() if row in places}

        return type(self)(
            self.counts[rows],
            self.label_sizes[rows],
            self.colours[rows],
            self.images[rows],
            taken(self.label_faults),
            taken(self.image_faults),
        )


def census(split: SegmentationSplit, on_pair: Progress | None = None) -> Census:
    """Count a split, or take the numbers of the last time from the cache.

    Those hold as long as every file has the name, size and times of change that it had.
    """
    file = cache_folder() / "labels" / f"{identity(split)}.npz"
    kept = load(file, len(split))
    if kept is not None:
        return kept
    began = time.monotonic()
    found = count(split, on_pair)
    if time.monotonic() - began > WORTH_KEEPING:
        keep(found, file)
    return found


def count(split: SegmentationSplit, on_pair: Progress | None = None) -> Census:
    """Decode every label image and read every image's header."""
    pool = ThreadPoolExecutor(THREADS)
    found: list[Pair] = []
    try:
        for pair in pool.map(lambda row: look(split, row), range(len(split))):
            found.append(pair)
            if on_pair is not None:
                on_pair()
    finally:
        pool.shutdown(cancel_futures=True)
    return Census(
        np.stack([pair.counts for pair in found]),
        np.array([pair.label_size for pair in found], np.int64),
        np.stack([pair.colours for pair in found]),
        np.array([pair.image for pair in found], np.int64),
        {row: pair.label_fault for row, pair in enumerate(found) if pair.label_fault},
        {row: pair.image_fault for row, pair in enumerate(found) if pair.image_fault},
    )


def look(split: SegmentationSplit, row: int) -> Pair:
    """What is in one pair."""
    image, image_fault = Stored(0, 0, 0), ""
    try:
        image = stored(split.path(row))
    except UnreadableImage as error:
        image_fault = error.reason
    counts, size, label_fault = np.zeros(VALUES, np.uint32), (0, 0), ""
    colours = np.full(VALUES, -1, np.int32)
    alone = ALONE if image.height * image.width > LARGE_PIXELS else nullcontext()
    try:
        with alone:
            values, palette = decode_with_palette(split.label_path(row))
            counts[:] = count_values(values)
            if palette is not None:
                colours = shown_as(palette, counts)
            size = values.shape[0], values.shape[1]
    except UnreadableImage as error:
        label_fault = error.reason
    return Pair(counts, size, colours, image, label_fault, image_fault)


def shown_as(palette: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`Pair.colours`. A colour of two values, and the grey of the value itself, say nothing."""
    colours = np.full(VALUES, -1, np.int32)
    red, green, blue = palette.astype(np.int32).T
    colours[: len(palette)] = 65536 * red + 256 * green + blue
    colours[(counts == 0) | (colours == 0x010101 * np.arange(VALUES))] = -1
    found, times = np.unique(colours, return_counts=True)
    colours[np.isin(colours, found[times > 1])] = -1
    return colours


def identity(split: SegmentationSplit) -> str:
    """What a split's census hangs on: name, size, times of change of each file."""

    def told(path: Path) -> str:
        try:
            found = path.stat()
        except OSError as error:
            return f"{path.name} {error.errno}"
        return f"{path.name} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"

    def paths() -> Iterator[Path]:
        for row in range(len(split)):
            yield split.path(row)
            yield split.label_path(row)

    with ThreadPoolExecutor(THREADS) as pool:
        lines = "\n".join([str(VERSION), *pool.map(told, paths())])
    return hashlib.sha256(os.fsencode(lines)).hexdigest()[:32]


def keep(found: Census, file: Path) -> None:
    """Write a census for the next time; without a place for it, it is counted again."""
    faults = {"label": found.label_faults, "image": found.image_faults}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic(file) as stream:
            np.savez_compressed(
                stream,
                counts=found.counts,
                label_sizes=found.label_sizes,
                colours=found.colours,
                images=found.images,
                faults=np.frombuffer(json.dumps(faults).encode(), np.uint8),
            )
    except OSError:
        return


def load(file: Path, pairs: int) -> Census | None:
    """The census in a file of `keep`; None if there is none, or it is damaged."""
    try:
        with np.load(io.BytesIO(read_regular(file, MOST_KEPT)), allow_pickle=False) as arrays:
            faults = json.loads(arrays["faults"].tobytes())
            found = Census(
                arrays["counts"],
                arrays["label_sizes"],
                arrays["colours"],
                arrays["images"],
                {int(row): str(why) for row, why in faults["label"].items()},
                {int(row): str(why) for row, why in faults["image"].items()},
            )
    except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile):
        return None
    parts = (found.counts, found.label_sizes, found.colours, found.images)
    shapes = [(pairs, VALUES), (pairs, 2), (pairs, VALUES), (pairs, 3)]
    return found if [part.shape for part in parts] == shapes else None
