"""Label images to class indices, against hand-made files and mmsegmentation's own loading."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ade20k_files import OFFICIAL, save_label, stripes
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image
from small_worlds import draw

from tasks.ade20k.classes import ClassRule
from tasks.ade20k.labels import read_label
from tasks.ade20k.layout import read
from tasks.images import UnreadableImage

OWN = ClassRule(("road", "car", "tree"), ignore_index=9, zero_is_unlabelled=False)


def mmseg_label(path: Path, reduce_zero_label: bool) -> np.ndarray:
    results: dict[str, Any] = {
        "seg_map_path": str(path),
        "reduce_zero_label": reduce_zero_label,
        "seg_fields": [],
    }
    return LoadAnnotations().transform(results)["gt_seg_map"]


def refused(path: Path, rule: ClassRule = OFFICIAL) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read_label(path, rule)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def grey_png(path: Path, depth: int, size: int = 8) -> Path:
    """A grey PNG of `depth` bits a pixel, all zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", size, size, depth, 0, 0, 0, 0)
    rows = bytes(1 + size * depth // 8) * size
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def test_the_official_rule(tmp_path: Path) -> None:
    path = save_label(tmp_path / "a.png", stripes((0, 1, 2, 150, 255)))
    found = read_label(path, OFFICIAL)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, stripes((255, 0, 1, 149, 255)))


def test_every_official_value_is_what_mmseg_makes_of_it(tmp_path: Path) -> None:
    values = [*range(151), 255]
    path = save_label(tmp_path / "a.png", stripes(values, width=608))
    np.testing.assert_array_equal(read_label(path, OFFICIAL), mmseg_label(path, True))


def test_a_palette_is_not_looked_up(tmp_path: Path) -> None:
    values = stripes((0, 1, 2, 150))
    image = Image.fromarray(values).convert("P")
    image = Image.frombytes("P", image.size, values.tobytes())
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    path = tmp_path / "a.png"
    image.save(path)
    with Image.open(path) as saved:
        assert saved.mode == "P"
    np.testing.assert_array_equal(read_label(path, OFFICIAL), stripes((255, 0, 1, 149)))
    np.testing.assert_array_equal(read_label(path, OFFICIAL), mmseg_label(path, True))


def test_a_small_palette_is_stored_in_fewer_bits(tmp_path: Path) -> None:
    image = Image.frombytes("P", (60, 40), stripes((0, 1, 2)).tobytes())
    image.putpalette([9, 9, 9, 80, 0, 0, 0, 99, 0])
    path = tmp_path / "a.png"
    image.save(path, bits=2)
    assert path.read_bytes()[24] == 2
    np.testing.assert_array_equal(read_label(path, OFFICIAL), stripes((255, 0, 1)))


def test_a_rule_of_ones_own(tmp_path: Path) -> None:
    path = save_label(tmp_path / "a.png", stripes((0, 1, 2, 9)))
    np.testing.assert_array_equal(read_label(path, OWN), stripes((0, 1, 2, 255)))
    np.testing.assert_array_equal(mmseg_label(path, False), stripes((0, 1, 2, 9)))
    shifted = ClassRule(("road", "car"), ignore_index=9)
    np.testing.assert_array_equal(read_label(path, shifted), stripes((255, 0, 1, 255)))


def test_255_classes(tmp_path: Path) -> None:
    rule = ClassRule(tuple(map(str, range(255))), zero_is_unlabelled=False)
    path = save_label(tmp_path / "a.png", stripes((0, 254, 255)))
    np.testing.assert_array_equal(read_label(path, rule), stripes((0, 254, 255)))


def test_values_that_no_class_has(tmp_path: Path) -> None:
    path = save_label(tmp_path / "a.png", stripes((0, 1, 151)))
    said = refused(path)
    expected = "expected 0 for unlabelled, 1 to 150 for the 150 classes, 255 for pixels to ignore"
    assert said == f"{path} has the value 151; {expected}"
    save_label(path, stripes((0, 3, 4, 9, 255)))
    said = refused(path, OWN)
    expected = "expected 0 to 2 for the 3 classes, 9 for pixels to ignore"
    assert said == f"{path} has the value 3 and 2 more such values; {expected}"


