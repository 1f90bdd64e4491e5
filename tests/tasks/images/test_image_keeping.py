"""A walk that is kept for the next process: the same as one that is made."""

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pictures import picture

from tasks import unchanged
from tasks.images import UnlabelledImages, keeping


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for what is kept, which here short lists are, too, and those just written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(keeping, "LEAST_IMAGES", 0)
    monkeypatch.setattr(keeping, "SETTLED", 0)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two folders, with a held-out one, hidden ones, links, and files that are no images."""
    one, other = tmp_path / "one", tmp_path / "other"
    names = ("a/1.png", "a/2.png", "b/x/3.png", "é.png", "val/4.png", ".hidden/5.png")
    for number, file in enumerate([*(one / name for name in names), other / "6.png"]):
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(8, 8, seed=number).save(file)
    (one / "a/notes.txt").write_text("x")
    (one / "a/up").symlink_to("..")
    (one / "twice").symlink_to("b")
    return [one, other]


def everything(folders: list[Path]) -> dict[str, Any]:
    left_out = {"of the test": [folders[0].absolute() / "a/2.png"]}
    data = UnlabelledImages(folders, 8, leave_out=left_out)
    return {
        "names": list(data.all_names),
        "parts": {folder: list(names) for folder, names in data.all_names.parts.items()},
        "notes": data.notes(),
        "fingerprint": data.fingerprint,
    }


def expected(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    with monkeypatch.context() as without:
        without.setattr(keeping, "LEAST_IMAGES", 2**40)
        return everything(folders)


def check(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A first and a later start; the later one walks nowhere and asks for few sizes."""
    found = expected(folders, monkeypatch)
    assert everything(folders) == found
    with monkeypatch.context() as later:
        later.setattr(keeping, "walk", None)
        assert everything(folders) == found
    return found


def test_what_is_kept_is_what_is_walked(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = check(folders, monkeypatch)
    assert len(found["names"]) == 4
    assert len(found["notes"]) == 7


def test_in_an_archive_too(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "images.tar"
    with tarfile.open(archive, "w") as tar:
        for row in range(5):
            tar.add(folders[1] / "6.png", f"{row % 2}/{row}.png")
    assert len(check([folders[0], archive], monkeypatch)["names"]) == 8


def add(one: Path) -> None:
    picture(8, 8).save(one / "b/x/new.png")


def add_to_held_out(one: Path) -> None:
    picture(8, 8).save(one / "val/new.png")


def remove(one: Path) -> None:
    (one / "a/1.png").unlink()


def rename(one: Path) -> None:
    (one / "a/1.png").rename(one / "a/0.png")


def rename_folder(one: Path) -> None:
    (one / "b/x").rename(one / "b/y")


def write_over(one: Path) -> None:
    (one / "a/1.png").write_bytes(b"less")


def pass_over(one: Path) -> None:
    (one / "a/more.txt").write_text("x")


def move_link(one: Path) -> None:
    (one / "twice").unlink()
    (one / "twice").symlink_to("a")


@pytest.mark.parametrize(
    "change",
    [add, add_to_held_out, remove, rename, rename_folder, write_over, pass_over, move_link],
)
def test_what_changes_is_noticed(
    change: Callable[[Path], None], folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = everything(folders)
    change(folders[0])
    found = everything(folders)
    assert found != first
    assert found == expected(folders, monkeypatch)


def test_other_suffixes_and_folders_are_others(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = everything(folders)
    assert everything(folders[:1]) == expected(folders[:1], monkeypatch) != whole
    assert everything(folders[::-1]) == expected(folders[::-1], monkeypatch) != whole
    monkeypatch.setattr("tasks.images.unlabelled.OWN_SUFFIXES", frozenset(("png", "txt")))
    assert any("notes.txt" in name for name in everything(folders)["names"])


def test_folders_that_were_written_just_now_are_walked_again(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(keeping, "SETTLED", unchanged.SETTLED)
    assert everything(folders) == expected(folders, monkeypatch)
    assert "read at every start, since its folders have been written" in capsys.readouterr().err
