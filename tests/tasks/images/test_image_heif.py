"""HEIC: read as pillow-heif reads it where that is installed, and else named with what to do."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.classification.layout import read
from tasks.images import decode, heif
from tasks.images.header import UnreadableImage, stored
from tasks.images.walk import OWN_SUFFIXES, SUFFIXES, walk

pillow_heif = pytest.importorskip("pillow_heif")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photograph of 48 x 32 pixels, which its EXIF tag would turn once more."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    image = Image.fromarray(pixels.repeat(8, 0).repeat(8, 1))
    exif = Image.Exif()
    exif[0x0112] = 6
    heif.tell_pillow()
    image.save(tmp_path / "a.heic", quality=95, exif=exif.tobytes())
    return tmp_path / "a.heic"


def test_it_is_decoded_as_by_pillow_heif(photo: Path) -> None:
    theirs = pillow_heif.open_heif(photo, convert_hdr_to_8bit=False)
    np.testing.assert_array_equal(decode(photo), np.asarray(theirs.to_pillow().convert("RGB")))
    np.testing.assert_array_equal(decode(photo, upright=True), decode(photo))  # it is turned once
    found = stored(photo)
    assert (found.height, found.width) == decode(photo).shape[:2]
    assert found.orientation == 1


def test_among_ones_own_images_alone(photo: Path) -> None:
    assert walk([photo.parent], OWN_SUFFIXES).names == [["a.heic"]]
    assert walk([photo.parent], SUFFIXES).names == [[]]


def test_a_folder_of_phone_photographs(tmp_path: Path) -> None:
    heif.tell_pillow()
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            image = Image.new("RGB", (16, 16), (40 * number, 90, ord(name[0])))
            image.save(tmp_path / "photos" / name / f"{number}.HEIC")
    data = read("folder", tmp_path / "photos")
    assert (len(data.train), len(data.val)) == (4, 2)
    assert decode(data.val.path(0)).shape == (16, 16, 3)


def test_a_damaged_one_is_unreadable_in_one_line(photo: Path) -> None:
    photo.write_bytes(photo.read_bytes()[:300])
    with pytest.raises(UnreadableImage, match="cannot be decoded"):
        decode(photo)


def test_more_than_eight_bits_are_refused_as_elsewhere(tmp_path: Path) -> None:
    """The reader would cut them down to 8 without a word."""
    deep = np.random.default_rng(0).integers(0, 65536, (32, 32, 3), np.uint16)
    made = pillow_heif.from_bytes("RGB;16", (32, 32), deep.tobytes())
    made.save(tmp_path / "deep.heic")
    with pytest.raises(UnreadableImage, match=r"has 1[02] bits a channel; expected 8"):
        decode(tmp_path / "deep.heic")


def test_without_the_package_it_is_named(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heif, "AVAILABLE", False)
    with pytest.raises(
        UnreadableImage, match=r"which is not read; pip install 'mae-bench\[heif\]'"
    ):
        decode(photo)
