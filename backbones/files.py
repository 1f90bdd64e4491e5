"""Files of strangers, of which only regular ones are opened, and ours, whole or not there.

Imports no torch. `results.files` is its twin for the package that imports no sibling.
"""

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
HALF_WRITTEN = ".partial"
"""how the names of unfinished files end; a killed process may leave one"""

WHOLE = ("model.safetensors", "pytorch_model.bin")
"""what Hugging Face calls the weights in a folder"""
INDEX_ENDING = ".index.json"
NAMES = tuple(name for whole in WHOLE for name in (whole, whole + INDEX_ENDING))
"""of the files that a folder may have them in, best first"""
RUN_FILES = ("run.json", "record.json")
"""what tells the folder of a run"""


# Windows knows some of them alone.
READING = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: Path | str, most: int | None = None) -> io.FileIO:
    """A regular file, or a link to one, opened for reading without a buffer.

    A named pipe would wait for a writer and a device may have no end. Raises OSError whose
    `strerror` says what the path is instead, or that it has more than `most` bytes.
    """
    descriptor = os.open(path, READING | getattr(os, "O_NONBLOCK", 0))
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            kind = KINDS.get(stat.S_IFMT(found.st_mode), "of an unknown kind")
            raise OSError(errno.EINVAL, f"is {kind}, not a regular file", str(path))
        if most is not None and found.st_size > most:
            raise OSError(
                errno.EFBIG,
                f"has {found.st_size:,} bytes; expected at most {most:,}",
                str(path),
            )
        return io.FileIO(descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path | str, most: int | None = None) -> bytes:
    """The bytes of a regular file; see `open_regular`."""
    with open_regular(path, most) as file:
        return file.readall()


@contextmanager
def atomic_path(file: Path) -> Iterator[Path]:
    """A temporary path, whose file becomes `file` only once it is safely on disk.

    An OSError names the file.
    """
    temporary = file.with_name(f".{file.name}{HALF_WRITTEN}")
    try:
        with naming(file):
            yield temporary
            synchronise(temporary)
        try:
            temporary.replace(file)
        except OSError as error:
            error.filename, error.filename2 = str(file), None
            raise
        synchronise(file.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic(file: Path) -> Iterator[BinaryIO]:
    """A binary stream to what becomes `file` as by `atomic_path`."""
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        yield stream


@contextmanager
def atomic_text(file: Path) -> Iterator[TextIO]:
    """The same for UTF-8 text; bytes of a file name that are none become \\udc80 to \\udcff.

    Line ends stay as they are written, as `csv` wants it.
    """
    with atomic(file) as stream:
        text = io.TextIOWrapper(stream, "utf-8", errors="backslashreplace", newline="")
        try:
            yield text
        finally:
            text.detach()  # after a flush; closing is for the owner of the stream


def synchronise(place: Path) -> None:
    """Have what was written to a file or folder reach the disk."""
    if os.name == "nt" and place.is_dir():  # which opens no folder
        return
    descriptor = os.open(place, READING)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(place: Path) -> Iterator[None]:
    """An OSError that passes through and names no file, as those of writing do, names `place`."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(place)
        raise


def weights_in(folder: Path) -> list[str]:
    """The files of a folder that Hugging Face's names say hold all weights, best first."""
    return [name for name in NAMES if (folder / name).exists()]


def holds_weights(folder: Path) -> bool:
    """Whether a folder is a checkpoint by the names in it, and not of a run of ours."""
    ours = any((folder / name).exists() for name in RUN_FILES)
    return bool(weights_in(folder)) and not ours
