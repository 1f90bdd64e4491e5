"""Lists of images that are kept for the next process: the same as those that are read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classification_files import picture
from small_worlds import draw

from tasks import unchanged
from tasks.classification import class_folders, keeping
from tasks.classification.layout import LabelledImages, read
from tasks.errors import TaskError
from tasks.identity import of_split
from tasks.images import keeping as images_keeping

SIZES = {
    f"{name}_{split}": 30
    for name in ("inat2018", "places205", "places365")
    for split in ("train", "val")
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for what is kept, which here short lists are, too, and those just written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(keeping, "LEAST_IMAGES", 0)
    monkeypatch.setattr(images_keeping, "SETTLED", 0)


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("lists"), **SIZES)


def folders(root: Path) -> Path:
    """Two classes, one of them with a folder in it, and a file that is no image."""
    for name in ("train/a/1.png", "train/a/2.png", "train/b/x/1.png", "train/b/y/1.png"):
        picture(root / name)
    for name in ("val/a/é.png", "val/b/2.png"):
        picture(root / name)
    (root / "train/a/notes.txt").write_text("x")
    return root


def everything(data: LabelledImages) -> dict[str, Any]:
    splits = {"train": data.train, "val": data.val}
    return {
        "facts": (data.name, data.classes, data.fingerprint, data.notes, data.standard),
        "names": {name: list(split.names) for name, split in splits.items()},
        "paths": {name: str(split.path(0)) for name, split in splits.items()},
        "targets": {name: split.targets.tolist() for name, split in splits.items()},
        "upright": {name: split.upright for name, split in splits.items()},
        "of_split": {name: of_split(split, data.classes) for name, split in splits.items()},
    }


def nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_folders, "images_of", None)
    for module in ("inaturalist", "places"):
        monkeypatch.setattr(f"tasks.classification.{module}.refuse_missing", None)


@pytest.mark.parametrize("task", ["imagenet1k", "folder", "inat2018", "places205", "places365"])
def test_what_is_kept_is_what_is_read(
    task: str, lists: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = task in ("imagenet1k", "folder")
    root = folders(tmp_path / "data") if own else lists / task
    with monkeypatch.context() as without:
        without.setattr(keeping, "LEAST_IMAGES", 2**40)
        expected = everything(read(task, root))
    assert everything(read(task, root)) == expected
    nothing_is_read(monkeypatch)
    assert everything(read(task, root)) == expected


def add(root: Path) -> None:
    picture(root / "train/b/x/2.png")


def remove(root: Path) -> None:
    (root / "train/a/2.png").unlink()


def rename(root: Path) -> None:
    (root / "train/a/2.png").rename(root / "train/a/3.png")


def rename_folder(root: Path) -> None:
    (root / "train/b/x").rename(root / "train/b/z")


def new_class(root: Path) -> None:
    picture(root / "train/c/2.png")


def write_over(root: Path) -> None:
    (root / "train/a/2.png").write_bytes(b"less")


def pass_over(root: Path) -> None:
    (root / "train/a/more.txt").write_text("x")


@pytest.mark.parametrize(
    "change", [add, remove, rename, rename_folder, new_class, write_over, pass_over]
)
def test_what_changes_in_the_folders_is_noticed(
    change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folders(tmp_path / "data")
    first = everything(read("imagenet1k", root))
    change(root)
    found = everything(read("imagenet1k", root))
    assert found != first
    monkeypatch.setattr(keeping, "LEAST_IMAGES", 2**40)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert found == everything(read("imagenet1k", root))


def test_a_link_to_another_folder_is_noticed(tmp_path: Path) -> None:
    root, there = folders(tmp_path / "data"), tmp_path / "there"
    for number in range(3):
        picture(there / f"{number}/{number}.png")
    link = root / "train/a/link"
    link.symlink_to(there / "0")
    names = list(read("imagenet1k", root).train.names)
    link.unlink()
    link.symlink_to(there / "1")
    assert list(read("imagenet1k", root).train.names) != names
    picture(there / "1/new.png")
    assert "train/a/link/new.png" in list(read("imagenet1k", root).train.names)


def test_lists_that_change_and_images_that_go_are_noticed(lists: Path, tmp_path: Path) -> None:
    root = tmp_path / "inat2018"
    shutil.copytree(lists / "inat2018", root)
    first = read("inat2018", root)
    file = root / "train2018.json"
    content = json.loads(file.read_text())
    one, other = content["annotations"][:2]
    one["category_id"], other["category_id"] = other["category_id"], one["category_id"]
    file.write_text(json.dumps(content))
    second = read("inat2018", root)
    assert second.fingerprint != first.fingerprint
    second.train.path(0).unlink()
    with pytest.raises(TaskError, match="1 of 30 images named in"):
        read("inat2018", root)


def test_folders_that_were_written_just_now_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another file may come within what the system's clock tells apart."""
    monkeypatch.setattr(images_keeping, "SETTLED", unchanged.SETTLED)
    read("imagenet1k", folders(tmp_path / "data"))
    assert "read at every start, since its folders have been written" in capsys.readouterr().err
    assert not list(tmp_path.glob("cache/**/*.safetensors"))


def test_of_many_files_some_are_looked_at_others_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images_keeping, "LOOKED_AT", 1)
    monkeypatch.setattr(images_keeping, "sampled", lambda count: [])
    root = folders(tmp_path / "data")
    read("imagenet1k", root)
    write_over(root)
    for _ in range(60):
        found = read("imagenet1k", root)
        assert found.train.names.sizes is not None
        if 4 in found.train.names.sizes:
            break
    np.testing.assert_array_equal(found.train.names.sizes == 4, [False, True, False, False])
