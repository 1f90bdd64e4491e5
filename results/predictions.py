"""Which test images a run classified right, from the `predictions.csv` of its folder."""

import csv
import errno
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from results.errors import ResultsError
from results.files import open_regular
from results.record import Record
from results.store import FILE_NAME as RECORD_FILE
from results.store import read_record, record_folders

FILE_NAME = "predictions.csv"
COLUMNS = ["file", "target", "class_1"]
MAX_BYTES = 1024**3
MAX_CLASSES = 100_000
MAX_ROWS = 10_000_000
MAX_LINE = 64 * 1024


@dataclass(frozen=True)
class RunScores:
    """A run, and which test images it got right where its predictions are kept."""

    record: Record
    hits: dict[str, bool] | None = None
    """test image -> whether the best class is its class"""


def read_run_scores(root: str | Path) -> list[RunScores]:
    """Every finished run in `root` and below, with its predictions where it has some.

    Raises ResultsError for a folder without runs, and with the file's name for a broken one.
    """
    found = []
    for folder in record_folders(Path(root)):
        try:
            record = read_record(folder / RECORD_FILE)
        except ResultsError as error:
            raise ResultsError(f"{folder / RECORD_FILE}: {error}") from None
        file = folder / FILE_NAME
        found.append(RunScores(record, read_hits(file) if file.is_file() else None))
    if not found:
        raise ResultsError(f"{root}: no finished run; expected a folder with a {RECORD_FILE}")
    return found


def read_hits(file: Path) -> dict[str, bool]:
    """Test image -> whether it was classified right. Reads no more than MAX_ROWS rows.

    Raises ResultsError, with file and row, for anything but a table with COLUMNS.
    """
    hits: dict[str, bool] = {}
    try:
        with (
            open_regular(file, MAX_BYTES) as binary,
            io.TextIOWrapper(
                io.BufferedReader(binary), "utf-8", "surrogateescape", newline=""
            ) as stream,
        ):
            reader = csv.reader(_bounded(stream), strict=True)
            header = next(reader, [])
            if any(name not in header for name in COLUMNS):
                raise ResultsError(f"{file}: columns are not {', '.join(COLUMNS)}, ...")
            places = [header.index(name) for name in COLUMNS]
            for row in reader:
                if len(row) != len(header):
                    raise ValueError(f"{len(row)} cells for {len(header)} columns")
                name, target, best = (row[place] for place in places)
                if name in hits:
                    raise ValueError("an image for the second time")
                if len(hits) == MAX_ROWS:
                    raise ValueError(f"more than {MAX_ROWS} images")
                classes = int(target), int(best)
                if not 0 <= min(classes) <= max(classes) < MAX_CLASSES:
                    raise ValueError(f"a class below 0 or of {MAX_CLASSES} and more")
                hits[name] = classes[0] == classes[1]
    except OSError as error:
        too_large = f"over {MAX_BYTES} bytes" if error.errno == errno.EFBIG else error.strerror
        raise ResultsError(f"{file}: cannot be opened: {too_large}") from None
    except (ValueError, csv.Error) as error:
        if isinstance(error, ResultsError):
            raise
        raise ResultsError(f"{file}, row {len(hits) + 1}: {error}; expected a run's file") from None
    if not hits:
        raise ResultsError(f"{file}: has no images; expected a row for each")
    return hits


def _bounded(stream: TextIO) -> Iterator[str]:
    """The lines of a file, none of them endless."""
    while line := stream.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise ValueError(f"a line of over {MAX_LINE} characters")
        yield line
