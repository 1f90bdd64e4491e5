"""Files that are either whole or not there. Imports no torch."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic(file: Path) -> Iterator[BinaryIO]:
    """A binary stream to a temporary file that becomes `file` only once it is safely on disk."""
    temporary = file.with_name(f".{file.name}.partial")
    try:
        with temporary.open("wb") as stream:
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


def write_json(file: Path, content: Any) -> None:
    """Write JSON atomically."""
    with atomic(file) as stream:
        stream.write((json.dumps(content, indent=2) + "\n").encode())
