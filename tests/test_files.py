"""Both helpers that open strangers' files, by one set of tests."""

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
