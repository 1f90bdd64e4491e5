"""`mae-bench report`: the records of runs beside the published numbers. Imports no torch."""

import contextlib
import difflib
import fnmatch
import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mae_bench.errors import RunError
from mae_bench.progress import console, say
from mae_bench.run.files import LOG_FILE, RECORD_FILE, RUN_FILE, atomic
from mae_bench.run.finding import RunFolder, age, is_locked, runs_in
from mae_bench.words import hand_in
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
from results import formats as writers
from results.formats import FORMATS, SHOWN, WITHOUT_FIGURES, Content
from results.predictions import FILE_NAME, read_hits
from results.store import folders_with
from results.text import one_line

if TYPE_CHECKING:
    from results.figures import Drawn
    from results.formats.html import Unfinished
    from results.logs import Log

DEFAULT_FORMATS = ("md", "html")
FIGURES = "figures"
"""folder beside the report"""
PICTURES = {
    "reconstructions.png": "reconstructions",
    "predictions.png": "ground truth and predictions",
}
"""file in a run folder -> what it shows"""
REFRESH_SECONDS = 10
PATIENCE = 5
"""times what a refresh took, that is waited at least: the runs need the processor more"""


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


def report(
    runs: str | Path = "runs",
    output: str | Path | None = None,
    *,
    table: Sequence[str] = (),
    compare: tuple[str, str] | None = None,
    costs: bool = False,
    intervals: bool = False,
    formats: Collection[str] = DEFAULT_FORMATS,
    watch: bool = False,
) -> list[Table]:
    """Print the tables of all records below `runs` and write them, with figures and pictures.

    `table` names tables of the MAE paper (1a to 1f, 2 to 7, 12, 13, partial, all) to show in its
    own layout; by default there is a table for each protocol. `compare` names two runs, folders of
    runs or patterns, and tests the difference of their scores. `costs` adds columns of what runs
    took, `intervals` those of the scores. Files are report.md and so on in `runs`, for other tables
    report-table-3.md or report-compare.md, or `output` with the ending of each format; an ending
    that it has is a format too. Figures go to the folder
    figures beside them. A broken record is named and left out. `watch` writes the HTML page again
    while runs are under way, until it is interrupted. Raises `RunError` or `results.ResultsError`
    for bad input.
    """
    hand_in()
    if costs and table:
        raise RunError("--costs adds to the tables of protocols, not to the paper's; leave it out")
    for name in table:
        paper_tables(name, [], published())  # a name that there is none of is said at once
    wanted = Wanted(table, compare, costs, intervals)
    named = Path(runs) / wanted.name if output is None else Path(output)
    if output is not None and named.is_dir():
        raise RunError(f"--output {output}: is a folder; expected the name of a file in it")
    files = output_files(named, [*formats, "html"] if watch else formats)
    if watch:
        keep_up(Path(runs), files, wanted)
    found = find_runs(runs)
    for each in found.skipped:
        say(f"left out {one_line(str(each.path))}: {each.reason}")
    if not found.records:
        shown = "; what follows is published alone" if table else ""
        say(f"no records in {runs} yet; `mae-bench transfer` and `pretrain` write them{shown}")
        if not table or compare:
            return []
    tables = wanted.tables(found)
    print_tables(tables)
    write(found, tables, files)
    return tables


def show(records: Iterable[Record]) -> list[Table]:
    """Print the tables of some records."""
    hand_in()
    tables = comparison_table(records, published())
    print_tables(tables)
    return tables


def print_tables(tables: Iterable[Table]) -> None:
    for renderable in writers.write("terminal", Content(tuple(tables))):
        console.print(renderable, soft_wrap=False)


def output_files(chosen: Path, formats: Collection[str]) -> dict[str, Path]:
    """The file of each format that is asked for, or that `chosen` ends in; `RunError` if a format
    is none."""
    there_are = [name for name in FORMATS if name not in SHOWN]
    for name in formats:
        if name not in there_are:
            raise RunError(f"unknown format {name!r}; there are {', '.join(there_are)}")
    ending = chosen.suffix.removeprefix(".")
    files: dict[str, Path] = {}
    for name in there_are:
        if name == ending or (name == "md" and ending and ending not in there_are):
            files[name] = chosen
        elif name in formats and ending in there_are:
            files[name] = chosen.with_suffix(f".{name}")
        elif name in formats:
            files[name] = chosen.with_name(f"{chosen.name}.{name}")
        if name in files and files[name].is_dir():
            raise RunError(f"{files[name]}: is a folder; choose another --output")
    return files


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


