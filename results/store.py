"""Records on disk: one `record.json` per run folder."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from results.errors import ResultsError
from results.record import Record, parse_record

FILE_NAME = "record.json"
MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 6
"""folders below the root that are searched"""


@dataclass(frozen=True)
class Skipped:
    """A file or folder that holds no readable record, and why (one line)."""

    path: Path
    reason: str


def write_record(folder: str | Path, record: Record) -> Path:
    """Write `folder`/record.json; a reader sees the old file or the whole new one, never a part.

    Raises ResultsError when the record would not read back equal.
    """
    text = record.to_json()
    if len(text.encode()) > MAX_BYTES:
        raise ResultsError(f"record of run {record.name!r} is over {MAX_BYTES} bytes")
    if parse_record(text) != record:  # a mutated dict can hold what the schema refuses
        raise ResultsError(f"record of run {record.name!r} does not survive being written as JSON")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    partial = folder / f".{FILE_NAME}.{os.getpid()}.partial"
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def read_records(root: str | Path) -> tuple[list[Record], list[Skipped]]:
    """Every record in `root` and below, oldest finish first (then by name), and what was skipped.

    Searches MAX_DEPTH folders deep and follows no linked folders. A broken, truncated, oversize
    or foreign file is reported, never fatal. Raises ResultsError when `root` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise ResultsError(
            f"{root}: no such folder of runs; name the folder that `mae-bench transfer` wrote to"
        )
    records: list[Record] = []
    skipped: list[Skipped] = []

    def unreadable(error: OSError) -> None:
        skipped.append(Skipped(Path(error.filename), f"cannot be opened: {error.strerror}"))

    for folder in record_folders(root, unreadable):
        try:
            records.append(_read(folder / FILE_NAME))
        except ResultsError as error:
            skipped.append(Skipped(folder / FILE_NAME, str(error)))
    records.sort(key=lambda record: (record.finished, record.name))
    skipped.sort(key=lambda item: item.path)
    return records, skipped


def record_folders(root: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Folders that hold a record.json, `root` and below; MAX_DEPTH deep, no linked folders."""
    for folder, subfolders, files in os.walk(root, onerror=on_error):
        subfolders.sort()
        if len(Path(folder).relative_to(root).parts) >= MAX_DEPTH:
            subfolders.clear()
        if FILE_NAME in files:
            yield Path(folder)


def _read(path: Path) -> Record:
    if not path.is_file():
        raise ResultsError("not a regular file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ResultsError(f"cannot be opened: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise ResultsError(f"larger than {MAX_BYTES // 1024**2} MB; not a record of mae-bench")
    return parse_record(content)
