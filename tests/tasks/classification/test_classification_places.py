"""Places' lists against torchvision and pandas, and what is refused or noted."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
from classification_files import small_places205, small_places365
from small_worlds import draw
from torchvision.datasets import Places365, places365

from tasks.classification.datasets import DATASETS, PLACES205_IMAGES
from tasks.classification.layout import read
from tasks.classification.places import read_list
from tasks.errors import TaskError
from tasks.miniature.places import category_folder

SMALL: dict[str, Callable[[Path], Path]] = {
    "places205": small_places205,
    "places365": small_places365,
}
TRAIN = {
    "places205": "trainvalsplit_places205/train_places205.csv",
    "places365": "places365_train_standard.txt",
}


@pytest.fixture(params=["places205", "places365"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def root(name: str, tmp_path: Path) -> Path:
    return SMALL[name](tmp_path / "data")


def refused(name: str, root: Path) -> str:
    """The one line that says why."""
    with pytest.raises(TaskError) as error:
        read(name, root)
    message = str(error.value)
    assert "\n" not in message
    return message


# Official sets and miniature ones


def test_official_counts() -> None:
    for name, counts in (
        ("places205", (205, 2_448_873, 20_500)),
        ("places365", (365, 1_803_460, 36_500)),
    ):
        facts = DATASETS[name]
        assert (facts.num_classes, facts.num_train, facts.num_val) == counts


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {f"places{n}_{split}": 24 for n in (205, 365) for split in ("train", "val")}
    return draw(tmp_path_factory.mktemp("twins"), **sizes)


def test_reads_places365_as_torchvision_does(twins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader knows the official files; only their checksums are waived."""
    monkeypatch.setattr(places365, "check_integrity", lambda file, md5=None: Path(file).is_file())
    root = twins / "places365"
    data = read("places365", root)
    for split, mine in (("train-standard", data.train), ("val", data.val)):
        oracle = Places365(root, split=split, small=True)
        expected = sorted((label, path) for path, label in oracle.imgs)
        assert [(t, str(mine.path(i))) for i, t in enumerate(mine.targets)] == expected
        assert {f"/{name}": i for i, name in enumerate(data.classes)} == oracle.class_to_idx
    assert not data.standard


def test_reads_places205_as_pandas_does(twins: Path) -> None:
    root = twins / "places205"
    data = read("places205", root)
    assert data.classes == tuple(category_folder(label) for label in range(8))
    for split, mine in (("train", data.train), ("val", data.val)):
        file = root / f"trainvalsplit_places205/{split}_places205.csv"
        table = pandas.read_csv(file, sep=" ", names=["path", "label"])
        table = table.sort_values(["label", "path"])
        assert list(mine.names) == table["path"].tolist()
        assert mine.targets.tolist() == table["label"].tolist()
        assert mine.root == root / PLACES205_IMAGES
        assert mine.path(0).is_file()


# Forms of the files


def test_small_sets(name: str, root: Path) -> None:
    data = read(name, root)
    if name == "places205":
        assert data.classes == ("a/abbey", "b/bar", "c/c/out side")
        assert list(data.train.names) == [
            "a/abbey/1.jpg",
            "a/abbey/2.jpg",
            "b/bar/1.jpg",
            "c/c/out side/3.jpg",
        ]
        assert data.notes == (
            "train_places205.csv names 1 images with blanks: c/c/out side/3.jpg",
            "1 classes without test images: c/c/out side",
        )
    else:
        assert data.classes == ("a/airfield", "s/spa/indoor")
        assert data.train.targets.tolist() == [0, 0, 1]
        assert data.val.names[0] == "Places365_val_00000002.jpg"
        assert data.notes == ()
    assert data.train.targets.dtype == np.int64


def test_windows_lines_byte_order_marks_and_empty_lines(name: str, root: Path) -> None:
    plain = read(name, root)
    file = root / TRAIN[name]
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n")
    assert read(name, root).fingerprint == plain.fingerprint
    odd = f"{file.name} has {len(lines)} lines that end as in Windows, by CR and LF"
    assert set(read(name, root).notes) == {*plain.notes, odd}
    file.write_bytes(b"\n".join([lines[0], b"", b"  ", *lines[1:]]))
    data = read(name, root)
    assert data.fingerprint == plain.fingerprint
    assert f"{file.name} has 2 empty lines" in data.notes


