"""The classes that a run has learnt, as a file in its folder."""

import re
from collections.abc import Sequence
from pathlib import Path

from backbones.files import atomic_text, read_regular
from tasks.errors import TaskError

CLASSES_FILE = "classes.txt"
MOST_BYTES = 64 * 1024**2


def write_classes(file: Path, classes: Sequence[str]) -> None:
    """Class names in the order of their indices, one per line; a line break in one as \\n."""
    with atomic_text(file) as stream:
        stream.writelines(f"{name}\n" for name in as_lines(classes))


def read_classes(file: Path) -> list[str]:
    """Class names of a run, in the order of their indices; `TaskError` if there is no such file."""
    return read_text(file, "utf-8").removesuffix("\n").split("\n")


def read_listed(file: Path) -> list[str]:
    """The same of a file that a user wrote, perhaps on Windows: each name is there once."""
    names = re.split("\r\n|\r|\n", read_text(file, "utf-8-sig"))
    while names and not names[-1].strip(" \t"):
        names.pop()
    seen: dict[str, int] = {}
    for line, name in enumerate(names, start=1):
        first = seen.setdefault(name, line)
        if not name.strip(" \t") or first != line:
            what = f"has {name!r} in line {first}, too" if first != line else "is empty"
            raise TaskError(
                f"{file}: line {line} {what}; expected the names of the classes, one per line and "
                "each once, in the order of their indices"
            )
    return names


def read_text(file: Path, encoding: str) -> str:
    try:
        return read_regular(file, MOST_BYTES).decode(encoding)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TaskError(
            f"{file}: {reason}; expected the names of the run's classes, one per line, in the "
            "order of their indices"
        ) from None


def as_lines(classes: Sequence[str]) -> list[str]:
    """Class names as the file holds them: each in one line."""
    return [name.replace("\r", "\\r").replace("\n", "\\n") for name in classes]
