"""Walking folders: each entered once, everything passed over counted and named."""

import os
from pathlib import Path

import pytest
from pictures import picture
from PIL import Image

from tasks.classification.layout import read
from tasks.errors import TaskError
from tasks.images import UnlabelledImages, UnreadableImage, decode
from tasks.images.walk import HELD_OUT, OWN_SUFFIXES, walk


def make(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(20, 24, seed=number).save(root / name)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    names = [f"{split}/{c}/{i}.png" for split in ("train", "val") for c in "abc" for i in range(2)]
    return make(tmp_path / "data", *names)


def refusal(root: Path, name: str = "folder") -> str:
    with pytest.raises(TaskError) as error:
        read(name, root)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("target", ["..", "../..", ".", "../../../data", "/"])
def test_a_link_back_is_not_followed_and_said(root: Path, target: str) -> None:
    plain = read("folder", root)
    (root / "train/a/up").symlink_to(target)
    (root / "train/b/up").symlink_to(target)
    data = read("folder", root)
    assert list(data.train.names) == list(plain.train.names)
    (note,) = data.notes
    assert "links back to a folder around them, not followed" in note
    assert "train/a/up" in note
    assert "train/b/up" in note


def test_a_folder_of_two_classes_is_refused(root: Path) -> None:
    (root / "train/a/more").symlink_to("../b")
    assert "would belong to two classes; remove the link" in refusal(root)
    (root / "train/a/more").unlink()
    (root / "train/d").symlink_to("b")
    assert "would belong to two classes" in refusal(root)


def test_a_linked_folder_elsewhere_counts_once(root: Path, tmp_path: Path) -> None:
    store = make(tmp_path / "store", "x.png", "y.png")
    (root / "train/a/one").symlink_to(store)
    (root / "train/a/two").symlink_to(store)
    data = read("folder", root)
    assert [name for name in data.train.names if "/one/" in name] == [
        "train/a/one/x.png",
        "train/a/one/y.png",
    ]
    assert not any("/two/" in name for name in data.train.names)
    assert any("entered once" in note for note in data.notes)


def test_a_folder_without_permission_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def closed(path: str) -> object:
        if str(path).endswith("train/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert "train/b cannot be listed: Permission denied" in refusal(root)
    with pytest.raises(TaskError, match="train/b cannot be listed: Permission denied"):
        UnlabelledImages([root], 16)


def test_what_is_passed_over_is_counted_by_kind(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.HEIC", "c.heic", "d.txt", "._a.jpg", "Thumbs.db", "bare", "e.avif"):
        (tmp_path / name).touch()
    (tmp_path / ".git").mkdir()
    found = walk([tmp_path])
    assert found.names == [["a.jpg"]]
    kinds, hidden = found.notes()
    assert kinds.startswith("7 files of other kinds passed over: .heic (2), ")
    for each in (".txt (1)", "hidden (1)", ".db (1)", "without suffix (1)", ".avif (1)"):
        assert each in kinds
    assert "; convert HEIC to JPEG" in kinds
    assert hidden == f"hidden folders passed over: {tmp_path}/.git"


def test_ones_own_images_are_read_in_more_formats(root: Path) -> None:
    kinds = {"jfif": "JPEG", "gif": "GIF", "avif": "AVIF", "jp2": "JPEG2000"}
    for suffix, kind in kinds.items():
        assert suffix in OWN_SUFFIXES
        picture(20, 24).save(root / f"train/a/x.{suffix}", kind)
    mine, official = read("folder", root), read("imagenet1k", root)
    assert len(mine.train) == len(official.train) + 4
    assert decode(mine.train.path(len(mine.train) - 5)).shape == (20, 24, 3)
    assert any("train/: 4 files of other kinds passed over" in note for note in official.notes)


@pytest.mark.parametrize(
    "name",
    [
        "val",
        "Val",
        "test",
        "valid",
        "validation",
        "testing",
        "val2017",
        "val_256",
        "test-images",
        "seg_test",
    ],
)
def test_held_out_folders_are_no_pre_training_data(tmp_path: Path, name: str) -> None:
    make(tmp_path, "deep/train/a/1.png", f"deep/{name}/b/2.png", f"deep/{name}/3.png")
    data = UnlabelledImages([tmp_path], 16)
    assert data.names(range(len(data))) == [f"{tmp_path}/deep/train/a/1.png"]
    assert f"left out: held-out folder {tmp_path}/deep/{name} (2 images)" in data.notes()


@pytest.mark.parametrize("name", ["vale", "tests_passed", "training", "contest", "train_val2018"])
def test_other_names_are_not_held_out(name: str) -> None:
    assert not HELD_OUT.fullmatch(name)


def test_one_class_is_refused_with_what_lies_in_it(tmp_path: Path) -> None:
    make(tmp_path, *(f"{s}/images/{c}/1.png" for s in ("train", "val") for c in "ab"))
    said = refusal(tmp_path)
    assert "has one class folder, images" in said or "has one class, images" in said
    assert "it holds the folders a, b: give these as train/<class>/" in said


def test_classes_alike_but_for_case_are_said(root: Path) -> None:
    make(root, "train/A/1.png")
    assert any("differ only in case" in note and "'A' and 'a'" in note
               for note in read("folder", root).notes)  # fmt: skip
    (root / "val/c").rename(root / "val/C")
    assert "'C' is 'c' there" in refusal(root)


def test_classes_that_hold_folders_are_said(root: Path) -> None:
    make(root, "train/pets/cat/1.png", "train/pets/dog/1.png")
    assert any("1 of 4 classes hold folders instead of images" in note
               for note in read("folder", root).notes)  # fmt: skip


def test_test_images_that_were_trained_on_are_said(root: Path) -> None:
    (root / "val/c/other name.png").write_bytes((root / "train/a/1.png").read_bytes())
    (note,) = read("folder", root).notes
    assert note == (
        "1 of 7 test images are training images, too: val/c/other name.png is train/a/1.png"
    )


# EXIF


def turn(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
    tags = Image.Exif()
    tags[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=tags)


def test_ones_own_images_are_turned_and_official_ones_are_not(root: Path) -> None:
    upright = decode(root / "val/a/0.png")
    turn(root / "val/a/0.png")
    mine, official = read("folder", root), read("imagenet1k", root)
    assert (decode(mine.val.path(0), mine.val.upright) == upright).all()
    assert decode(official.val.path(0), official.val.upright).shape == (24, 20, 3)
    assert any("1 of 12 images have an EXIF rotation" in note and "turned upright" in note
               for note in mine.notes)  # fmt: skip
    assert mine.upright
    assert not official.upright


# Kaggle's ImageNet


def kaggle(tmp_path: Path) -> Path:
    root = tmp_path / "kaggle"
    wnids = ("n00000001", "n00000002")
    place = "ILSVRC/Data/CLS-LOC"
    make(root, *(f"{place}/train/{w}/{w}_{i}.JPEG" for w in wnids for i in range(2)))
    make(root, *(f"{place}/val/ILSVRC2012_val_{n:08d}.JPEG" for n in (1, 2, 3)))
    rows = ["ImageId,PredictionString"]
    rows += [f"ILSVRC2012_val_{n:08d},{wnids[n % 2]} 1 1 9 9" for n in (3, 1, 2)]
    (root / "LOC_val_solution.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize("inside", ["", "ILSVRC/Data/CLS-LOC"])
def test_kaggles_labels_are_read_from_its_list(tmp_path: Path, inside: str) -> None:
    data = read("imagenet1k", kaggle(tmp_path) / inside)
    assert data.classes == ("n00000001", "n00000002")
    assert dict(zip(data.val.names, data.val.targets.tolist(), strict=True)) == {
        "val/ILSVRC2012_val_00000001.JPEG": 1,
        "val/ILSVRC2012_val_00000002.JPEG": 0,
        "val/ILSVRC2012_val_00000003.JPEG": 1,
    }
    assert any("its labels come from" in note for note in data.notes)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("n00000002 1 1 9 9", "n00000009 1 1 9 9", "has the class n00000009, which train/ lacks"),
        ("n00000002 1 1 9 9", "cat 1 1 9 9", "expected an image once, a comma, and its wnid"),
        ("val_00000003", "val_00000009", "val_00000003.JPEG is not listed"),
    ],
)
def test_a_broken_list_of_kaggles_is_refused(tmp_path: Path, old: str, new: str, why: str) -> None:
    root = kaggle(tmp_path)
    file = root / "LOC_val_solution.csv"
    file.write_text(file.read_text().replace(old, new))
    assert why in refusal(root, "imagenet1k")
    file.unlink()
    os.mkfifo(file)
    assert "is a named pipe, not a regular file" in refusal(root, "imagenet1k")
    file.unlink()
    assert "or put LOC_val_solution.csv of Kaggle" in refusal(root, "imagenet1k")


def test_pipes_named_like_images_are_unreadable_and_never_wait(root: Path) -> None:
    (root / "train/a/0.png").unlink()
    os.mkfifo(root / "train/a/0.png")
    data = read("folder", root)
    with pytest.raises(UnreadableImage, match="is a named pipe, not a regular file"):
        decode(data.train.path(0))
