"""Label images to class indices, never by way of colours."""

import io
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.ade20k.classes import ClassRule
from tasks.ade20k.datasets import IGNORED
from tasks.images import UnreadableImage
from tasks.images.header import DAMAGED, read, refuse_large

EXPECTED = "expected a PNG, grey or with a palette, of the values themselves"
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")
"""what a file is recognised as; all but the first are refused by their name"""
MODES = ("L", "P", "1", "I;16", "I")
COLOURS = ("RGB", "RGBA", "LA")
BIT_DEPTH = 24
"""where a PNG says how many bits a pixel has; the colour type follows"""
GREY = 0
"""the colour type"""
BAND_PIXELS = 2**20
SPREAD = (2, 4)
"""bits of grey that Pillow spreads over 0 to 255, which would make other values"""


def read_label(path: Path | str, rule: ClassRule) -> np.ndarray:
    """The class index of every pixel, uint8 (H, W), 255 where nothing counts.

    0 is unlabelled and classes begin at 1, if `rule` says so: mmsegmentation
    mmseg/datasets/transforms/loading.py (LoadAnnotations with reduce_zero_label), which lets
    values that no class has pass. Raises UnreadableImage that names the file, and such a value or
    the kind of image that it is not.
    """
    values = decode_label(path)
    table, known = tables(rule)
    counts = count_values(values)
    unknown = np.flatnonzero(counts * ~known).tolist()
    if unknown:
        more = f" and {len(unknown) - 1} more such values" if unknown[1:] else ""
        raise UnreadableImage(path, f"has the value {unknown[0]}{more}; expected {rule.describe()}")
    found = np.empty_like(values)
    for rows in bands(values):
        found[rows] = table[values[rows]]
    return found


def count_values(values: np.ndarray) -> np.ndarray:
    """Pixels of each value in uint8 (H, W), int64 (256,)."""
    counts = np.zeros(256, np.int64)
    for rows in bands(values):
        counts += np.bincount(values[rows].ravel(), minlength=256)
    return counts


def bands(values: np.ndarray) -> Iterator[slice]:
    """Rows of (H, W), so many at a time that numpy's indices of 8 bytes a pixel stay small."""
    height, width = values.shape
    step = max(1, BAND_PIXELS // width)
    for top in range(0, height, step):
        yield slice(top, top + step)


def decode_label(path: Path | str) -> np.ndarray:
    """The values of a label image as they are stored, uint8 (H, W). Raises UnreadableImage.

    A PNG: of 8 bits of grey, of 1 bit (0 and 1), of 16 bits whose values fit in 8, or of the
    indices of a palette.
    """
    return decode_with_palette(path)[0]


def decode_with_palette(path: Path | str) -> tuple[np.ndarray, np.ndarray | None]:
    """`decode_label`, and the colour of each value, uint8 (k, 3), k <= 256; None without any."""
    data = read(path)
    palette = None
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            refuse_kind(path, image, data)
            refuse_large(path, (image.height, image.width), data)
            values = np.array(image)
            if image.mode == "P":
                palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    except UnreadableImage:
        raise
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(path, "is not an image in any known format") from error
    except (OSError, *DAMAGED) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(path, f"cannot be decoded: {reason}") from error
    if values.dtype != np.bool_ and values.max() > 255:
        raise UnreadableImage(
            path, "has 16 bits and values above 255; expected values that fit in 8 bits"
        )
    return values.astype(np.uint8, copy=False), palette


def refuse_kind(path: Path | str, image: Image.Image, data: bytes) -> None:
    """Raise UnreadableImage for an image whose pixels are no values of classes."""
    if image.format != "PNG":
        raise UnreadableImage(path, f"is a {image.format} file; {EXPECTED}")
    if getattr(image, "n_frames", 1) > 1:
        raise UnreadableImage(path, f"is an animation; {EXPECTED}")
    depth, kind = data[BIT_DEPTH], data[BIT_DEPTH + 1]
    if kind == GREY and depth in SPREAD:
        raise UnreadableImage(path, f"is a grey image of {depth} bits; {EXPECTED}, in 8 bits")
    if image.mode in COLOURS:
        raise UnreadableImage(path, f"is an image of mode {image.mode}, of colours; {EXPECTED}")
    if image.mode not in MODES:
        raise UnreadableImage(path, f"is an image of mode {image.mode}; {EXPECTED}")


@lru_cache(maxsize=8)
def tables(rule: ClassRule) -> tuple[np.ndarray, np.ndarray]:
    """Value -> class index or 255, uint8 (256,); and value -> whether it is expected, bool."""
    table = np.full(256, IGNORED, dtype=np.uint8)
    known = np.zeros(256, dtype=bool)
    known[rule.ignore_index] = True
    known[: rule.first] = True
    count = len(rule.classes)
    table[rule.first : rule.first + count] = np.arange(count)
    known[rule.first : rule.first + count] = True
    return table, known