def write(found: FoundRuns, tables: Sequence[Table], files: dict[str, Path]) -> None:
    """Write the report in each format, and its figures."""
    from results.drawing import save  # matplotlib takes a second to import
    from results.figures import figures

    folder = next(iter(files.values())).parent
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[Drawn] = []
    if not WITHOUT_FIGURES.issuperset(files):
        curves = logs(found.finished)
        tell_damage(curves)
        drawn = figures(found.records, published(), curves)
    shown = []
    for each in drawn:
        (folder / FIGURES).mkdir(exist_ok=True)
        put(folder / FIGURES / f"{each.key}.svg", each.svg)
        put(folder / FIGURES / f"{each.key}.png", save(each.figure, "png"))
        put(folder / FIGURES / f"{each.key}.pdf", save(each.figure, "pdf"))
        shown.append((each.title, f"{FIGURES}/{each.key}.png"))
    there = [*shown, *pictures(found, folder)]
    content = Content(tables, there, lambda: page(found, tables, drawn))
    for name, file in files.items():
        put(file, writers.write(name, content).encode())
        say(f"written to {file}")
    if drawn:
        count = "1 figure" if len(drawn) == 1 else f"{len(drawn)} figures"
        say(f"{count} as svg, png and pdf in {folder / FIGURES}")


def put(file: Path, content: bytes) -> None:
    with atomic(file) as stream:
        stream.write(content)


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


def page(
    found: FoundRuns, tables: Sequence[Table], drawn: Sequence["Drawn"], refresh: int | None = None
) -> str:
    """The HTML page; with `refresh` also of runs under way, and one that loads itself again."""
    from results.formats.html import ShownRun, to_html

    runs = [
        ShownRun(run.name, run.record, tuple(pictures_of(run)))
        for run in found.finished
        if run.record is not None
    ]
    return to_html(
        tables,
        drawn,
        runs,
        unfinished=[under_way(run) for run in found.unfinished] if refresh else (),
        skipped=found.skipped,
        made=datetime.now(UTC),
        refresh=refresh,
    )


def under_way(run: RunFolder) -> "Unfinished":
    """A row of the page's table of runs that are not finished."""
    from results.formats.html import Unfinished
    from results.logs import read_log

    identity: dict[str, Any] = run.identity or {}
    log = read_log(run.folder / LOG_FILE, run.name, run.protocol, is_miniature(run))
    epochs = identity.get("recipe", {}).get("epochs")
    whole = isinstance(epochs, int | float) and 0 < epochs < float("inf")
    busy = is_locked(run.folder)
    return Unfinished(
        name=run.name,
        protocol=run.protocol,
        backbone=run.recipe("backbone"),
        init=run.init,
        seed=str(identity.get("seed", "")),
        epoch=log.epochs[-1] if log else 0.0,
        epochs=float(epochs) if whole else None,
        loss=log.losses[-1] if log else None,
        said=f"{age(run)} ago" if busy else f"stopped, {age(run)} ago",
    )


def keep_up(
    runs: Path,
    files: dict[str, Path],
    wanted: Wanted,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Write the HTML page again whenever something has changed, until Ctrl-C."""
    file = files["html"]
    find_runs(runs)  # a folder that there is none of is said at once
    say(f"watching {runs}: {file} refreshes itself in a browser; Ctrl-C ends this")
    before, told = None, None
    try:
        while True:
            began, now = time.monotonic(), changes(runs)
            if now != before:
                with contextlib.suppress(FileNotFoundError):  # a run was deleted meanwhile
                    counts = refresh(runs, file, wanted)
                    if counts != told:
                        say(f"{datetime.now():%H:%M:%S}  {counts}")
                    before, told = now, counts
            wait(max(REFRESH_SECONDS, PATIENCE * (time.monotonic() - began)))
    except KeyboardInterrupt:
        say("stopped watching; the last report:")


def refresh(runs: Path, file: Path, wanted: Wanted) -> str:
    """Write the page of a folder of runs, some of them under way; how many there are."""
    from results.figures import figures

    found = find_runs(runs)
    drawn = figures(found.records, published(), logs([*found.finished, *found.unfinished]))
    tables = wanted.tables(found)
    file.parent.mkdir(parents=True, exist_ok=True)
    put(file, page(found, tables, drawn, REFRESH_SECONDS).encode())
    return f"{len(found.finished)} finished, {len(found.unfinished)} not finished"


def changes(runs: Path) -> list[tuple[str, int, int]]:
    """What changes whenever a run does: names, times and sizes of its files."""
    found = []
    for folder in folders_with((RECORD_FILE, RUN_FILE), runs):
        for name in (RECORD_FILE, RUN_FILE, LOG_FILE, *PICTURES):
            try:
                stat = (folder / name).stat()
            except OSError:
                continue
            found.append((str(folder / name), stat.st_mtime_ns, stat.st_size))
    return found