def test_the_order_of_lines_does_not_matter(name: str, root: Path) -> None:
    plain = read(name, root)
    file = root / TRAIN[name]
    file.write_bytes(b"\n".join(reversed(file.read_bytes().splitlines())))
    assert read(name, root).fingerprint == plain.fingerprint


def test_lists_in_other_folders(tmp_path: Path) -> None:
    first = small_places365(tmp_path / "a")
    plain = read("places365", first).fingerprint
    lists = first / "filelist_places365-standard"
    lists.mkdir()
    for file in first.glob("*.txt"):
        file.rename(lists / file.name)
    assert read("places365", first).fingerprint == plain
    second = small_places205(tmp_path / "b")
    plain = read("places205", second).fingerprint
    for file in (second / "trainvalsplit_places205").iterdir():
        file.rename(second / file.name)
    assert read("places205", second).fingerprint == plain


def test_versions_of_places365(tmp_path: Path) -> None:
    assert read("places365", small_places365(tmp_path / "raw", "data_256")).notes == ()
    large = read("places365", small_places365(tmp_path / "l", "data_large_standard", "val_large"))
    assert large.notes == ("the images are the large ones, not those of 256 pixels",)
    both = small_places365(tmp_path / "both")
    small_places365(both, "data_large", "val_large")
    data = read("places365", both)
    assert data.train.root.name == "data_256_standard"
    assert data.notes == (
        "of the 256-pixel and the large images that are there, the former are read",
    )
    mixed = small_places365(tmp_path / "mixed", "data_256", "val_large")
    assert "has no images of both splits; expected" in refused("places365", mixed)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    root = small_places205(tmp_path)
    images = root / PLACES205_IMAGES
    odd = b"a/abbey/\xff.jpg"
    (images / "a/abbey/1.jpg").rename(images / odd.decode("utf-8", "surrogateescape"))
    file = root / TRAIN["places205"]
    file.write_bytes(file.read_bytes().replace(b"a/abbey/1.jpg", odd))
    train = read("places205", root).train
    assert all(train.path(row).is_file() for row in range(4))


# Noted


def test_an_image_twice_is_kept_and_noted(name: str, root: Path) -> None:
    count = len(read(name, root).train)
    file = root / TRAIN[name]
    first = file.read_text().splitlines()[0]
    file.write_text(f"{file.read_text()}{first}\n")
    data = read(name, root)
    assert len(data.train) == count + 1
    path = first.rsplit(maxsplit=1)[0].removeprefix("/")
    assert f"{file.name} names 1 images more than once, and so they count: {path}" in data.notes


def test_an_image_in_both_splits_is_noted(tmp_path: Path) -> None:
    root = small_places205(tmp_path)
    with (root / "trainvalsplit_places205/val_places205.csv").open("a") as file:
        file.write("b/bar/1.jpg 1\n")
    assert "1 images are in both splits: b/bar/1.jpg" in read("places205", root).notes


# Refused


def test_nothing_there(name: str, tmp_path: Path) -> None:
    said = refused(name, tmp_path / "no")
    assert f"no does not exist; expected {DATASETS[name].layout}; get " in said
    assert f"data folder {tmp_path} has no " in refused(name, tmp_path)


def test_no_list(name: str, root: Path) -> None:
    (root / TRAIN[name]).unlink()
    assert f"data folder {root} has no {Path(TRAIN[name]).name}; expected" in refused(name, root)


