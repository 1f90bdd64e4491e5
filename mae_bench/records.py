"""`mae_bench.records`: all runs as a data frame. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mae_bench.progress import say
from results import read_records
from results.frames import records_frame
from results.text import one_line

if TYPE_CHECKING:
    import pandas


def records(runs: str | Path = "runs") -> pandas.DataFrame:
    """The finished runs in `runs` and below as a pandas data frame, a row for each.

    See `results.frames.records_frame` for its columns. A broken record is named and left out.
    Raises `results.ResultsError` if there is no such folder, or no pandas.
    """
    found, skipped = read_records(runs)
    for each in skipped:
        say(f"left out {one_line(str(each.path))}: {each.reason}")
    return records_frame(found)
