"""Both helpers that open strangers' files and write ours, by one set of tests."""

import errno
import os
import socket
from pathlib import Path
from types import ModuleType

import pytest

import backbones.files
import results.files

both = pytest.mark.parametrize("files", [backbones.files, results.files])


@both
def test_a_regular_file_and_a_link_to_it_are_read(files: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"12345")
    (tmp_path / "link").symlink_to(file)
    assert files.read_regular(file) == b"12345"
    assert files.read_regular(str(tmp_path / "link"), most=5) == b"12345"
    with files.open_regular(file) as opened:
        assert opened.read(2) == b"12"


@both
def test_what_has_no_end_or_no_writer_is_refused_at_once(files: ModuleType, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(tmp_path)  # the name of a socket is short
        try:
            listening.bind("socket")
        finally:
            os.chdir(here)
        for path, kind in [
            (tmp_path / "pipe", "a named pipe"),
            (Path("/dev/zero"), "a device"),
            (tmp_path, "a folder"),
        ]:
            with pytest.raises(OSError, match=f"is {kind}, not a regular file") as caught:
                files.read_regular(path)
            assert caught.value.filename == str(path)
        with pytest.raises(OSError, match=r"socket|No such device"):
            files.read_regular(tmp_path / "socket")


@both
def test_a_sparse_file_is_judged_by_its_length(files: ModuleType, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(OSError, match="has 1,099,511,627,776 bytes; expected at most 1,000") as e:
        files.read_regular(tmp_path / "sparse", most=1000)
    assert e.value.errno == errno.EFBIG


@both
def test_no_descriptor_stays_open(files: ModuleType, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    for _ in range(3):
        with pytest.raises(OSError, match="named pipe"):
            files.open_regular(tmp_path / "pipe")
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    assert after == before


writers = pytest.mark.parametrize("writer", [backbones.files.atomic_path, results.files.new_file])


@writers
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_a_file_is_whole_or_not_there(writer, kind: type[BaseException], tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    with pytest.raises(kind) as caught, writer(file) as temporary:
        temporary.write_bytes(b"half")
        assert not file.exists()
        raise kind(errno.ENOSPC, "No space left")
    if isinstance(caught.value, OSError):
        assert caught.value.filename == str(file)
    assert not list(tmp_path.iterdir())
    with writer(file) as temporary:
        temporary.write_bytes(b"whole")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("a.bin", b"whole")]


def test_a_new_file_replaces_none_and_an_atomic_one_does(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"old")
    with pytest.raises(FileExistsError), results.files.new_file(file) as temporary:
        temporary.write_bytes(b"new")
    assert file.read_bytes() == b"old"
    with backbones.files.atomic(file) as stream:
        stream.write(b"new")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("a.bin", b"new")]


def test_what_cannot_be_replaced_is_named_and_not_what_was_to_replace_it(tmp_path: Path) -> None:
    file = tmp_path / "predictions.csv"
    file.mkdir()
    with pytest.raises(OSError, match="directory") as error, backbones.files.atomic(file) as stream:
        stream.write(b"1,2\n")
    assert (error.value.filename, error.value.filename2) == (str(file), None)
    assert list(tmp_path.iterdir()) == [file]
