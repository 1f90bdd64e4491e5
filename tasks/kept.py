"""What reading a data set came to, kept on this machine for the processes that read it next.

One file for each source, in the layout of safetensors: arrays, which are mapped, so that all
processes share their pages, and facts as JSON. Nothing in it is code. A file that is not as it was
written, or that others may write to, is made anew, which is said; so it is without a cache where
none can be kept. Imports no torch.
"""

import hashlib
import json
import mmap
import os
import stat
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.numpy import save_file

from backbones.files import open_regular
from tasks.cache import cache_folder

TYPES = {"F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
"""safetensors' names of the types that are kept"""
MOST_HEADER = 2**26
"""bytes"""
SECONDS = 1800.0
"""how long another process may take to read the same, before this one does it, too; a tar of a
million files takes minutes"""
OLD = 3600.0
"""seconds after which nobody writes a file any more that is not whole"""
BROKEN = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""what reading a file of another make ends in"""
OURS = "mae-bench"
"""the entry of safetensors' metadata that holds the facts"""


@dataclass(frozen=True, eq=False)
class Kept:
    """Arrays, and facts as JSON has them."""

    facts: dict[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    not_kept: str | None = None
    """why it is of no use to the next process, if so; empty: it is not worth a word"""


class Shared(np.ndarray):
    """An array in a mapped file: another process gets the place, not the bytes."""

    place: "tuple[str, tuple[int, ...], str] | None" = None
    """file, what tells it from others, and name in it; None for parts of an array"""

    def __array_finalize__(self, other: Any) -> None:
        self.place = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.place is not None and is_there(*self.place[:2]):
            return shared, self.place
        return np.array(self, subok=False).__reduce_ex__(protocol)


def say(text: str) -> None:
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def keep(
    kind: str,
    source: str,
    is_current: Callable[[Kept], bool],
    make: Callable[[], Kept],
    one: bool = True,
    known_by: str | None = None,
) -> Kept:
    """What is kept of a source, or what `make` returns, which is kept.

    `kind` is the folder in the cache. `is_current` tells whether what was kept is of the source as
    it is now; ValueError: it is damaged. `one`: one process makes it while others wait; else some
    may make the same. `known_by`: what tells it from other sources; None: its name.
    """
    name = hashlib.sha256(os.fsencode(source if known_by is None else known_by)).hexdigest()[:32]
    file = cache_folder() / kind / f"{name}.safetensors"
    found = load(file, is_current)
    if isinstance(found, Kept):
        return found
    with ExitStack() as stack:
        problem = lock(file, stack) if one else ""
        if one and not problem:
            again = load(file, is_current)
            if isinstance(again, Kept):
                return again
            found = again
        if found:
            say(f"{file}: {found}; {source} is read anew")
        made = make()
        if made.not_kept is not None:
            if made.not_kept:
                say(f"{source}: read at every start, since {made.not_kept}")
            return made
        problem = problem or write(file, made)
        if problem:
            say(f"{file}: {problem}; {source} is not kept, and is read at every start")
            return made
        say(f"{source}: read, and kept for the next start in {file}")
    try:
        return Kept(*mapped(str(file), stamp_of(str(file))))
    except (OSError, *BROKEN):  # somebody has been faster
        return made


def lock(file: Path, stack: ExitStack) -> str:
    """Wait for others that make the same; what keeps this process from it, if anything."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        stack.enter_context(FileLock(f"{file}.lock", timeout=SECONDS))
    except Timeout:
        return f"another process holds its lock for more than {SECONDS:.0f} s"
    except NotImplementedError:  # a file system without locks: several make the same
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""


def write(file: Path, made: Kept) -> str:
    """Write a file, whole or not at all; what keeps it from being written, if anything.

    It may be torn by a crash of the machine all the same, which its sums tell.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in made.arrays.items()}
    facts = made.facts | {"sums": sums(arrays)}
    temporary = ""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        sweep(file.parent)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".partial")
        os.close(descriptor)
        save_file(arrays, temporary, {OURS: json.dumps(facts)})
        Path(temporary).replace(file)
    except (OSError, SafetensorError) as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        return getattr(error, "strerror", None) or str(error)
    return ""


def sweep(folder: Path) -> None:
    """Remove what killed processes have left of their writing, of safetensors' too."""
    for left in folder.glob(".*"):
        with suppress(OSError):
            if left.is_file() and time.time() - left.stat().st_mtime > OLD:
                left.unlink()


def sums(arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """CRC-32 of each array."""

    def one(name: str) -> tuple[str, int]:
        return name, zlib.crc32(np.asarray(arrays[name]).reshape(-1).view(np.uint8).data)

    with ThreadPoolExecutor(2) as pool:  # they leave the others' work to Python meanwhile
        return dict(pool.map(one, sorted(arrays, key=lambda name: -arrays[name].nbytes)))


def load(file: Path, is_current: Callable[[Kept], bool]) -> Kept | str:
    """What is kept, mapped; or why it is not taken, "" if there is nothing."""
    try:
        stamp = stamp_of(str(file))
        found = Kept(*mapped(str(file), stamp))
        if not is_current(found):
            return "the data have changed since"
        if sums(found.arrays) != found.facts.get("sums"):
            return "it is damaged"
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    except BROKEN:
        return "it is damaged, or no file of ours"
    return found


def stamp_of(file: str) -> tuple[int, ...]:
    """What tells a file from one that takes its place. Raises OSError."""
    found = Path(file).stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def is_there(file: str, stamp: tuple[int, ...]) -> bool:
    """Whether a file is the one that was mapped."""
    try:
        return stamp_of(file) == stamp
    except OSError:
        return False


def shared(file: str, stamp: tuple[int, ...], name: str) -> np.ndarray:
    """An array in another process."""
    return mapped(file, stamp)[1][name]


@lru_cache(maxsize=8)
def mapped(file: str, stamp: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, Shared]]:
    """The facts and arrays of a file, as `Shared`. OSError, or ValueError for what is no such file.

    safetensors' own reading copies; so the offsets in its header are followed here.
    """
    with open_regular(file) as stream:
        status = os.fstat(stream.fileno())
        if is_foreign(status):
            raise PermissionError(0, "it belongs to somebody else, or others may write to it")
        size = int.from_bytes(stream.read(8) or b"", "little")
        if not 0 < size <= min(MOST_HEADER, status.st_size - 8):
            raise ValueError("its header leads out of it")
        header = json.loads(stream.read(size) or b"")
        pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    facts = json.loads(header.pop("__metadata__")[OURS])
    arrays, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, after = entry["data_offsets"]
        kind, shape = np.dtype(TYPES[entry["dtype"]]), tuple(entry["shape"])
        count = int(np.prod(shape, dtype=object))
        if begin != end or after - begin != count * kind.itemsize or min(shape, default=0) < 0:
            raise ValueError("its parts do not follow each other")
        flat = np.frombuffer(pages, kind, count, 8 + size + begin) if count else np.empty(0, kind)
        arrays[name] = flat.reshape(shape).view(Shared)
        arrays[name].place = (file, stamp, name)
        end = after
    if 8 + size + end != status.st_size:
        raise ValueError("it is cut off, or goes on")
    return facts, arrays


def is_foreign(status: os.stat_result) -> bool:
    """Whether others than this user can have written a file."""
    if not hasattr(os, "getuid"):  # Windows
        return False
    return status.st_uid != os.getuid() or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
