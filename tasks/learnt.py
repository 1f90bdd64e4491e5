"""The classes that a run has learnt, as a file in its folder."""

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
    try:
        text = read_regular(file, MOST_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TaskError(
            f"{file}: {reason}; expected the names of the run's classes, one per line, in the "
            "order of their indices"
        ) from None
    return text.removesuffix("\n").split("\n")


def as_lines(classes: Sequence[str]) -> list[str]:
    """Class names as the file holds them: each in one line."""
    return [name.replace("\r", "\\r").replace("\n", "\\n") for name in classes]
