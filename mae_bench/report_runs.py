"""What a report is made of: the runs of a folder, which tables, curves and pictures."""

import difflib
import fnmatch
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mae_bench.errors import RunError
from mae_bench.progress import say
from mae_bench.run.files import LOG_FILE
from mae_bench.run.finding import RunFolder, runs_in
from results import (
    Record,
    RunScores,
    Skipped,
    Table,
    compare,
    comparison_table,
    paper_tables,
    published,
)
from results.predictions import FILE_NAME, read_hits
from results.text import one_line

if TYPE_CHECKING:
    from results.logs import Log


PICTURES = {
    "reconstructions.png": "reconstructions",
    "predictions.png": "ground truth and predictions",
}
"""file in a run folder -> what it shows"""


@dataclass(frozen=True)
class FoundRuns:
    """What lies in a folder of runs."""

    root: Path
    finished: Sequence[RunFolder]
    """oldest first"""
    unfinished: Sequence[RunFolder]
    skipped: Sequence[Skipped]

    @property
    def records(self) -> list[Record]:
        return [run.record for run in self.finished if run.record is not None]


@dataclass(frozen=True)
class Wanted:
    """Which tables, and what in them."""

    table: Sequence[str] = ()
    compare: tuple[str, str] | None = None
    costs: bool = False
    intervals: bool = False

    @property
    def name(self) -> str:
        """Of the files without an ending: no choice of tables writes over the report of another."""
        paper = ["table", *self.table] if self.table else []
        return "-".join(["report", *paper, *(["compare"] if self.compare else [])])

    def tables(self, found: FoundRuns) -> list[Table]:
        """Two sets against each other, if asked for; then one table per protocol, or those of
        the paper that were asked for."""
        tables = [two_sets(found.finished, *self.compare)] if self.compare else []
        records, rows = found.records, published()
        for name in self.table:
            tables += paper_tables(name, records, rows, intervals=self.intervals)
        if not self.table:
            tables += comparison_table(records, rows, costs=self.costs, intervals=self.intervals)
        return tables


def two_sets(runs: Sequence[RunFolder], a: str, b: str) -> Table:
    """The runs of two names or patterns against each other; `RunError` if one names no run."""
    sets = [[run for run in runs if is_named(run, each)] for each in (a, b)]
    for each, chosen in zip((a, b), sets, strict=True):
        if not chosen:
            near = difflib.get_close_matches(each, [run.name for run in runs], n=2)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise RunError(
                f"--compare {each}: no finished run has that name; {hint}expected a run, a folder "
                "of runs, or a pattern such as 'mae-seed*'"
            )
    both = {run.name for run in sets[0]} & {run.name for run in sets[1]}
    if both:
        raise RunError(f"--compare {a} {b}: run {min(both)} is in both sets")
    first, second = ([run_scores(run) for run in chosen] for chosen in sets)
    return compare(first, second, (a, b))


def is_named(run: RunFolder, name: str) -> bool:
    inside = run.name.startswith(f"{name.rstrip('/')}/")
    return inside or fnmatch.fnmatchcase(run.name, name) or run.name == name


def run_scores(run: RunFolder) -> RunScores:
    file = run.folder / FILE_NAME
    assert run.record is not None
    return RunScores(run.record, read_hits(file) if file.is_file() else None)


def find_runs(root: str | Path) -> FoundRuns:
    """All runs in `root` and below; `RunError` if it is no folder."""
    runs = sorted(runs_in(root), key=lambda run: run.folder)
    skipped = sorted((run.fault for run in runs if run.fault), key=lambda each: each.path)
    finished, unfinished = [], []
    for run in runs:
        if run.record is not None:
            # Where the run lies tells more than what it was called, and no two lie there.
            name = run.record.name if run.name == "." else run.name
            record = run.record.model_copy(update={"name": name})
            finished.append((record.finished, run.name, replace(run, record=record)))
        elif not run.fault:
            unfinished.append(run)
    finished.sort(key=lambda each: each[:2])
    return FoundRuns(Path(root), [run for *_, run in finished], unfinished, skipped)


def pictures(found: FoundRuns, beside: Path) -> list[tuple[str, str]]:
    """Titles of the pictures of finished runs, and their paths as seen from a folder."""
    return [
        (f"{run.name}: {what}", Path(os.path.relpath(file, beside)).as_posix())
        for run in sorted(found.finished, key=lambda run: run.name)
        for what, file in pictures_of(run)
    ]


def pictures_of(run: RunFolder) -> list[tuple[str, Path]]:
    """What the pictures of a run show, and their files."""
    files = [(what, run.folder / name) for name, what in PICTURES.items()]
    return [(what, file) for what, file in files if file.is_file()]


def logs(runs: Iterable[RunFolder]) -> list["Log"]:
    """The logs of the newest runs of each protocol, as many as a figure shows."""
    from results.figures import MAX_CURVES
    from results.logs import read_log

    groups: dict[tuple[str, bool], list[RunFolder]] = defaultdict(list)
    for run in runs:
        if os.path.lexists(run.folder / LOG_FILE):
            groups[run.protocol, is_miniature(run)].append(run)
    found = []
    for (protocol, miniature), group in groups.items():
        for run in group[-MAX_CURVES:]:
            log = read_log(run.folder / LOG_FILE, run.name, protocol, miniature)
            if log is not None:
                found.append(log)
            elif run.record is not None:
                say(f"{one_line(run.name)}: {LOG_FILE} holds no readable step; no curve of it")
    return found


def tell_damage(found: Iterable["Log"]) -> None:
    """Name the logs whose curves lack something."""
    for log in found:
        if log.damaged:
            what = "lines are" if log.damaged > 1 else "line is"
            say(
                f"{one_line(log.name)}: {LOG_FILE} is damaged; {log.damaged} {what} no training "
                "step and left out of the curve"
            )


def is_miniature(run: RunFolder) -> bool:
    if run.record is not None:
        return run.record.data.miniature
    data = (run.identity or {}).get("data")
    return isinstance(data, dict) and data.get("miniature") is True
