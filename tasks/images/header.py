"""What an image file says of itself before it is decoded: its format, size, depth and rotation.

What a header claims is judged here, before memory is asked for.
"""

import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import simplejpeg
from PIL import ExifTags, Image, ImageFile

from backbones.files import open_regular
from tasks.errors import TaskError
from tasks.images import heif
from tasks.stores import find

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", "AVIF", "JPEG2000")
"""what Pillow may take a file for, whatever its name; others start programs (EPS), or have no mark
by which to be told from anything else"""

MOST_PIXELS = 2 * 89_478_485
"""of an image; Pillow's own limit, and so that of torchvision's ImageFolder"""
MOST_BYTES = 2**30
"""of an image file: more than `MOST_PIXELS` take in any of `FORMATS`"""
LARGE_PIXELS = 2**24
"""more than this are looked at twice, and held only once"""
LARGE_BYTES = 2**24
"""a file of more is read only if it begins like an image"""

JPEG, PNG, RIFF = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF"
JP2, CODE_STREAM = b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"
"""how JPEG 2000 begins, in a container and without"""
AVIF = (b"avif", b"avis")
"""the brands of AVIF images and sequences"""
LOSSY = b"VP8 "
"""the form of a WebP image"""
BLANK = 1024
"""pixels a byte of a large image whose format could hold any number"""
PLAUSIBLE = 32
"""pixels a byte up to which nothing more is asked"""
TAGS_WITHIN = 2**20
"""bytes at the start of a file in which tags are looked for; they come before JPEG's pixels"""
TURNS = range(2, 9)
"""values of the EXIF tag that ask for a rotation or reflection"""

