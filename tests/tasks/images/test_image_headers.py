"""What image files claim, and how they are turned; the right values are Pillow's own."""

import io
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import picture
from PIL import Image, ImageOps
from torchvision import transforms

from tasks.images import (
    UnreadableImage,
    decode,
    decode_box,
    eval_crop,
    header,
    heif,
    orientation,
    stored,
    stored_size,
)
from tasks.images.header import MOST_PIXELS


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(value: object) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = value
    return tags


def xmp(value: int) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="{value}"/>'.encode()


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    reasons = set()
    for look in (decode, stored, lambda file: decode_box(file, lambda height, width: (0, 0, 1, 1))):
        with pytest.raises(UnreadableImage) as error:
            look(path)
        reasons.add(error.value.reason)
    assert len(reasons) == 1
    return reasons.pop()


# Orientation

KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", range(1, 9))
def test_images_are_turned_as_pillow_turns_them(tmp_path: Path, kind: str, value: int) -> None:
    path = tmp_path / "image"
    path.write_bytes(encoded(picture(40, 56), kind, exif=exif(value)))
    with Image.open(path) as image:
        exact = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    with Image.open(path) as image:
        as_stored = np.asarray(image.convert("RGB"))  # TIFF: turned by Pillow itself
    upright = decode(path, upright=True)
    np.testing.assert_array_equal(upright, exact)
    np.testing.assert_array_equal(decode(path), as_stored)
    box = (3, 5, 20, 30)
    part = decode_box(path, lambda height, width: box, upright=True)
    np.testing.assert_array_equal(part, exact[3:23, 5:35])
    found = stored(path)
    assert found.upright == exact.shape[:2]
    assert stored_size(path.read_bytes()) == as_stored.shape[:2]
    if kind != "TIFF":
        assert found.orientation == value


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_in_xmp_counts_as_in_pillow(tmp_path: Path, kind: str) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp(8).decode(), zip=True)
    how = {"pnginfo": info} if kind == "PNG" else {"xmp": xmp(8)}
    data = encoded(picture(40, 56), kind, **how)
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif()[0x0112] == 8
    assert orientation(data) == 8


@pytest.mark.parametrize("value", [0, 9, 4711, (6, 6)])
def test_an_orientation_without_sense_turns_nothing(tmp_path: Path, value: object) -> None:
    tags = exif(value)
    data = encoded(picture(40, 56), "JPEG", exif=tags)
    assert orientation(data) in (1, 6)  # Pillow takes the first of several
    with Image.open(io.BytesIO(data)) as image:
        exact = np.asarray(ImageOps.exif_transpose(image))
    (tmp_path / "a.jpg").write_bytes(data)
    np.testing.assert_array_equal(decode(tmp_path / "a.jpg", upright=True), exact)


def test_damaged_tags_turn_nothing(tmp_path: Path) -> None:
    data = encoded(picture(40, 56), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f rubbish")
    assert orientation(data) == 1
    assert orientation(b"") == orientation(b"\xff\xd8 Exif\0\0") == 1


# Size


def jpeg_claiming(height: int, width: int, **options: object) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (16, 16), "red"), "JPEG", **options))
    at = next(i for i in range(len(data)) if data[i : i + 2] in (b"\xff\xc0", b"\xff\xc2"))
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def png(height: int, width: int, rows: bytes, depth: int = 8, colour: int = 2) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, body)
        for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    )


def webp_claiming(height: int, width: int) -> bytes:
    body = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0"
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body += encoded(Image.new("RGB", (16, 16)), "WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def lossy_webp_claiming(height: int, width: int) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (16, 16)), "WEBP"))
    assert data[12:16] == b"VP8 "
    data[26:30] = struct.pack("<HH", width, height)
    return bytes(data)


def jpeg_2000_claiming(height: int, width: int, **options: object) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (16, 16)), "JPEG2000", **options))
    at = data.find(b"\xff\x51")
    data[at + 6 : at + 14] = data[at + 22 : at + 30] = struct.pack(">II", width, height)
    at = data.find(b"ihdr")
    if at >= 0:
        data[at + 4 : at + 12] = struct.pack(">II", height, width)
    return bytes(data)


