"""Image files to RGB pixels: the ones Pillow gives, to the bit, in less time."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from tasks import TaskError

Box = tuple[int, int, int, int]
"""(top, left, height, width) in pixels"""

# What Pillow raises, besides OSError, on damaged files.
DAMAGED = (
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OverflowError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

START, END = b"\xff\xd8", b"\xff\xd9"
BASELINE = frozenset((0xC0, 0xC1))
START_OF_SCAN = 0xDA
SEGMENTS = frozenset(range(0xC0, 0xFF)) - frozenset(range(0xD0, 0xDA))
FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
WORTHWHILE_ROWS = 32
"""fewer rows than this are decoded with the rest: finding the header's fields costs as much"""


class UnreadableImage(TaskError):
    """An image file that cannot be read or decoded. The message is the file's path and why."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(path, reason)  # both travel from a loading process
        self.path = path
        self.reason = reason
        """without the path: "is empty (0 bytes); expected an image" """

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


def decode(path: Path | str) -> np.ndarray:
    """The image as uint8 (H, W, 3) RGB, to the bit what Pillow's convert("RGB") gives.

    As torchvision's ImageFolder loads it: EXIF rotation is not applied. Raises UnreadableImage.
    """
    return decode_box(path, whole)


def decode_box(path: Path | str, choose_box: Callable[[int, int], Box]) -> np.ndarray:
    """The pixels of one box of an image: `decode(path)` cut to `choose_box(height, width)`.

    Returns uint8 (h, w, 3). JPEG rows below the box are not decoded where that saves
    time, so damage that lies wholly below it can pass; a truncated file never does. Raises
    UnreadableImage.
    """
    data = read(path)
    pixels = box = None
    size = jpeg_size(data)
    if size is not None:
        box = choose_box(*size)
        pixels = decode_jpeg_rows(data, size[0], bottom=box[0] + box[2])
    if pixels is None:
        pixels = decode_with_pillow(data, path)
    if box is None:
        box = choose_box(*pixels.shape[:2])
    return cut(pixels, box)


def whole(height: int, width: int) -> Box:
    return 0, 0, height, width


def cut(image: np.ndarray, box: Box) -> np.ndarray:
    """`box` of an image (H, W, ...), as a view."""
    top, left, height, width = box
    return image[top : top + height, left : left + width]


def read(path: Path | str) -> bytes:
    try:
        with io.FileIO(path) as file:  # unbuffered: half the time of Path.read_bytes
            data = file.readall()
    except OSError as error:
        raise UnreadableImage(path, f"cannot be read: {error.strerror}") from error
    if not data:
        raise UnreadableImage(path, "is empty (0 bytes); expected an image")
    return data


def decode_with_pillow(data: bytes, path: Path | str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode[0] in "IF":  # conversion would cut the values off at 255
                raise UnreadableImage(
                    path, f"has more than 8 bits a channel (mode {image.mode}); expected 8"
                )
            return np.array(image.convert("RGB"))
    except UnreadableImage:
        raise
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(path, "is not an image in any known format") from error
    except (OSError, *DAMAGED) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(path, f"cannot be decoded: {reason}") from error


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a greyscale or three-colour JPEG; None if `data` is anything else."""
    if not data.startswith(START):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return None if colours in ("CMYK", "YCCK") else (height, width)


def decode_jpeg_rows(data: bytes, height: int, bottom: int) -> np.ndarray | None:
    """The rows of a JPEG from the top to `bottom` at least, uint8 (>= bottom, W, 3).

    None if libjpeg has any doubt about the data: Pillow is to decide then.
    """
    shorter = None if height - bottom < WORTHWHILE_ROWS else with_height(data, bottom)
    try:
        if shorter is None:
            return simplejpeg.decode_jpeg(data, "RGB")
        # Not strict, or the data of the rows left out would be refused as a surplus.
        return simplejpeg.decode_jpeg(shorter, "RGB", strict=False)
    except ValueError:
        return None


def with_height(data: bytes, bottom: int) -> bytes | None:
    """`data` of a JPEG with a header that ends the image just below the row `bottom`.

    Its rows above `bottom` decode to the same bits: a baseline image with one scan is stored from
    top to bottom, and smooth chroma upsampling looks no more than 2 rows ahead. None if the image
    is stored otherwise, or if its last marker is missing, as it is in a truncated file.
    """
    if not data.endswith(END):
        return None
    position, height_at, channels = 2, 0, 0
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker not in SEGMENTS:
            return None
        if marker in FRAME_MARKERS:
            if marker not in BASELINE:
                return None
            height_at, channels = position + 5, data[position + 9]
        elif marker == START_OF_SCAN:
            if not height_at or data[position + 4] != channels:
                return None
            return data[:height_at] + (bottom + 2).to_bytes(2) + data[height_at + 2 :]
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return None