LOOKS_LIKE = (
    (b"%!PS", "an EPS or PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "an EPS or PostScript file"),
    (b"%PDF", "a PDF file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a pointer of Git LFS, without the image (git lfs pull)"),
    (b"8BPS", "a Photoshop file"),
)
WEB_PAGE = re.compile(rb"\s*<(!doctype|html|head|svg|\?xml)", re.IGNORECASE)

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


# Its own limit is kept, and said; halfway to it Pillow would warn.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Said without the file's name, about tags that then turn nothing.
warnings.filterwarnings("ignore", "Corrupt EXIF data|Metadata Warning", module="PIL")


class UnreadableImage(TaskError):
    """An image file that cannot be read or decoded. The message is the file's path and why."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(path, reason)  # both travel from a loading process
        self.path = path
        self.reason = reason
        """without the path: "is empty (0 bytes); expected an image" """

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


class Stored(NamedTuple):
    """An image as it lies in its file."""

    height: int
    width: int
    orientation: int
    """1 as it is; 2 to 8: turned or mirrored (EXIF)"""

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) as a viewer shows it."""
        size = self.height, self.width
        return size[::-1] if self.orientation > 4 else size


def read(path: Path | str) -> bytes:
    """The bytes of an image file. Raises UnreadableImage."""
    try:
        member = find(path)
        if member is None:
            with open_regular(path, MOST_BYTES) as file:  # unbuffered: half the time
                if os.fstat(file.fileno()).st_size > LARGE_BYTES:
                    refuse_no_image(path, file.read(64))
                    file.seek(0)
                data = file.readall()
        else:
            if member.size > LARGE_BYTES:
                refuse_no_image(path, member.start(64))
            data = member.read(MOST_BYTES)
    except OSError as error:
        raise UnreadableImage(path, f"cannot be read: {error.strerror}") from error
    if not data:
        raise UnreadableImage(path, "is empty (0 bytes); expected an image")
    return data


def refuse_no_image(path: Path | str, start: bytes) -> None:
    """Raise UnreadableImage if a file begins like none of `FORMATS`."""
    Image.init()
    accepts = (Image.OPEN[name][1] for name in FORMATS if name in Image.OPEN)
    if heif.AVAILABLE and heif.is_heif(start):
        return
    if not any(accept is not None and accept(start[:16]) is True for accept in accepts):
        raise UnreadableImage(path, unknown(start))


def unknown(data: bytes) -> str:
    """Why a file is not read that is in none of `FORMATS`."""
    if heif.is_heif(data) and heif.AVAILABLE:
        return "is a HEIC file that cannot be decoded: it is damaged, or its coding is not known"
    if heif.is_heif(data):
        return f"is a HEIC file, which is not read; {heif.INSTALL}, or convert it to JPEG or PNG"
    if data[4:8] == b"ftyp" and data[8:12] in AVIF:
        return "is an AVIF file that cannot be decoded: it is damaged, or Pillow was built without"
    kinds = [kind for start, kind in LOOKS_LIKE if data.startswith(start)]
    if WEB_PAGE.match(data[:200]):
        kinds = ["a web page or another text"]
    known = "expected JPEG, PNG, WebP, AVIF, GIF, TIFF, BMP, PPM or JPEG 2000"
    return f"is {kinds[0]}; {known}" if kinds else f"is not an image in any known format; {known}"


def stored(path: Path | str) -> Stored:
    """Size and rotation of an image file by its header. Raises UnreadableImage.

    Decodes nothing but a PNG whose EXIF tags lie behind its pixels.
    """
    data = read(path)
    height, width = stored_size(data, path)
    return Stored(height, width, orientation(data))


def stored_size(data: bytes, path: Path | str = "the image") -> tuple[int, int]:
    """(height, width) of an image file's content, as Pillow stores it; see `opened`."""
    size = jpeg_size(data)
    if size is None:
        with opened(data, path) as image:
            return image.height, image.width
    refuse_large(path, size, data)
    return size


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a greyscale or three-colour JPEG; None if `data` is anything else."""
    if not data.startswith(JPEG):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return None if colours in ("CMYK", "YCCK") else (height, width)


@contextmanager
def opened(data: bytes, path: Path | str) -> Iterator[ImageFile.ImageFile]:
    """Pillow's image of a file's content, not yet decoded.

    Raises UnreadableImage, also for what is raised inside, if it is no image, damaged, larger than
    `MOST_PIXELS` or than its bytes can hold, or of more than 8 bits a channel.
    """
    try:
        claims = webp_size(data)
        if claims is not None:  # whose canvas Pillow asks memory for at once
            refuse_large(path, claims, data)
        kinds = heif.formats() if heif.is_heif(data) else ()
        with Image.open(io.BytesIO(data), formats=kinds or FORMATS) as image:
            refuse_large(path, (image.height, image.width), data)
            refuse_deep(path, image, data)
            yield image
    except UnreadableImage:
        raise
    except MemoryError:
        raise TaskError(
            f"{path} takes more memory to decode than there is; scale it down, or load with fewer "
            "--workers"
        ) from None
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(path, unknown(data)) from error
    except Image.DecompressionBombError as error:
        pixels = int("".join(re.findall(r"\d+", str(error))[:1]) or MOST_PIXELS + 1)
        raise UnreadableImage(path, too_large(pixels, "", len(data))) from error
    except (OSError, *DAMAGED) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(path, f"cannot be decoded: {reason}") from error


def webp_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a WebP image (RFC 9649, 2.5 to 2.7); None for others."""
    if data[:4] != RIFF or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    if data[12:16] == b"VP8X":
        width, height = data[24:27], data[27:30]
        return 1 + int.from_bytes(height, "little"), 1 + int.from_bytes(width, "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits >> 14) % 2**14, 1 + bits % 2**14
    if data[12:16] == LOSSY:
        width, height = struct.unpack_from("<HH", data, 26)
        return height % 2**14, width % 2**14
    return None


def refuse_large(path: Path | str, size: tuple[int, int], data: bytes) -> None:
    """Raise UnreadableImage for more pixels than are read, or than `data` can hold."""
    pixels = size[0] * size[1]
    if pixels <= PLAUSIBLE * len(data) and pixels <= LARGE_PIXELS:
        return
    sides = f" ({size[0]:,} x {size[1]:,})"
    if pixels > MOST_PIXELS:
        raise UnreadableImage(path, too_large(pixels, sides, len(data)))
    most = most_pixels(data)
    if pixels > most:
        held, whole = coded_bytes(data), len(data)
        other = f" of {whole:,}, the others not being of its picture" if held < whole else ""
        many = f"claims {pixels / 1e6:,.4g} megapixels{sides} in {held:,} bytes{other}"
        why = "which cannot hold them: it is damaged"
        if most == unbounded(data):
            why = f"which no picture needs; expected a byte for {BLANK:,} pixels at least"
        raise UnreadableImage(path, f"{many}, {why}")


def too_large(pixels: int, sides: str, size: int) -> str:
    return (
        f"claims {pixels / 1e6:,.4g} megapixels{sides} in {size:,} bytes; expected at most "
        f"{MOST_PIXELS / 1e6:,.0f}: scale it down"
    )


def most_pixels(data: bytes) -> float:
    """Pixels that the bytes of an image can hold at most, by its way of compression.

    JPEG's code words take a bit at least for each 8 x 8 block (ITU T.81, F.1.2), unless the coding
    is arithmetic; a byte of PNG's deflate unpacks to 1032 at most (zlib, algorithm.txt); the modes
    of a 16 x 16 block of a lossy WebP take a bit at least (RFC 6386, 11.2). Lossless WebP, JPEG
    2000 and others have no such bound: a blank image of any size takes a few bytes, and up to 18 a
    pixel when it is decoded. Ours for the large of them is far from what any picture takes.
    """
    if data.startswith(JPEG):
        arithmetic = any(b"\xff" + bytes([kind]) in data for kind in (0xC9, 0xCA, 0xCD, 0xCE))
        return unbounded(data) if arithmetic else 8 * 64 * len(data)
    if data.startswith(PNG):
        channels = {2: 3, 4: 2, 6: 4}.get(data[25], 1)
        return 8 * 1032 * len(data) / max(1, data[24] * channels)
    if data.startswith(RIFF) and data[12:16] == LOSSY:
        return 8 * 16 * 16 * len(data)
    return unbounded(data)


def unbounded(data: bytes) -> int:
    """What is taken for possible where a format has no bound."""
    return max(LARGE_PIXELS, BLANK * coded_bytes(data))


def coded_bytes(data: bytes) -> int:
    """Bytes that may hold pixels: of a WebP file those of its container (RFC 9649, 2.3), of JPEG
    2000 those from the first tile to the end of the code stream, whose mark no tile contains (ITU
    T.800, A.4 and B.10.1). Readers pass over what comes behind."""
    if data.startswith(RIFF):
        return min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    if not data.startswith((CODE_STREAM, JP2)):
        return len(data)
    start = max(0, data.find(b"\xff\x90", max(0, data.find(CODE_STREAM))))
    end = data.find(b"\xff\xd9", start)
    return (len(data) if end < 0 else end) - start


def refuse_deep(path: Path | str, image: ImageFile.ImageFile, data: bytes) -> None:
    """Raise UnreadableImage for more than 8 bits a channel.

    Pillow cuts such colours down to 8 bits without a word, and grey values off at 255.
    """
    depth = 8
    if image.format == "PNG":
        depth = data[24]
    elif image.format == "TIFF":
        depth = max(image.tag_v2.get(258, (1,)))  # type: ignore[attr-defined] # BitsPerSample
    elif image.format == "JPEG2000":
        at = data.find(CODE_STREAM)
        depth = 1 + data[at + 42] % 128 if 0 <= at < len(data) - 42 else 8
    elif image.format == heif.FORMAT:
        depth = image.info.get("bit_depth", 8)
    elif image.format == "PPM" and image.tile:
        args = image.tile[0].args
        maxval = args[-1] if isinstance(args, tuple) else 255
        deep = image.mode == "I" or (isinstance(maxval, int) and maxval > 255)
        depth = 16 if deep else 8
    if depth > 8:
        raise UnreadableImage(path, f"has {depth} bits a channel; expected 8")
    if image.mode[0] in "IF":
        what = f"has more than 8 bits a channel (mode {image.mode}); expected 8"
        raise UnreadableImage(path, what)


def orientation(data: bytes) -> int:
    """How an image file's tags turn it, as Pillow's exif_transpose and detectron2 read them.

    1 for no tag, one that makes no sense, and for TIFF and HEIC, which are turned by their readers.
    """
    if data.startswith(JPEG):
        marks: tuple[bytes, ...] = (b"Exif\0\0", b"tiff:Orientation")
    elif data.startswith(PNG):
        marks = (b"eXIf", b"Raw profile type", b"XML:com.adobe")
    elif data.startswith(RIFF):
        marks = (b"EXIF", b"XMP ")
    else:
        marks = (b"",)
    if all(data.find(mark, 0, TAGS_WITHIN) < 0 for mark in marks):
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            refuse_large("", (image.height, image.width), data)
            if image.format == "TIFF":
                return 1
            value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, TaskError, *DAMAGED):
        return 1  # what is wrong with it is seen when it is decoded
    return value if isinstance(value, int) and value in TURNS else 1
