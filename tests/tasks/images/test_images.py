"""Finding and decoding image files: the bits that Pillow and torchvision's ImageFolder give."""

import io
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from pictures import HEIGHT, WIDTH, picture
from PIL import Image
from torchvision.datasets.folder import pil_loader

from tasks.errors import TaskError
from tasks.images import FileNames, UnreadableImage, decode, decode_box, decoding, walk_images
from tasks.images.files import Paths


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turbo(subsampling: str) -> bytes:
    """Subsamplings that Pillow does not write."""
    return simplejpeg.encode_jpeg(np.asarray(picture()), 85, "RGB", subsampling)


EXIF_ROTATED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
JPEGS = {
    "420": encoded(picture(), "JPEG", quality=90, subsampling="4:2:0"),
    "422": encoded(picture(), "JPEG", quality=90, subsampling="4:2:2"),
    "444": encoded(picture(), "JPEG", quality=100, subsampling="4:4:4"),
    "440": turbo("440"),
    "411": turbo("411"),
    "rgb": encoded(picture(), "JPEG", keep_rgb=True),
    "grey": encoded(picture().convert("L"), "JPEG"),
    "restarts": encoded(picture(), "JPEG", restart_marker_blocks=3),
    "rotated": encoded(picture(), "JPEG", exif=EXIF_ROTATED),
    "commented": encoded(picture(), "JPEG", comment=b"\xff\xd9\xff\xda\xff\xc0 not markers"),
    "two pictures": encoded(
        picture(), "MPO", save_all=True, append_images=[picture(seed=1)]
    ),
    "progressive": encoded(picture(), "JPEG", progressive=True),
    "cmyk": encoded(picture().convert("CMYK"), "JPEG"),
}  # fmt: skip
OTHERS = {
    "png": encoded(picture(), "PNG"),
    "png of 1 bit": encoded(picture().convert("1"), "PNG"),
    "png grey": encoded(picture().convert("L"), "PNG"),
    "png palette": encoded(picture().convert("P"), "PNG"),
    "png alpha": encoded(picture().convert("RGBA"), "PNG"),
    "webp": encoded(picture(), "WEBP"),
    "bmp": encoded(picture(), "BMP"),
    "tiff": encoded(picture(), "TIFF"),
    "one pixel": encoded(picture(1, 1), "JPEG"),
    "narrow": encoded(picture(301, 3), "JPEG"),
}


# Finding files


def test_walk_images_is_sorted_recursive_and_knows_only_visible_images(tmp_path: Path) -> None:
    wanted = ["B.JPEG", "a.jpg", "n01/x.Png", "n01/y.webp", "n02/deep/z.bmp"]
    other = [
        "notes.txt",
        ".hidden.jpg",
        ".cache/c.jpg",
        "n01/jpg",
        "n01/.jpg",
        "n02/archive.jpg.zip",
    ]
    for name in wanted + other:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert walk_images(tmp_path) == wanted


def test_walk_images_follows_linked_folders(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.jpg").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "n01").symlink_to(tmp_path / "store", target_is_directory=True)
    assert walk_images(tmp_path / "data") == ["n01/a.jpg"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("missing", "does not exist"), ("file.jpg", "is a file"), ("empty", "holds no image")],
)
def test_walk_images_refuses_what_is_no_folder_of_images(
    tmp_path: Path, name: str, complaint: str
) -> None:
    (tmp_path / "file.jpg").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(TaskError, match=rf"{name} {complaint}; expected a folder with images") as e:
        walk_images(tmp_path / name)
    assert "\n" not in str(e.value)


def test_file_names_read_as_the_list_they_were_made_from() -> None:
    names = ["a/b.jpg", "äöü.png", "\udcff odd bytes.jpg", "c"]
    stored = FileNames(names)
    assert list(stored) == names
    assert stored[1:3] == names[1:3]
    assert len(stored) == 4
    assert list(stored.take(np.array([3, 0]))) == ["c", "a/b.jpg"]
    stored.sizes = np.arange(4)
    for there in (stored, FileNames.of_array(stored.as_array())):
        there.sizes = stored.sizes
        here = pickle.loads(pickle.dumps(there))
        assert list(here) == names
        assert here.sizes.tolist() == [0, 1, 2, 3]