def test_missing_images_are_counted(name: str, root: Path) -> None:
    train = read(name, root).train
    for row in range(2):
        train.path(row).unlink()
    said = refused(name, root)
    total = len(train)
    assert f"2 of {total} images named in {root / TRAIN[name]} are not in {train.root}: " in said
    assert train.names[0] in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a/x.jpg", "'a/x.jpg'; expected a path, a blank and a label from 0 to "),
        ("3", "'3'; expected a path, a blank and a label"),
        ("a/x.jpg one", "'a/x.jpg one'; expected a path, a blank and a label"),
        ("a/x.jpg 1.0", "'a/x.jpg 1.0'; expected"),
        ("a/x.jpg -1", "'a/x.jpg -1'; expected"),
        ("a/x.jpg ²", "'a/x.jpg ²'; expected"),
        ("a/x.jpg 777", "'a/x.jpg 777'; expected"),
        ("a/x.jpg " + "9" * 5000, "'a/x.jpg 9999"),
        ("//a/x.jpg 1", "x.jpg' is no path below the data folder"),
        ("a/../../x.jpg 1", "'a/../../x.jpg' is no path below the data folder"),
        ("a/\0.jpg 1", "'a/\\x00.jpg' is no path below the data folder"),
    ],
)
def test_bad_lines(name: str, root: Path, line: str, said: str) -> None:
    file = root / TRAIN[name]
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], "", line, *lines[1:]]))
    message = refused(name, root)
    assert message.startswith(f"{file}, line 3: ")
    assert said in message
    assert len(message) < 400


def test_two_labels(name: str, root: Path) -> None:
    file = root / TRAIN[name]
    path, label = file.read_text().splitlines()[0].rsplit(maxsplit=1)
    file.write_text(f"{file.read_text()}\n{path} 0\n")
    last = 6 if name == "places205" else 5
    said = refused(name, root)
    assert f"{file}, lines 1, {last}: {path.removeprefix('/')} has the labels {label} and 0" in said


def test_a_slash_in_front_is_for_places365_alone(tmp_path: Path) -> None:
    root = small_places205(tmp_path)
    file = root / TRAIN["places205"]
    file.write_text(f"/{file.read_text()}")
    assert "line 1: '/b/bar/1.jpg' is no path below the data folder" in refused("places205", root)


def test_empty_lists(name: str, root: Path) -> None:
    (root / TRAIN[name]).write_text("\n\n")
    assert f"{root / TRAIN[name]} names no image" in refused(name, root)


def test_a_class_without_training_images(name: str, root: Path) -> None:
    file = root / TRAIN[name]
    lines = [line for line in file.read_text().splitlines() if not line.endswith(" 0")]
    file.write_text("\n".join(lines))
    assert " classes have no training images: " in refused(name, root)


def test_a_test_label_that_training_lacks(tmp_path: Path) -> None:
    root = small_places205(tmp_path)
    file = root / "trainvalsplit_places205/val_places205.csv"
    file.write_text("a/abbey/9.jpg 0\nb/bar/9.jpg 3\n")
    said = refused("places205", root)
    assert (
        f"{file}, line 2: 'b/bar/9.jpg 3'; expected a path, a blank and a label from 0 to 2" in said
    )


def test_categories_that_are_not_numbered(tmp_path: Path) -> None:
    root = small_places365(tmp_path)
    (root / "categories_places365.txt").write_text("/a/airfield 0\n/s/spa/indoor 0\n")
    assert "does not number its 2 categories from 0 to 1, each once" in refused("places365", root)


def test_a_list_of_448_lines(tmp_path: Path) -> None:
    """In any order, with several blanks in names, against pandas' split from the right."""
    rng = np.random.default_rng(0)
    lines = [f"{'abc'[k % 3]}/some place {k % 56}/{k}  x.jpg {k % 56}" for k in range(448)]
    rng.shuffle(lines)
    file = tmp_path / "list.txt"
    file.write_text("".join(f"{line}\n" for line in lines))
    names, labels, notes = read_list(file, 56)
    oracle = pandas.Series(lines).str.rsplit(" ", n=1, expand=True)
    assert names == oracle[0].tolist()
    assert labels == oracle[1].astype(int).tolist()
    assert [note[:41] for note in notes] == ["list.txt names 448 images with blanks: c/"]


def test_a_pipe_is_no_list_and_never_waits(root: Path) -> None:
    file = root / "trainvalsplit_places205/val_places205.csv"
    if not file.exists():
        file = root / "places365_val.txt"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(TaskError):
        read("places205" if "205" in file.name else "places365", root)
