"""Annotations that are kept for the next process: the same as those that are read."""

import json
import os
import pickle
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_files import CATEGORIES, SQUARE, content, image, small, thing, write
from pycocotools import mask as mask_api

from tasks.coco import keeping
from tasks.coco.layout import CocoData, read
from tasks.coco.rings import Rings, measure
from tasks.coco.segmentation import pack
from tasks.columns import decoded
from tasks.errors import TaskError
from tasks.identity import of_split

HALF = {"size": [40, 60], "counts": [1200, 1200]}
RIGHT = {"segmentation": HALF, "bbox": [30, 0, 30, 40]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for what is kept, which here small files are, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(keeping, "LEAST_BYTES", 0)


def everything(data: CocoData) -> dict[str, Any]:
    """All that a data set says."""
    splits = {"train": data.train, "val": data.val, "all": data.all_train}
    return {
        "data": replace(data, **dict.fromkeys(("train", "val", "all_train"))).__dict__,
        "names": {name: list(split.names) for name, split in splits.items()},
        "roots": {name: split.root for name, split in splits.items()},
        "of_split": {name: of_split(split, data.classes) for name, split in splits.items()},
        "annotations": {
            name: [split.annotations(row) for row in range(len(split))]
            for name, split in splits.items()
        },
    }


def boxes_alone(root: Path) -> Path:
    return small(root, [thing(1, 1, segmentation=None), thing(2, 2, segmentation=None)])


def odd(root: Path) -> Path:
    """Crowds, odd polygons, spellings, names and classes."""
    named = [*CATEGORIES, {"id": 9, "name": "ü\ud800"}]
    images = [image(1) | {"file_name": "ä/é 1.jpg"}, image(2), image(3), image(4)]
    annotations = [
        thing(1, 1, iscrowd=1, **RIGHT),
        thing(2, 1, segmentation=[SQUARE[0], [1, 1, 2, 2], [5, 5, 9, 5, 9, 9.5]]),
        thing(3, 1, category_id=9, iscrowd=False),
        thing("4", 2, area=None, ignore=1),
        thing(5, 2, bbox=None),
        thing(6, 3, segmentation=[[1, 1, 2, 2]]),
        thing(7, 3, bbox=[10, 10, 20, 0]),
        thing(8, 4, iscrowd=1, **RIGHT),
    ]
    small(root)
    write(root, "train", content(images, annotations, named))
    write(root, "val", content([image(3)], [thing(9, 3), thing(10, 3)], named))
    return root


@pytest.mark.parametrize("make", [small, boxes_alone, odd])
def test_what_is_kept_is_what_is_read(
    make: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path / "data")
    with monkeypatch.context() as without:
        without.setattr(keeping, "LEAST_BYTES", 2**60)
        expected = everything(read(root))
    np.testing.assert_equal(everything(read(root)), expected)
    monkeypatch.setattr(keeping, "read_pair", None)  # it is not read again
    np.testing.assert_equal(everything(read(root)), expected)
    assert list(everything(read(root))["data"]["counts"]) == list(expected["data"]["counts"])


def test_of_the_miniature_world_too(coco_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setattr(keeping, "LEAST_BYTES", 2**60)
        expected = everything(read(coco_world / "coco"))
    read(coco_world / "coco")
    monkeypatch.setattr(keeping, "read_pair", None)
    np.testing.assert_equal(everything(read(coco_world / "coco")), expected)


def test_an_annotation_file_that_is_written_anew_is_read_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one of the same size and time of writing."""
    root = small(tmp_path / "data")
    file = root / "annotations/instances_train2017.json"
    first = read(root)
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_text(file.read_text().replace('"category_id": 3', '"category_id": 7'))
    os.utime(file, ns=times)
    second = read(root)
    assert "the data have changed since" in capsys.readouterr().err
    assert second.fingerprint != first.fingerprint
    assert [each["label"] for each in second.train.annotations(0)] == [1]


def test_the_images_are_looked_at_all_the_same(tmp_path: Path) -> None:
    root = small(tmp_path / "data")
    first = read(root)
    (root / "train2017/0001.jpg").write_bytes((root / "train2017/0002.jpg").read_bytes())
    assert read(root).fingerprint != first.fingerprint
    (root / "train2017/0001.jpg").unlink()
    with pytest.raises(TaskError, match=r"1 of 2 images named in .* are missing"):
        read(root)


def test_sizes_that_only_the_images_tell_are_not_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = small(tmp_path / "data")
    file = root / "annotations/instances_train2017.json"
    file.write_text(file.read_text().replace('"height": 40, "width": 60', '"height": 0'))
    assert read(root).train.sizes.tolist() == [[40, 60], [40, 60]]
    assert "read at every start, since they say nothing of the sizes" in capsys.readouterr().err
    assert read(root).counts["train images without width and height (taken from the files)"] == 2


def test_a_kept_split_travels_as_a_place(tmp_path: Path) -> None:
    root = small(tmp_path / "data", [thing(number, 1) for number in range(1, 400)])
    read(root)
    split = read(root).all_train
    sent = pickle.dumps(split)
    assert len(sent) < len(split.packed)
    np.testing.assert_equal(pickle.loads(sent).annotations(0), split.annotations(0))


def test_more_run_lengths_than_pycocotools_counts_at_once(tmp_path: Path) -> None:
    """Its `area` of more than 255 fails."""
    root = small(tmp_path, [thing(n, 1 + n % 2, **RIGHT) for n in range(1, 600)])
    assert len(read(root).train.annotations(0)) == 299


# What reads quickly reads as what reads one by one


def odd_values(rng: np.random.Generator) -> list[Any]:
    """Segmentations, most of them ordinary."""
    fine = [
        [rng.uniform(0, 400, 2 * rng.integers(3, 30)).tolist() for _ in range(rng.integers(1, 4))]
        for _ in range(60)
    ]
    far, line = [[0, 0, 1e5, 3, 9, 9]], [[1, 1, 2, 2, 3, 3]]
    long = [rng.uniform(0, 400, 500).tolist()]
    more: list[Any] = [None, [], {}, "x", 5, far, line, long, [[]], [None], [["a"] * 6], HALF]
    more += [[SQUARE[0], [1, 2]], [[float("nan")] * 6], [[1, 2, 3, 4, 5]], [[True] * 6]]
    more += [[[10**400] * 6], [{"a": 1}], [SQUARE[0], "abc"], [[2**70, 0, 1, 1, 0, 2]]]
    more += [[[0, 0, 1e-5, 0, 0, 1e-5]], [SQUARE[0][:6], SQUARE[0][:5]]]
    values = [*fine, *more]
    return [values[row] for row in rng.permutation(len(values))]


def packed_of(rings: Rings) -> list[list[bytes]]:
    parts = iter(rings.parts())
    return [list(islice(parts, count)) for count in rings.counts.tolist()]


@pytest.mark.parametrize("seed", range(3))
def test_ordinary_polygons_are_packed_as_one_by_one(seed: int) -> None:
    values = odd_values(np.random.default_rng(seed))
    sizes = np.tile([[480, 640], [427, 640]], (len(values), 1))[: len(values)]
    rings, measured = Rings.of(values).ordinary(sizes)
    assert 50 < len(rings.rows) < len(values)
    for row, packed, area, extent in zip(
        rings.rows.tolist(), packed_of(rings), measured.areas, measured.extents, strict=True
    ):
        assert pack(values[row], *sizes[row].tolist()) == (packed, "", 0)
        parts = [np.frombuffer(part).reshape(-1, 2) for part in packed]
        points = np.concatenate(parts)
        assert extent.tolist() == [*points.min(axis=0), *points.max(axis=0)]
        alone = Rings.of([values[row]])
        assert measure(alone).areas == [area]
        if len(parts) == 1:
            x, y = (points - points[0]).T
            assert area == pytest.approx(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def test_an_area_is_that_of_pycocotools_about() -> None:
    ring = [[30.0, 20.0, 300.0, 25.0, 280.0, 310.0, 40.0, 300.0]]
    _, measured = Rings.of([ring]).ordinary(np.array([[400, 400]]))
    theirs = mask_api.area(mask_api.merge(mask_api.frPyObjects(ring, 400, 400)))
    assert measured.areas[0] == pytest.approx(theirs, rel=0.01)


def test_numbers_are_read_to_the_bit_as_json_reads_them() -> None:
    rng = random.Random(0)
    numbers = [rng.uniform(-1, 1) * 10 ** rng.randint(-300, 300) for _ in range(3000)]
    texts = [repr(number) for number in numbers]
    texts += [f"{number:.{rng.randint(1, 30)}e}" for number in numbers]
    texts += ["-0", "-0.0", "1E5", "1e-400", str(2**63), str(2**64), str(10**400), "0.1" + "0" * 60]
    text = f"[{', '.join(texts)}]"
    found, expected = decoded(text.encode(), Any), json.loads(text)
    assert [*map(type, found)] == [*map(type, expected)]
    assert [*map(repr, found)] == [*map(repr, expected)]


@pytest.mark.parametrize("text", ["[NaN]", '["\\ud800"]', "\ufeff[1]", "[1e400]", '["ü"]'])
def test_what_msgspec_refuses_json_reads(text: str) -> None:
    found = decoded(text.encode(), Any)
    assert repr(found) == repr(json.loads(text.removeprefix("\ufeff")))


@pytest.mark.parametrize("data", [b'["\xff"]', b"[1", b"[01]", b'["a\nb"]'])
def test_what_json_refuses_is_refused(data: bytes) -> None:
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
        decoded(data, Any)