def test_one_pixel_that_is_wrong(tmp_path: Path) -> None:
    values = stripes((1, 2))
    values[17, 33] = 254
    assert "has the value 254; expected" in refused(save_label(tmp_path / "a.png", values))


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("RGB", "is an image of mode RGB"),
        ("RGBA", "is an image of mode RGBA"),
        ("LA", "is an image of mode LA"),
    ],
)
def test_other_kinds_of_images(tmp_path: Path, mode: str, said: str) -> None:
    path = tmp_path / "a.png"
    Image.new(mode, (6, 4)).save(path)
    assert said in refused(path)
    assert "; expected a PNG, grey or with a palette, of the values" in refused(path)


@pytest.mark.parametrize("depth", [2, 4])
def test_grey_of_fewer_bits(tmp_path: Path, depth: int) -> None:
    """Pillow would read 1 of 4 bits as 17."""
    path = grey_png(tmp_path / "a.png", depth)
    assert f"is a grey image of {depth} bits" in refused(path)
    assert not read_label(grey_png(path, 8), OWN).any()


def test_a_lossy_file_by_another_name(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(stripes((0, 1))).save(path, "JPEG")
    assert "is a JPEG file; expected a PNG" in refused(path)


def test_damaged_files(tmp_path: Path) -> None:
    path = save_label(tmp_path / "a.png", np.random.default_rng(0).integers(1, 99, (90, 90), "u1"))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "cannot be decoded: " in refused(path)
    path.write_bytes(data[:20])
    refused(path)
    path.write_bytes(b"GIF")
    assert "is not an image in any known format" in refused(path)
    path.write_bytes(b"")
    assert "is empty (0 bytes)" in refused(path)
    path.unlink()
    assert "cannot be read: No such file or directory" in refused(path)


def test_the_miniature_twin(tmp_path: Path) -> None:
    data = read(draw(tmp_path / "w", ade20k_train=3, ade20k_val=1) / "ade20k")
    for index in range(3):
        path = data.train.label_path(index)
        found = read_label(path, data.rule)
        np.testing.assert_array_equal(found, mmseg_label(path, True))
        assert found[found != 255].max() < len(data.classes)


def test_one_bit_is_zero_and_one(tmp_path: Path) -> None:
    """As mmsegmentation reads it; Pillow's own bytes are 0 and 255."""
    mask = stripes((0, 1)).astype(bool)
    path = tmp_path / "a.png"
    Image.fromarray(mask).save(path)
    with Image.open(path) as image:
        assert (image.mode, image.info.get("transparency")) == ("1", None)
    np.testing.assert_array_equal(read_label(path, OWN), mask)
    np.testing.assert_array_equal(read_label(path, OWN), mmseg_label(path, False))


def test_sixteen_bits_that_fit_in_eight(tmp_path: Path) -> None:
    values = stripes((0, 1, 2, 150, 255))
    path = tmp_path / "a.png"
    Image.fromarray(values.astype(np.uint16)).save(path)
    found = read_label(path, OFFICIAL)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, mmseg_label(path, True))
    Image.fromarray(values.astype(np.uint16) * 100).save(path)
    assert "has 16 bits and values above 255; expected values that fit" in refused(path)


@pytest.mark.parametrize("colours", [2, 4, 16, 256])
def test_palettes_of_fewer_bits(tmp_path: Path, colours: int) -> None:
    """Pillow writes 1, 2, 4 or 8 bits a pixel, as many as the palette takes."""
    values = stripes(range(min(colours, 3)))
    image = Image.fromarray(values).convert("P")
    image = Image.frombytes("P", image.size, values.tobytes())
    image.putpalette(np.random.default_rng(1).integers(0, 256, 3 * colours, "u1").tobytes())
    path = tmp_path / "a.png"
    image.save(path, bits={2: 1, 4: 2, 16: 4, 256: 8}[colours])
    assert path.read_bytes()[24] == {2: 1, 4: 2, 16: 4, 256: 8}[colours]
    np.testing.assert_array_equal(read_label(path, OWN), values)


def test_an_animation(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    frames = [Image.fromarray(stripes(values)) for values in ((0, 1), (1, 0))]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert "is an animation; expected a PNG" in refused(path)
