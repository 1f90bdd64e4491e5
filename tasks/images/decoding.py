"""Image files to RGB pixels: the ones Pillow gives, to the bit, in less time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from tasks.images.header import (
    LARGE_PIXELS,
    jpeg_size,
    opened,
    orientation,
    read,
    refuse_large,
)

Box = tuple[int, int, int, int]
"""(top, left, height, width) in pixels"""

END = b"\xff\xd9"
BASELINE = frozenset((0xC0, 0xC1))
START_OF_SCAN = 0xDA
SEGMENTS = frozenset(range(0xC0, 0xFF)) - frozenset(range(0xD0, 0xDA))
FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
WORTHWHILE_ROWS = 32
"""fewer rows than this are decoded with the rest: finding the header's fields costs as much"""


def decode(path: Path | str, upright: bool = False) -> np.ndarray:
    """The image as uint8 (H, W, 3) RGB, to the bit what Pillow's convert("RGB") gives.

    As torchvision's ImageFolder loads it, or turned by its EXIF tag if `upright`, as viewers,
    detectron2 and OpenCV show it. Raises UnreadableImage.
    """
    return decode_box(path, whole, upright)


def decode_box(
    path: Path | str, choose_box: Callable[[int, int], Box], upright: bool = False
) -> np.ndarray:
    """The pixels of one box of an image: `decode(path)` cut to `choose_box(height, width)`.

    Returns uint8 (h, w, 3). JPEG rows below the box are not decoded where that saves
    time, so damage that lies wholly below it can pass; a truncated file never does. Raises
    UnreadableImage.
    """
    data = read(path)
    if upright and (turn := orientation(data)) > 1:
        image = turned(pixels_of(data, path, whole), turn)
        return np.ascontiguousarray(cut(image, choose_box(*image.shape[:2])))
    return pixels_of(data, path, choose_box)


def pixels_of(data: bytes, path: Path | str, choose_box: Callable[[int, int], Box]) -> np.ndarray:
    """A box of the image in `data`, as it is stored."""
    size = jpeg_size(data)
    if size is None:
        return decode_with_pillow(data, path, choose_box)
    refuse_large(path, size, data)
    box = choose_box(*size)
    pixels = decode_jpeg_rows(data, size[0], bottom=box[0] + box[2])
    if pixels is None:
        return decode_with_pillow(data, path, lambda height, width: box)
    part = cut(pixels, box)
    # A view would keep the whole image, while others are decoded.
    return part.copy() if part.nbytes < pixels.nbytes / 8 else part


def whole(height: int, width: int) -> Box:
    return 0, 0, height, width


def cut(image: np.ndarray, box: Box) -> np.ndarray:
    """`box` of an image (H, W, ...), as a view."""
    top, left, height, width = box
    return image[top : top + height, left : left + width]


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image (H, W, ...) as its EXIF tag wants it shown (Exif 2.3, 4.6.4), as a view."""
    if orientation > 4:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def decode_with_pillow(
    data: bytes, path: Path | str, choose_box: Callable[[int, int], Box]
) -> np.ndarray:
    with opened(data, path) as image:
        image.load()
        top, left, height, width = choose_box(image.height, image.width)
        if (height, width) != (image.height, image.width):
            part: Image.Image = image.crop((left, top, left + width, top + height))
        else:
            part = image
        if height * width <= LARGE_PIXELS:
            return np.array(part.convert("RGB"))
        return by_strips(part)


def by_strips(image: Image.Image) -> np.ndarray:
    """A large image as uint8 (H, W, 3) RGB, without ever holding a third copy of it."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, LARGE_PIXELS // (4 * width))
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        pixels[top : top + rows] = np.asarray(strip.convert("RGB"))
    return pixels


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