def test_names_are_counted_by_their_first_folders() -> None:
    names = sorted(
        ["a", "a b/1", "a/1", "a/b/2", "a/c", "ab", "ab/x", "b.jpg", "é/1", "é/2", "\udcff/1"]
    )
    expected = Counter(name.partition("/")[0] if "/" in name else "." for name in names)
    assert FileNames(names).in_first_folders() == expected
    assert FileNames([]).in_first_folders() == {}
    assert FileNames(["x", "y"]).in_first_folders() == {".": 2}


def test_paths_are_those_of_each_folder_in_turn() -> None:
    paths = Paths({"/one": FileNames(["a", "b/c"]), "/none": FileNames([]), "two": FileNames("d")})
    expected = ["/one/a", "/one/b/c", "two/d"]
    assert list(paths) == expected
    assert [paths[row] for row in (-3, -2, -1)] == expected
    assert paths[1:] == expected[1:]
    assert paths[::-2] == expected[::-2]
    for row in (3, -4):
        with pytest.raises(IndexError, match="of 3 paths"):
            paths[row]
    assert list(pickle.loads(pickle.dumps(paths))) == expected


# Decoding


@pytest.mark.parametrize("kind", [*JPEGS, *OTHERS])
def test_decode_gives_the_pixels_of_imagefolder(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image"
    path.write_bytes((JPEGS | OTHERS)[kind])
    exact = np.asarray(pil_loader(path))
    assert decode(path).dtype == np.uint8
    np.testing.assert_array_equal(decode(path), exact)


@pytest.mark.parametrize("kind", JPEGS)
def test_rows_above_a_box_decode_to_the_same_bits_without_the_rows_below(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(JPEGS[kind])
    exact = np.asarray(pil_loader(path))
    for bottom in range(1, HEIGHT + 1):
        top, left = max(0, bottom - 9), bottom % WIDTH
        box = (top, left, bottom - top, WIDTH - left)
        part = decode_box(path, lambda height, width, box=box: box)
        np.testing.assert_array_equal(part, exact[top:bottom, left:])
    if kind != "cmyk":  # which is left to Pillow
        rows = decoding.decode_jpeg_rows(JPEGS[kind], HEIGHT, bottom=40)
        assert rows is not None
        assert len(rows) == (HEIGHT if kind == "progressive" else 42)


@pytest.mark.parametrize("kind", ["420", "grey", "restarts", "progressive", "two pictures"])
def test_truncated_jpegs_are_refused_exactly_where_pillow_refuses_them(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "cut.jpg"
    data = JPEGS[kind]
    rng = np.random.default_rng(0)
    near_the_end = range(len(data) - 12, len(data))
    for length in {*near_the_end, *range(1, 640, 29), *rng.integers(0, len(data), 40).tolist()}:
        path.write_bytes(data[:length])
        try:
            pil_loader(path)
            expected = True
        except (OSError, SyntaxError):
            expected = False
        assert opens(path, (0, 0, HEIGHT, WIDTH)) == expected, length
        assert opens(path, (0, 0, 20, 30)) == expected, length


def opens(path: Path, box: tuple[int, int, int, int]) -> bool:
    try:
        decode_box(path, lambda height, width: box)
    except UnreadableImage:
        return False
    return True


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"not an image", "is not an image in any known format"),
        (b"\xff\xd8\xff", "is not an image in any known format"),
        (JPEGS["420"][:3000], "cannot be decoded: .*[Tt]runcated"),
        (OTHERS["png"][:3000], "cannot be decoded: .*[Tt]runcated"),
        (OTHERS["png"][:60] + b"\0" * 99 + OTHERS["png"][159:], "cannot be decoded: "),
    ],
)
def test_unreadable_files_are_named_with_the_reason(
    tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=rf"bad\.jpg {why}") as error:
        decode(path)
    assert "\n" not in str(error.value)
    with pytest.raises(UnreadableImage, match=r"gone\.jpg cannot be read: No such file"):
        decode(tmp_path / "gone.jpg")


def test_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    """Pillow's conversion would turn nearly all of it white."""
    file = tmp_path / "deep.png"
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16).save(file)
    with pytest.raises(UnreadableImage, match=r"deep.png has 16 bits a channel; expected 8"):
        decode(file)
