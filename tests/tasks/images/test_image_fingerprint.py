"""What names data by their content: sensitive to what matters, and to nothing else."""

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.images import fingerprint
from tasks.images.fingerprint import DIGITS, GONE, Fingerprint, changed, file_sizes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.bytes(1000))
    return tmp_path / "data"


def of(root: Path) -> str:
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))
    print_ = Fingerprint()
    print_.add_files(root, names)
    return print_.hexdigest()


def test_the_same_data_elsewhere_and_at_another_time_are_the_same(
    folder: Path, tmp_path: Path
) -> None:
    first = of(folder)
    assert len(first) == DIGITS
    assert int(first, 16) >= 0
    shutil.copytree(folder, tmp_path / "copy")
    os.utime(tmp_path / "copy/a/1.jpg", (1, 1))
    assert of(tmp_path / "copy") == first
    (tmp_path / "link").symlink_to(folder)
    assert of(tmp_path / "link") == first


def test_names_sizes_and_pixels_each_count(folder: Path) -> None:
    prints = {of(folder)}
    file = folder / "a/2.jpg"
    old = file.read_bytes()
    file.write_bytes(old[:500] + bytes([old[500] ^ 1]) + old[501:])  # other pixels, the same size
    prints.add(of(folder))
    file.write_bytes(old + b"\0")
    prints.add(of(folder))
    file.write_bytes(old)
    file.rename(folder / "a/20.jpg")
    prints.add(of(folder))
    (folder / "a/20.jpg").unlink()
    prints.add(of(folder))
    (folder / "b/3.jpg").unlink()
    (folder / "b/3.jpg").symlink_to("nowhere")
    prints.add(of(folder))
    assert len(prints) == 6


def test_each_part_is_apart_from_the_next() -> None:
    def of_parts(*parts: str) -> str:
        print_ = Fingerprint()
        print_.add(*parts)
        return print_.hexdigest()

    assert len({of_parts(*parts) for parts in (("ab",), ("a", "b"), ("", "ab"), ("ab", ""))}) == 4


@pytest.mark.parametrize("slow", [0, 1e9])
def test_sizes_are_those_of_the_files_in_their_order(
    slow: float, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By threads, as on storage that is slow, and one after the other."""
    monkeypatch.setattr(fingerprint, "BLOCK", 7)
    monkeypatch.setattr(fingerprint, "SLOW", slow)
    started: list[str] = []
    look = fingerprint.look

    def looking(*arguments: Any) -> list[int]:
        started.append(threading.current_thread().name)
        return look(*arguments)

    monkeypatch.setattr(fingerprint, "look", looking)
    names = []
    for number in range(100):
        (folder / f"{number}.bin").write_bytes(bytes(number))
        names.append(f"{number}.bin")
    names.insert(50, "gone.bin")
    expected = [*range(50), GONE, *range(50, 100)]
    assert file_sizes(folder, names).tolist() == expected
    assert len(started) == 15
    assert {name == "MainThread" for name in started[1:]} == {bool(slow)}


def test_a_large_data_set_is_sampled_and_sized_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fortieth is read: single files with other pixels pass, other sizes never do."""
    monkeypatch.setattr(fingerprint, "SAMPLE", 2)
    for number in range(80):
        (folder / f"{number}.jpg").write_bytes(bytes([number]) * 50)
    read: list[str] = []
    content = fingerprint.content
    monkeypatch.setattr(fingerprint, "content", lambda path: read.append(path) or content(path))
    names = sorted(path.name for path in folder.glob("*.jpg"))

    def of_sample() -> str:
        print_ = Fingerprint()
        print_.add_files(folder, names, sample=2)
        return print_.hexdigest()

    first = of_sample()
    assert len(read) == 2
    for path in folder.glob("*.jpg"):
        old = path.read_bytes()
        path.write_bytes(old[1:])
        assert of_sample() != first
        path.write_bytes(old[:-1] + b"\xff")
        assert (of_sample() != first) == (str(path) in read[:2])
        path.write_bytes(old)
    assert of_sample() == first


@pytest.mark.parametrize("at", [0, 499_999, 999_999])
def test_a_long_file_is_read_in_three_places(tmp_path: Path, at: int) -> None:
    data = bytearray(1_000_000)
    (tmp_path / "a.jpg").write_bytes(data)
    first = of(tmp_path)
    data[at] = 1
    (tmp_path / "a.jpg").write_bytes(data)
    assert of(tmp_path) != first


def test_pipes_and_loops_are_no_files_and_never_wait(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    assert of(folder) == of(folder)


def test_a_difference_is_told_from_another_kind() -> None:
    assert "the data are others, or were changed or repaired" in changed("a" * 20, "b" * 20)
    assert "not known" in changed("a" * 16, "b" * 20)
