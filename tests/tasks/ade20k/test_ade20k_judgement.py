"""What all label images say: classes that are missing for the way that values were written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import pytest
from ade20k_files import own, save_label, small, stripes, with_names
from PIL import Image

import tasks.ade20k.census as module
from tasks.ade20k.census import census, count
from tasks.ade20k.check import check
from tasks.ade20k.data import decode_pair
from tasks.ade20k.judgement import judge
from tasks.ade20k.layout import read
from tasks.errors import TaskError

COUNTS = {"train": 3, "val": 2}
THREE = {"classes": ["sky", "sea", "sand"]}


def make(
    root: Path,
    values: Sequence[int],
    content: Any,
    val: Sequence[int] | None = None,
) -> Path:
    """Own data whose label images have stripes of `values`, those of the val split of `val`."""
    for split, number in COUNTS.items():
        (root / "images" / split).mkdir(parents=True)
        for index in range(number):
            Image.new("RGB", (60, 40), (90, 20 * index, 60 + len(split))).save(
                root / "images" / split / f"{index}.jpg"
            )
            there = values if split == "train" or val is None else val
            save_label(root / "annotations" / split / f"{index}.png", stripes(there))
    (root / "classes.json").write_text(json.dumps(content))
    return root


def refused(root: Path) -> str:
    """What a run is refused with, and `data check` calls a problem."""
    with pytest.raises(TaskError) as caught:
        judge(read(root)).refuse()
    said = str(caught.value)
    assert "\n" not in said
    assert not check(root).ok
    return said


def noted(root: Path) -> str:
    """What is said of data that are taken."""
    judge(read(root)).refuse()
    found = check(root)
    assert found.ok
    return "\n".join(each.what for each in found.findings)


# Values


CASES: list[tuple[Sequence[int], Any, str, str]] = [
    (
        (0, 255),
        {"classes": ["rest", "thing"]},
        "one class alone occurs in the train label images, 'rest'; the values are 0, 255 (ignored)"
        "; missing: thing",
        "write 'thing' as 1 instead of 255",
    ),
    (
        (0, 255),
        {"classes": ["rest", "thing"], "ignore_index": 255},
        "one class alone occurs",
        "write 'thing' as 1 instead of 255",
    ),
    (
        (0, 255),
        {"classes": ["a", "b"], "ignore_index": 9},
        "no class has: 255",
        "write 0 to 1 inst",
    ),
    ((0, 128, 255), THREE, "values that no class has: 128 (5 label images, ", "write 0 to 2 inst"),
    ((0, 85, 170, 255), THREE, "values that no class has: 85", "write 0 to 3 instead of 0, 85"),
    (
        (0, 1, 255),
        THREE,
        "sand: in no label image, while 33.3 % of the pixels have the value 255",
        'if 255 is a class, write it as 2; if it is not, say so in classes.json: "ignore_index"',
    ),
    ((0, 1, 2, 255), {"classes": ["a", "b"], "ignore_index": 9}, "no class has: 2", "name every"),
    (
        (0, 1, 255),
        {"classes": ["a", "b"], "ignore_index": 9},
        "no class has: 255",
        '"ignore_index": 255',
    ),
    ((0, 1, 2), {"classes": ["a", "b"]}, "values that no class has: 2", "name it first"),
    ((1, 2, 3), THREE, "values that no class has: 3", 'set "zero_is_unlabelled": true'),
    (
        (0, 1, 2),
        THREE | {"zero_is_unlabelled": True},
        "sand: in no label image, while the values 0 to 2 are as many as the classes",
        "if 0 is the class 'sky', set \"zero_is_unlabelled\": false",
    ),
    (
        (0, 1),
        {"classes": ["rest", "thing"], "zero_is_unlabelled": True},
        "in the train label images, 'rest'; the values are 0 (unlabelled), 1; missing: thing",
        'if 0 is a class, set "zero_is_unlabelled": false',
    ),
    (
        (0, 1, 5, 6),
        THREE,
        "no class has: 5 (5 label images, 25.0 % of the pixels, as anno",
        "name e",
    ),
    ((1, 1, 1), THREE, "one class alone occurs in the train label images, 'sea'", "at least two"),
    ((0,), THREE, "one class alone occurs in the train label images, 'sky'", "other classes occur"),
    (range(7, 30), {"classes": list("abcdefghijklmnopqrs")}, "no class has: 19", "labelTrainIds"),
    (range(0, 240, 2), THREE, " more such values", "like numbers of instances"),
]


@pytest.mark.parametrize(("values", "content", "said", "fix"), CASES)
def test_values_that_leave_a_class_out(
    tmp_path: Path, values: Sequence[int], content: Any, said: str, fix: str
) -> None:
    message = refused(make(tmp_path, values, content))
    assert said in message
    assert fix in message


@pytest.mark.parametrize(
    ("val", "said"),
    [
        (
            (255,),
            "no class occurs in the val label images; the values are 255 (ignored); missing: ",
        ),
        ((0, 255), "one class alone occurs in the val label images, 'sky'"),
        ((0, 127, 255), "values that no class has: 127 (2 label images, "),
        ((3, 4), "values that no class has: 3 (2 label images"),
    ],
)
def test_the_val_split_alone_is_of_another_kind(
    tmp_path: Path, val: Sequence[int], said: str
) -> None:
    content = THREE | {"ignore_index": 255}
    assert said in refused(make(tmp_path, (0, 1, 2), content, val))


def test_smoothed_label_images(tmp_path: Path) -> None:
    """Enlarged bilinearly, 10 and 20 meet in all that lies between."""
    root = make(tmp_path, (0, 1, 2), {"classes": [f"class {n}" for n in range(3)]})
    label = root / "annotations/val/0.png"
    coarse = Image.fromarray(stripes((0, 2, 0, 40, 0), 40, 60)).resize((15, 10), 0)
    Image.fromarray(np.asarray(coarse.resize((60, 40), Image.Resampling.BILINEAR))).save(label)
    assert "values that no class has" in refused(root)
    for file in root.glob("annotations/*/*.png"):
        values = np.asarray(Image.open(file)).copy()
        values[values > 2] = 2
        values[:2, :5] = np.arange(3, 8)
        save_label(file, values)
    assert "with nearest neighbour, without anti-aliasing" in refused(root)


def test_one_pixel_of_one_file(tmp_path: Path) -> None:
    root = make(tmp_path, (0, 1, 2), THREE)
    values = stripes((0, 1, 2))
    values[3, 5] = 77
    save_label(root / "annotations/train/1.png", values)
    said = refused(root)
    assert "no class has: 77 (1 label images, 1 pixels, as annotations/train/1.png)" in said


def test_label_images_in_colours(tmp_path: Path) -> None:
    root = make(tmp_path, (0, 1, 2), THREE)
    for file in (root / "annotations/val").iterdir():
        Image.open(file).convert("RGB").save(file)
    said = refused(root)
    assert "2 of 2 val label images cannot be used, as annotations/val/0.png, which is an" in said
    assert "image of mode RGB, of colours; expected a PNG" in said
    assert "export masks of class indices" in said


def test_images_and_label_images_exchanged(tmp_path: Path) -> None:
    root = make(tmp_path, (0, 1, 2), THREE)
    for split in COUNTS:
        for file in (root / "images" / split).iterdir():
            Image.open(file).save(file.with_suffix(".png"))
            file.unlink()
    (root / "images").rename(root / "x")
    (root / "annotations").rename(root / "images")
    (root / "x").rename(root / "annotations")
    assert "or exchange the folders" in refused(root)


def test_damaged_label_images_by_reason(tmp_path: Path) -> None:
    root = make(tmp_path, (0, 1, 2), THREE)
    for number in (0, 2):
        (root / f"annotations/train/{number}.png").write_bytes(b"")
    (root / "annotations/val/1.png").unlink()
    (root / "annotations/val/1.png").symlink_to("nowhere")
    said = [each.what for each in check(root).findings if each.status == "problem"]
    assert said[0].startswith("2 of 3 train label images cannot be used, as annotations/train/0.p")
    assert "which is empty (0 bytes)" in said[0]
    assert "1 of 2 val label images cannot be used, as annotations/val/1.png, which c" in said[1]
    assert "cannot be read: No such file" in said[1]


# What is taken, with a word


def test_data_as_they_should_be(tmp_path: Path) -> None:
    said = noted(make(tmp_path, (0, 1, 2), THREE))
    assert said.splitlines()[1] == (
        "all 5 label images are counted: of 3 classes 3 in train and 3 in val, 0.0% of the pixels "
        "unlabelled"
    )


def test_outlines_to_ignore(tmp_path: Path) -> None:
    """As of VOC: 255 occurs, and so do all classes."""
    assert "25.0% of the pixels unlabelled" in noted(make(tmp_path, (0, 1, 2, 255), THREE))


def test_classes_of_one_split(tmp_path: Path) -> None:
    content = {"classes": ["a", "b", "c", "d", "e"]}
    said = noted(make(tmp_path, (0, 1, 2), content, val=(0, 1, 3)))
    assert "1 of 5 classes occur in no label image: e (4); they count nowhere" in said
    assert "in the val split alone: d (3); nothing trains for them; their IoU" in said
    assert "in the train split alone: c (2); no test image has them" in said


def test_a_class_that_is_missing_while_255_is_said_to_be_ignored(tmp_path: Path) -> None:
    said = noted(make(tmp_path, (0, 1, 255), THREE | {"ignore_index": 255}))
    assert "1 of 3 classes occur in no label image: sand (2)" in said


def test_mostly_unlabelled(tmp_path: Path) -> None:
    said = noted(make(tmp_path, (1, 255, 255, 255, 255, 0), THREE | {"ignore_index": 255}))
    assert "66.7% of the pixels unlabelled, which count neither in training nor in" in said


def test_some_blank_label_images(tmp_path: Path) -> None:
    root = make(tmp_path, (0, 1, 2), THREE)
    save_label(root / "annotations/val/1.png", stripes((255,)))
    assert "1 of 2 val label images label nothing, as annotations/val/1.png" in noted(root)


def test_masks_of_one_bit(tmp_path: Path) -> None:
    root = make(tmp_path, (0, 1), {"classes": ["rest", "thing"]})
    for file in root.glob("annotations/*/*.png"):
        Image.fromarray(np.asarray(Image.open(file)).astype(bool)).save(file)
    assert "of 2 classes 2 in train and 2 in val" in noted(root)


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    """A few are left out by training and test, which count them; without any there is no test."""
    root = make(tmp_path, (0, 1, 2), THREE)
    (root / "images/val/0.jpg").write_bytes(b"")
    assert "1 of 2 test images cannot be read: 1 image: is empty" in noted(root)
    (root / "images/val/1.jpg").write_bytes(b"GIF")
    assert not check(root).ok


def test_own_data_without_classes_json(tmp_path: Path) -> None:
    root = make(tmp_path, (0, 1, 2, 255), THREE)
    (root / "classes.json").unlink()
    said = refused(root)
    assert "no classes.json and no objectInfo150.txt, so the folder is read as ADE20K" in said
    assert "2 of them occur, 50.0% of the pixels unlabelled" in said
    proposed = said.partition("such as ")[2].partition("; for ADE20K")[0]
    (root / "classes.json").write_text(proposed)
    assert "of 3 classes 3 in train" in noted(root)


@pytest.mark.parametrize(
    ("values", "proposed"),
    [
        ((0, 1, 4), ["name of 0", "name of 1", "unused 2", "unused 3", "name of 4"]),
        ((1, 2), ["name of 1", "name of 2"]),
        ((2, 3), ["unused 1", "name of 2", "name of 3"]),
        ((1, 2, 200), None),
        ((0, 255), ["name of black", "name of white"]),
        ((0, 3, 200), None),
    ],
)
def test_a_list_of_classes_is_proposed_from_the_values(tmp_path: Path, values, proposed) -> None:
    """Gaps are filled, and what has to change in the label images first is said."""
    root = make(tmp_path, values, THREE)
    (root / "classes.json").unlink()
    said = refused(root)
    if proposed is None:
        assert f"now they have {', '.join(map(str, values))}, which take 0 to 2" in said
        return
    text = said.partition("such as ")[2]
    found = json.JSONDecoder().raw_decode(text)[0]
    assert found["classes"] == proposed
    assert ("once the label images have the value 1" in said) == (values == (0, 255))
    if values != (0, 255):
        (root / "classes.json").write_text(json.dumps(found))
        assert check(root).ok


def test_a_limit_that_leaves_one_class(tmp_path: Path) -> None:
    root = make(tmp_path, (0, 1, 2), THREE)
    save_label(root / "annotations/val/0.png", stripes((1,)))
    data = read(root)
    judge(data).refuse()
    with pytest.raises(TaskError, match="in the val label images that the limit of 1 takes, 'sea'"):
        judge(data, limit=1).refuse()


# Rotations


def rotated(file: Path, orientation: int, size: tuple[int, int]) -> None:
    """A photograph of `size` (width, height) as stored, with an EXIF rotation."""
    pixels = np.random.default_rng(orientation).integers(0, 256, (size[1], size[0], 3), "u1")
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, exif=exif.tobytes(), quality=95)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_mmsegmentation_turns_them(tmp_path: Path, orientation: int) -> None:
    root = make(tmp_path, (0, 1, 2), THREE)
    file = root / "images/train/0.jpg"
    rotated(file, orientation, (40, 60) if orientation > 4 else (60, 40))
    data = read(root)
    judge(data).refuse()
    pixels, labels = decode_pair(data.train, 0, data.rule)
    np.testing.assert_array_equal(pixels, mmcv.imread(file, channel_order="rgb"))
    assert labels.shape == (40, 60)


def test_label_images_that_fit_the_stored_pixels_alone(tmp_path: Path) -> None:
    """Then those where sizes leave it open are as stored too, and both are said."""
    root = make(tmp_path, (0, 1, 2), THREE)
    sideways, upside_down = root / "images/train/0.jpg", root / "images/train/1.jpg"
    rotated(sideways, 6, (60, 40))
    rotated(upside_down, 3, (60, 40))
    assert "2 images have an EXIF rotation: 1 are taken as stored, as their label" in noted(root)
    assert "1, whose sizes leave it open, are assumed to be as stored, like those" in noted(root)
    data = judge(read(root)).data
    for row, file in enumerate((sideways, upside_down)):
        pixels, _ = decode_pair(data.train, row, data.rule)
        stored = mmcv.imread(file, flag="color_ignore_orientation")[..., ::-1]
        np.testing.assert_array_equal(pixels, stored)


def test_square_images_are_assumed_to_be_turned(tmp_path: Path) -> None:
    root = make(tmp_path, (0, 1, 2), THREE)
    rotated(root / "images/val/0.jpg", 6, (50, 50))
    save_label(root / "annotations/val/0.png", stripes((0, 1, 2), 50, 50))
    assert "1, whose sizes leave it open, are assumed to be turned, as mmsegm" in noted(root)


# Counting


def test_counts_are_numpys(tmp_path: Path) -> None:
    root = make(tmp_path, (0, 1, 2), THREE)
    rng = np.random.default_rng(0)
    for file in sorted((root / "annotations/train").iterdir()):
        save_label(file, rng.integers(0, 256, (40, 60), "u1"))
    found = count(read(root).train)
    for row, file in enumerate(sorted((root / "annotations/train").iterdir())):
        values, counts = np.unique(np.asarray(Image.open(file)), return_counts=True)
        assert found.counts[row, values].tolist() == counts.tolist()
        assert found.counts[row].sum() == 40 * 60
    assert found.label_sizes.tolist() == [[40, 60]] * 3
    assert found.images.tolist() == [[40, 60, 1]] * 3


def test_counts_are_kept_as_long_as_no_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "WORTH_KEEPING", 0.0)
    root = make(tmp_path / "data", (0, 1, 2), THREE)
    (root / "annotations/train/2.png").write_bytes(b"")
    first = census(read(root).train)
    calls: list[int] = []
    monkeypatch.setattr(module, "count", lambda split, step: calls.append(1) or count(split, step))
    again = census(read(root).train)
    assert not calls
    np.testing.assert_array_equal(again.counts, first.counts)
    np.testing.assert_array_equal(again.images, first.images)
    assert again.label_faults == first.label_faults == {2: "is empty (0 bytes); expected an image"}
    label = root / "annotations/train/1.png"
    save_label(label, stripes((2, 1, 0)))  # as many bytes or not: its time of change is another
    census(read(root).train)
    assert calls == [1]
    for kept in (tmp_path / "cache").rglob("*.npz"):
        kept.write_bytes(b"PK damaged")
    np.testing.assert_array_equal(census(read(root).train).label_sizes[0], (40, 60))
    assert calls == [1, 1]


def test_little_work_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    census(read(own(tmp_path / "data")).train)
    assert not (tmp_path / "cache").exists()


def test_the_official_rule_lets_a_last_class_be_absent(tmp_path: Path) -> None:
    """Small parts of ADE20K hold few of its classes."""
    assert "148 of 150 classes occur in no label image" in noted(with_names(small(tmp_path)))


def colours(root: Path, split: str, index: int, palette: Sequence[int]) -> None:
    """Give a label image a palette."""
    path = root / "annotations" / split / f"{index}.png"
    labels = Image.open(path).convert("L")
    paletted = Image.frombytes("P", labels.size, labels.tobytes())
    paletted.putpalette(palette)
    paletted.save(path)


BLACK, RED, GREEN = (0, 0, 0), (128, 0, 0), (0, 128, 0)


def test_palettes_that_number_colours_anew_are_refused(tmp_path: Path) -> None:
    """As those of files that were reduced to few colours one by one."""
    root = make(tmp_path, [0, 1, 2], THREE)
    for index in range(COUNTS["train"]):
        colours(root, "train", index, [*BLACK, *RED, *GREEN])
    assert "contradict" not in noted(root)
    colours(root, "val", 1, [*BLACK, *GREEN, *RED])
    said = refused(root)
    assert "the colour 0, 128, 0 is the value 1 in annotations/val/1.png and 2 in " in said


def test_palettes_that_say_nothing_are_taken(tmp_path: Path) -> None:
    root = make(tmp_path, [0, 1, 2], THREE)
    colours(root, "train", 0, [*BLACK, *RED, *GREEN])
    colours(root, "train", 1, [value for each in range(256) for value in (each, each, each)])
    colours(root, "train", 2, [*BLACK, *GREEN, *GREEN])
    colours(root, "val", 0, [*BLACK, *RED, *GREEN, *RED])
    assert "contradict" not in noted(root)


def test_test_images_that_are_training_images(tmp_path: Path) -> None:
    root = make(tmp_path, [0, 1, 2], THREE)
    assert "training images, too" not in noted(root)
    photograph = (root / "images/train/2.jpg").read_bytes()
    (root / "images/val/1.jpg").write_bytes(photograph)
    said = noted(root)
    assert "1 of 2 test images are training images, too: images/val/1.jpg is images/train/2" in said
