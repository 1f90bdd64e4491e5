"""Files that are either whole or not there. Imports no torch."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

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
def naming(place: Path) -> Iterator[None]:
    """An OSError that passes through and names no file, as those of writing do, names `place`."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(place)
        raise


def write_json(file: Path, content: Any) -> None:
    """Write JSON atomically."""
    with atomic(file) as stream:
        stream.write((json.dumps(content, indent=2) + "\n").encode())


def sweep(folder: Path) -> None:
    """Remove what a killed process was in the middle of writing into `folder`."""
    for left in folder.glob(f"*{PARTIAL}"):
        left.unlink(missing_ok=True)
