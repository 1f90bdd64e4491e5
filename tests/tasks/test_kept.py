"""What readings are kept as: taken as it was written, or made anew."""

import json
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tasks import kept, unchanged
from tasks.kept import Kept, keep

ARRAYS = {
    "numbers": np.arange(300_000, dtype=np.int64).reshape(-1, 3),
    "none": np.zeros((0, 4)),
    "flags": np.array([True, False]),
    "bytes": np.frombuffer(b"a\0b", np.uint8),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what these tests keep."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/mae-bench/things"


class Maker:
    """Makes the arrays, and counts how often."""

    def __init__(self, version: int = 1) -> None:
        self.times = 0
        self.version = version

    def __call__(self) -> Kept:
        self.times += 1
        return Kept({"version": self.version, "text": "ü\ud800"}, ARRAYS)

    def kept(self) -> Kept:
        return keep("things", "source", lambda found: found.facts["version"] == self.version, self)


def same(found: Kept) -> bool:
    assert found.facts["text"] == "ü\ud800"
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)
    return True


def file_in(cache: Path) -> Path:
    (file,) = cache.glob("*.safetensors")
    return file


def test_is_made_once_and_mapped(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maker = Maker()
    assert same(maker.kept())
    assert "source: read, and kept for the next start in" in capsys.readouterr().err
    assert same(maker.kept())
    assert maker.times == 1
    assert capsys.readouterr().err == ""
    assert not maker.kept().arrays["numbers"].flags.writeable
    stored = load_file(file_in(cache))  # the library's own reader finds the same in it
    np.testing.assert_array_equal(stored["numbers"], ARRAYS["numbers"])


def flip(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(-5, os.SEEK_END)
        byte = stream.read(1)
        stream.seek(-5, os.SEEK_END)
        stream.write(bytes([byte[0] ^ 1]))


def change_header(file: Path, change: Any) -> None:
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def outside(header: dict) -> None:
    header["numbers"]["data_offsets"][1] += 8


def negative(header: dict) -> None:
    header["numbers"]["shape"] = [-100_000, -3]


def code(header: dict) -> None:
    header["numbers"]["dtype"] = "O"


def no_sums(header: dict) -> None:
    header["__metadata__"]["mae-bench"] = '{"version": 1}'


def no_facts(header: dict) -> None:
    header["__metadata__"] = {"other": "x"}


DAMAGES = {
    "a bit": flip,
    "cut off": lambda file: os.truncate(file, file.stat().st_size - 100),
    "cut in its header": lambda file: os.truncate(file, 40),
    "empty": lambda file: os.truncate(file, 0),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"more"),
    "pickle": lambda file: file.write_bytes(pickle.dumps(ARRAYS)),
    "huge header": lambda file: file.write_bytes(b"\xff" * 200),
    "deep": lambda file: file.write_bytes((10**5).to_bytes(8, "little") + b"[" * 10**5),
    "outside": lambda file: change_header(file, outside),
    "negative": lambda file: change_header(file, negative),
    "code": lambda file: change_header(file, code),
    "no sums": lambda file: change_header(file, no_sums),
    "no facts": lambda file: change_header(file, no_facts),
    "writable by others": lambda file: file.chmod(0o666),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_as_it_was_written_is_made_anew(
    damage: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Maker().kept()
    DAMAGES[damage](file_in(cache))
    capsys.readouterr()
    maker = Maker()
    assert same(maker.kept())
    said = capsys.readouterr().err
    assert "damaged" in said or "others may write to it" in said
    assert "source is read anew" in said
    assert maker.times == 1
    assert same(maker.kept())
    assert maker.times == 1
    assert file_in(cache).stat().st_mode & 0o077 == 0


def test_a_stranger_s_file_is_not_taken(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Maker().kept()
    uid = os.getuid()
    monkeypatch.setattr(kept.os, "getuid", lambda: uid + 1)
    kept.mapped.cache_clear()
    maker = Maker()
    assert same(maker.kept())
    assert maker.times == 1
    assert "it belongs to somebody else" in capsys.readouterr().err


def test_of_other_facts_it_is_stale(capsys: pytest.CaptureFixture[str]) -> None:
    Maker().kept()
    maker = Maker(version=2)
    maker.kept()
    assert maker.times == 1
    assert "the data have changed since; source is read anew" in capsys.readouterr().err


def test_without_a_folder_to_write_to_it_works_and_says_so(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file")
    maker = Maker()
    assert same(maker.kept())
    assert "source is not kept, and is read at every start" in capsys.readouterr().err


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of more than 100 kB can be written, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_on_a_full_disk_it_works_and_says_so(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maker = Maker()
    assert same(maker.kept())
    assert "source is not kept, and is read at every start" in capsys.readouterr().err
    assert [file.suffix for file in cache.iterdir()] == [".lock"]


ONE_OF_TWO = """
import sys, time
import numpy as np
from tasks.kept import Kept, keep
def make():
    print("made", flush=True)
    time.sleep(1)
    return Kept({}, {"a": np.arange(9)})
print(keep("things", "source", lambda found: True, make).arrays["a"].sum())
"""


def test_of_two_processes_at_once_one_makes_it() -> None:
    both = [
        subprocess.Popen([sys.executable, "-c", ONE_OF_TWO], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = "".join(each.communicate()[0] for each in both)
    assert sorted(said.split()) == ["36", "36", "made"]


def test_another_process_gets_the_place_and_not_the_bytes(cache: Path) -> None:
    array = Maker().kept().arrays["numbers"]
    sent = pickle.dumps(array)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent), array)
    part = pickle.loads(pickle.dumps(array[5:7]))
    np.testing.assert_array_equal(part, array[5:7])
    file_in(cache).unlink()  # then there is no place: the bytes are sent
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(array)), array)


def test_a_file_is_the_same_by_its_times_or_by_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    known = unchanged.identify(file)
    assert known["settled"] is False  # written just now: another write may leave the same times
    assert unchanged.is_same(known, file)
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_bytes(b"two")
    os.utime(file, ns=times)
    assert not unchanged.is_same(known | {"settled": True}, file)  # its change of state is later
    file.write_bytes(b"one")
    assert unchanged.is_same(known, file)
    trusted = known | unchanged.state_of(file) | {"settled": True, "digest": "another"}
    assert unchanged.is_same(trusted, file)
    assert not unchanged.is_same(trusted | {"settled": False}, file)


def test_what_a_killed_process_left_goes_when_the_next_one_writes(cache: Path) -> None:
    """safetensors' own half file, and ours; not that of who is at it now."""
    cache.mkdir(parents=True)
    for name in (".tmpb4t06b", ".a.partial", ".tmpnow"):
        (cache / name).touch()
    for name in (".tmpb4t06b", ".a.partial"):
        os.utime(cache / name, (0, 0))
    Maker().kept()
    assert [each.name for each in cache.iterdir() if each.name.startswith(".")] == [".tmpnow"]