BOMBS = {
    "jpeg": (jpeg_claiming(20000, 20000), "claims 400 megapixels (20,000 x 20,000) in "),
    "largest jpeg": (jpeg_claiming(65500, 65500), "claims 4,290 megapixels (65,500 x 65,500) in "),
    "progressive": (jpeg_claiming(12000, 12000, progressive=True), "which cannot hold them"),
    "below the limit": (jpeg_claiming(13000, 13000), "claims 169 megapixels (13,000 x 13,000) in "),
    "small": (jpeg_claiming(3000, 3000), "claims 9 megapixels (3,000 x 3,000) in "),
    "png": (png(30000, 30000, b""), "claims 900 megapixels"),
    "png below the limit": (png(13000, 13000, b"\0" * 99), "which cannot hold them"),
    "webp": (webp_claiming(16384, 16384), "claims 268.4 megapixels (16,384 x 16,384) in "),
    "lossy webp": (lossy_webp_claiming(16383, 16383), "claims 268.4 megapixels (16,383 x 16,383)"),
    "lossy webp below the limit": (lossy_webp_claiming(13000, 13000), "which cannot hold them"),
    "jpeg 2000": (jpeg_2000_claiming(60000, 60000), "claims 3,600 megapixels"),
    "codestream": (jpeg_2000_claiming(60000, 60000, no_jp2=True), "claims 3,600 megapixels"),
    "blank webp": (webp_claiming(13000, 13000), "which no picture needs"),
    "blank jpeg 2000": (jpeg_2000_claiming(13000, 13000), "which no picture needs"),
    "padded webp": (webp_claiming(13000, 13000) + bytes(200_000), "bytes of 200,"),
    "padded jpeg 2000": (jpeg_2000_claiming(13000, 13000) + bytes(200_000), "bytes of 200,"),
    "padded codestream": (
        jpeg_2000_claiming(13000, 13000, no_jp2=True) + b"\xff\xd9" + bytes(200_000),
        "the others not being of its picture",
    ),
    "blank codestream": (jpeg_2000_claiming(13000, 13000, no_jp2=True), "which no picture needs"),
    "gif": (
        encoded(Image.new("P", (4, 4)), "GIF").replace(b"\x04\0\x04\0", b"\xff\xff\xff\xff"),
        "claims 4,295 megapixels",
    ),
    "bmp": (
        encoded(Image.new("L", (4, 4)), "BMP").replace(
            struct.pack("<II", 4, 4), struct.pack("<II", 40000, 40000)
        ),
        "claims 1,600 megapixels",
    ),
    "ppm": (b"P6 40000 40000 255\n", "claims 1,600 megapixels"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_sizes_are_judged_before_memory_is_asked_for(tmp_path: Path, kind: str) -> None:
    data, why = BOMBS[kind]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert why in refused(tmp_path / "bomb.jpg", data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB


def test_what_is_blank_and_within_the_limits_is_read(tmp_path: Path) -> None:
    """The smallest code for the most pixels that encoders reach stays below what is possible."""
    blank = Image.new("L", (3000, 2000), 255)
    for kind, options in (
        ("JPEG", {"optimize": True, "quality": 1}),
        ("JPEG", {"optimize": True, "quality": 1, "progressive": True}),
        ("PNG", {"optimize": True}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 0}),
        ("JPEG2000", {}),
    ):
        path = tmp_path / "blank"
        path.write_bytes(encoded(blank, kind, **options))
        assert decode(path).min() == 255
    path.write_bytes(encoded(blank.convert("1"), "PNG", optimize=True))
    assert decode(path).shape == (2000, 3000, 3)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "RGB"])
