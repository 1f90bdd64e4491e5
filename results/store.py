"""Records on disk: one `record.json` per run folder, written once and never changed."""

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from results.errors import ResultsError
from results.files import new_file
from results.objects import MAX_REASON, read_bounded
from results.record import Record, parse_record
from results.text import one_line

FILE_NAME = "record.json"
MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 6
"""folders below the root that are searched"""
RUN_FILE = "run.json"
"""what a run writes first"""
CANDIDATES = "candidates"
"""the runs of a sweep, in the folder of the run that it is for: no results by themselves"""
NO_RUNS = ("state", "tensorboard", "wandb", "predictions", CANDIDATES)
"""what a run keeps in folders of its own: thousands of files, and no run to report among them"""


@dataclass(frozen=True)
class Skipped:
    """A file or folder that holds no readable record, and why (one line)."""

    path: Path
    reason: str


def write_record(folder: str | Path, record: Record) -> Path:
    """Write `folder`/record.json; a reader sees no file or the whole one, never a part.

    Records are append-only: a file that is there stays as it is, whatever it holds. The same
    record once more changes nothing; for anything else ResultsError is raised, as it is for a
    record that would not read back equal.
    """
    text = record.to_json()
    if len(text.encode()) > MAX_BYTES:
        raise ResultsError(f"record of run {record.name!r} is over {MAX_BYTES} bytes")
    if parse_record(text) != record:  # a mutated dict can hold what the schema refuses
        raise ResultsError(f"record of run {record.name!r} does not survive being written as JSON")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    if path.exists():
        return _same_record(path, record)
    try:
        with new_file(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except FileExistsError:
        return _same_record(path, record)
    return path


def _same_record(path: Path, record: Record) -> Path:
    """`path`, where a record lies already; ResultsError unless it is `record`."""
    try:
        same = read_record(path) == record
    except ResultsError as error:
        raise ResultsError(
            f"{path} is there, and no record ({error}); look at it, and move it away"
        ) from None
    if not same:
        raise ResultsError(
            f"{path} holds the record of another run; records are never overwritten: choose "
            "another folder"
        )
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
    found = [each for _, each in read_folders(root)]
    records = [each for each in found if isinstance(each, Record)]
    skipped = [each for each in found if isinstance(each, Skipped)]
    records.sort(key=lambda record: (record.finished, record.name))
    skipped.sort(key=lambda item: item.path)
    return records, skipped


def read_folders(
    root: Path, others: Collection[str] = ()
) -> Iterator[tuple[Path, Record | Skipped | None]]:
    """Each of `record_folders` with its record, or why that or the folder cannot be read.

    None: a folder without a record that holds a file of one of the names in `others`.
    """
    closed: list[Skipped] = []

    def unreadable(error: OSError) -> None:
        closed.append(Skipped(Path(error.filename), f"cannot be opened: {error.strerror}"))

    for folder in folders_with((FILE_NAME, *others), root, unreadable):
        yield folder, read_folder(folder)
    yield from ((each.path, each) for each in closed)


def read_folder(folder: Path) -> Record | Skipped | None:
    """The record in a folder, or why it cannot be read; None: there is none."""
    file = folder / FILE_NAME
    try:
        return read_record(file) if os.path.lexists(file) else None
    except ResultsError as error:
        return Skipped(file, str(error))


def record_folders(root: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Folders that hold a record.json, `root` and below; MAX_DEPTH deep, no linked folders."""
    return folders_with((FILE_NAME,), root, on_error)


def folders_with(
    names: Collection[str], root: Path, on_error: Callable[[OSError], None] | None = None
) -> Iterator[Path]:
    """Folders that hold a file of one of these names, searched as by `record_folders`."""
    top = len(root.parts)
    for folder, subfolders, files in os.walk(root, onerror=on_error):
        place = Path(folder)
        found = not set(names).isdisjoint(files)
        if len(place.parts) - top >= MAX_DEPTH:
            subfolders.clear()
        elif found or RUN_FILE in files:
            subfolders[:] = [name for name in subfolders if name not in NO_RUNS]
        subfolders.sort()
        if found:
            yield place


def read_record(path: Path) -> Record:
    """The record in a file. Raises ResultsError with a one-line reason for anything else."""
    content = read_bounded(path, MAX_BYTES)
    try:
        return parse_record(content)
    except ResultsError as error:  # which may repeat what the file says
        raise ResultsError(one_line(str(error), MAX_REASON)) from None
