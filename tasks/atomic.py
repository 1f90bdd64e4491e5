"""Files that are either whole or not there. Imports no torch."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

PARTIAL = ".partial"
"""how the names of unfinished files end; a killed process may leave one"""


@contextmanager
def atomic(file: Path) -> Iterator[BinaryIO]:
    """A binary stream to a temporary file that becomes `file` only once it is safely on disk.

    An OSError names the file.
    """
    temporary = file.with_name(f".{file.name}{PARTIAL}")
    try:
        with naming(file), temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
        directory = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        temporary.unlink(missing_ok=True)


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


@contextmanager
def naming(place: Path) -> Iterator[None]:
    """An OSError that passes through and names no file, as those of writing do, names `place`."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(place)
        raise