def test_large_images_have_the_pixels_of_small_ones(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image"
    path.write_bytes(encoded(picture(90, 70).convert(mode), "TIFF" if mode == "CMYK" else "PNG"))
    exact = decode(path)
    monkeypatch.setattr("tasks.images.decoding.LARGE_PIXELS", 1000)
    np.testing.assert_array_equal(decode(path), exact)
    np.testing.assert_array_equal(decode_box(path, lambda h, w: (9, 8, 70, 60)), exact[9:79, 8:68])


@pytest.mark.parametrize("shape", [(3, 700), (900, 2), (1, 500), (40, 11234)])
@pytest.mark.parametrize(("size", "crop_ratio"), [(224, 0.875), (32, 0.875), (64, 1.0)])
def test_the_middle_of_a_long_image_is_what_torchvision_leaves(
    shape: tuple[int, int], size: int, crop_ratio: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    how = transforms.Resize(int(size / crop_ratio), transforms.InterpolationMode.BICUBIC)
    exact = transforms.PILToTensor()(transforms.CenterCrop(size)(how(image)))
    assert torch.equal(eval_crop(image, size, crop_ratio), exact)
    monkeypatch.setattr("tasks.images.crops.MOST_RESIZED", 0)
    cut = eval_crop(image, size, crop_ratio)
    assert (cut.int() - exact.int()).abs().max() <= 2
    assert (cut != exact).float().mean() < 0.01


def test_a_row_of_60000_pixels_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "row.png"
    Image.fromarray(np.full((1, 60000, 3), 100, np.uint8)).save(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (eval_crop(path, 224, 0.875) == 100).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB


# Depth


def test_more_than_eight_bits_are_refused_with_the_number(tmp_path: Path) -> None:
    deep = {
        "png of colours": png(2, 2, bytes(2 * 13), depth=16, colour=2),
        "png with alpha": png(2, 2, bytes(2 * 17), depth=16, colour=6),
        "png of greys with alpha": png(2, 2, bytes(2 * 9), depth=16, colour=4),
        "png of greys": png(2, 2, bytes(2 * 5), depth=16, colour=0),
        "ppm": b"P6 2 2 65535\n" + bytes(24),
        "plain ppm": b"P3 1 1 1000\n 900 800 700\n",
        "pgm": b"P5 2 2 65535\n" + bytes(8),
        "tiff": tiff_of_16_bits(),
    }
    for kind, data in deep.items():
        assert refused(tmp_path / "deep.png", data) == "has 16 bits a channel; expected 8", kind
    real = encoded(Image.new("F", (4, 4)), "TIFF")
    assert refused(tmp_path / "f.tif", real) == "has 32 bits a channel; expected 8"


def tiff_of_16_bits() -> bytes:
    """Two RGB pixels of 16 bits, little endian."""
    entries = [
        (256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, 128), (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, 12),
    ]  # fmt: skip
    body = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    body += b"".join(struct.pack("<HHII", *entry) for entry in entries) + struct.pack("<I", 0)
    assert len(body) <= 122
    return body.ljust(122, b"\0") + struct.pack("<HHH", 16, 16, 16) + bytes(range(12))


def test_eight_bits_and_fewer_are_read(tmp_path: Path) -> None:
    path = tmp_path / "image"
    for data in (
        png(2, 2, b"\0\x80" * 2, depth=4, colour=0),
        b"P6 1 1 31\n\x1f\x1f\x1f",
        encoded(picture(20, 20), "JPEG2000"),
        encoded(picture(20, 20), "GIF"),
    ):
        path.write_bytes(data)
        with Image.open(path) as image:
            np.testing.assert_array_equal(decode(path), np.asarray(image.convert("RGB")))


# Formats


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "is an EPS or PostScript"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page or another text"),
        (b"%PDF-1.7", "is a PDF file"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "is a HEIC file, which is not read; pip install"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (b"rubbish", "is not an image in any known format"),
        (b"\0\0\0\x18ftypavif" + bytes(40), "is an AVIF file that cannot be decoded"),
    ],
)
def test_other_formats_are_named_and_never_opened(
    tmp_path: Path, data: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: object, **how: object) -> None:
        raise AssertionError("an outside program is started")

    monkeypatch.setattr(subprocess, "Popen", forbidden)
    monkeypatch.setattr(heif, "AVAILABLE", False)
    assert why in refused(tmp_path / "a.jpg", data)


def test_a_huge_file_that_is_no_image_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(header.MOST_BYTES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableImage, match="is not an image in any known format"):
        decode(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB
    with path.open("wb") as file:
        file.truncate(header.MOST_BYTES + 1)
    with pytest.raises(UnreadableImage, match=r"bytes; expected at most 1,073,741,824"):
        decode(path)


def test_a_large_file_that_is_an_image_is_read(tmp_path: Path) -> None:
    path = tmp_path / "padded.jpg"
    with path.open("wb") as file:
        file.write(encoded(picture(20, 30), "JPEG"))
        file.truncate(header.LARGE_BYTES + 1)
    assert decode(path).shape == (20, 30, 3)


def test_the_limit_is_pillows(tmp_path: Path) -> None:
    code = "from PIL import Image; print(2 * Image.MAX_IMAGE_PIXELS)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == MOST_PIXELS
