"""One folder of classes: never a test image among the training images, and always the same ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tasks
from tasks.classification.layout import read
from tasks.classification.one_folder import TEST_SHARE
from tasks.classification.recipes import OF_ONE_TASK, recipe, sources
from tasks.errors import TaskError


def photo(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of 20, 11 and 2 images."""
    root = tmp_path / "photos"
    for number, (name, count) in enumerate({"bird": 20, "cat": 11, "dog": 2}.items()):
        for each in range(count):
            photo(root / name / f"{each}.png", 100 * number + each)
    return root


def sides(root: Path) -> tuple[set[str], set[str]]:
    data = read("folder", root)
    return set(data.train.names), set(data.val.names)


def test_a_fifth_of_each_class_is_for_testing(photos: Path) -> None:
    data = read("folder", photos)
    assert data.classes == ("bird", "cat", "dog")
    assert np.bincount(data.val.targets).tolist() == [4, 2, 1]
    assert np.bincount(data.train.targets).tolist() == [16, 9, 1]
    assert TEST_SHARE == 0.2
    for split in (data.train, data.val):
        for name, label in zip(split.names, split.targets, strict=True):
            assert name.split("/")[0] == data.classes[label]
        assert split.upright
    assert not set(data.train.names) & set(data.val.names)
    assert "split by mae-bench into 26 training and 7 test images" in data.notes[0]
    assert not data.standard


def test_the_split_is_the_same_anywhere_and_stays(photos: Path, tmp_path: Path) -> None:
    """By names alone: in a copy of the folder, and for nearly all when an image is added."""
    train, val = sides(photos)
    assert sides(Path(shutil.copytree(photos, tmp_path / "elsewhere" / "photos"))) == (train, val)
    fingerprint = read("folder", photos).fingerprint
    photo(photos / "bird" / "another.png", 7)
    later = sides(photos)
    assert len(val ^ later[1] - {"bird/another.png"}) <= 1
    assert read("folder", photos).fingerprint != fingerprint


@pytest.mark.parametrize(
    ("learn", "test"),
    [("Train", "Val"), ("training", "testing"), ("training_set", "test_set"),
     ("seg_train", "seg_test"), ("TRAIN", "valid"), ("train-images", "test-images")],
)  # fmt: skip
def test_splits_of_other_names_are_not_taken_for_classes(
    learn: str, test: str, photos: Path, tmp_path: Path
) -> None:
    for name in (learn, test):
        shutil.copytree(photos, tmp_path / "data" / name)
    with pytest.raises(TaskError, match=f"{learn}, {test} are called as splits are.*rename"):
        read("folder", tmp_path / "data")
    shutil.copytree(photos, tmp_path / "data" / "Meta")
    with pytest.raises(TaskError, match="rename"):
        read("folder", tmp_path / "data")


def test_classes_may_be_called_as_splits_are(photos: Path) -> None:
    (photos / "bird").rename(photos / "Train")
    (photos / "cat").rename(photos / "test tubes")
    assert read("folder", photos).classes == ("Train", "dog", "test tubes")


def test_splits_of_other_names_are_hinted_at_and_more_ones_are_noted(
    photos: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    for name in ("train", "test"):
        shutil.copytree(photos, root / name)
    with pytest.raises(TaskError, match=r"has no val/.*if val/ is called test here, rename that"):
        read("folder", root)
    assert not [note for note in read("folder", photos).notes if "passed over" in note]
    shutil.copytree(photos, root / "val")
    notes = read("folder", root).notes
    assert "folders beside train/ and val/ are passed over: test" in notes


def test_a_class_of_files_without_suffixes_is_told_of_them(photos: Path, tmp_path: Path) -> None:
    for name in ("train", "val"):
        shutil.copytree(photos, tmp_path / "data" / name)
    for each in (tmp_path / "data" / "train" / "dog").iterdir():
        each.rename(each.with_suffix(""))
    with pytest.raises(TaskError, match=r"hold no image: dog;.*2 files of other kinds"):
        read("folder", tmp_path / "data")


def test_copies_stay_on_one_side(photos: Path) -> None:
    for each in range(20):
        shutil.copy(photos / "bird" / f"{each}.png", photos / "bird" / f"copy-{each}.png")
    data = read("folder", photos)
    contents = [
        {split.path(i).read_bytes() for i in range(len(split))} for split in (data.train, data.val)
    ]
    assert not contents[0] & contents[1]
    assert np.bincount(data.val.targets).tolist() == [8, 2, 1]
    assert "20 images are copies of others" in " ".join(data.notes)


def test_a_copy_in_another_class_is_for_training_alone(photos: Path) -> None:
    for each in range(20):
        shutil.copy(photos / "bird" / f"{each}.png", photos / "cat" / f"bird-{each}.png")
    photo(photos / "bird" / "own.png", 999)
    data = read("folder", photos)
    assert [name for name in data.val.names if name.startswith("bird/")] == ["bird/own.png"]
    assert not [name for name in data.val.names if name.startswith("cat/bird")]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "dog" / "0.png").unlink(), "dog: holds 1 different image,"),
        (lambda root: shutil.copy(root / "dog/0.png", root / "dog/1.png"), "dog: holds 1 differ"),
        (lambda root: (root / "empty").mkdir(), "empty: holds 0 different images"),
        (lambda root: [shutil.rmtree(root / n) for n in ("cat", "dog")], "has one class, bird"),
        (lambda root: (root / "train").mkdir(), "has no val/"),
    ],
)
def test_what_cannot_be_split(spoil, said: str, photos: Path) -> None:
    spoil(photos)
    with pytest.raises(TaskError, match=said):
        read("folder", photos)


def test_images_outside_class_folders_are_named(photos: Path) -> None:
    photo(photos / "loose.png", 1)
    notes = " ".join(read("folder", photos).notes)
    assert "1 images outside class folders are left out: loose.png" in notes


def test_the_recipe_for_few_images_is_the_tasks_own_and_ours() -> None:
    assert "small" in tasks.protocols("folder")
    assert "small" not in tasks.protocols("imagenet1k")
    with pytest.raises(TaskError, match="unknown protocol 'small'"):
        recipe("imagenet1k", "vit_b", "small")
    for backbone in ("vit_mini", "vit_t", "vit_b", "vit_l"):
        made, where = recipe("folder", backbone, "small"), sources("folder", backbone, "small")
        assert made.protocol == "folder/small@1"
        assert made.batch_size <= 32
        assert all(source.startswith("ours") for source in where.values())
        title = tasks.face_of("folder").protocol_titles["small"]
        assert "our recipe" in title
    assert OF_ONE_TASK.keys() == {"folder"}
