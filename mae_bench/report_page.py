"""The HTML page of a report, once or for as long as runs are under way."""

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mae_bench.data import contact_sheet
from mae_bench.progress import say
from mae_bench.report_runs import (
    PICTURES,
    FoundRuns,
    Wanted,
    find_runs,
    is_miniature,
    logs,
    pictures_of,
)
from mae_bench.run.files import LOG_FILE, RECORD_FILE, RUN_FILE, VALIDATION_FILE, atomic
from mae_bench.run.finding import RunFolder, age, is_locked
from results import ResultsError, Table, published
from results.labels import decimals_of, metric_title, shown
from results.objects import read_bounded
from results.store import folders_with

if TYPE_CHECKING:
    from results.figures import Drawn
    from results.formats.html import Unfinished

REFRESH_SECONDS = 10
MOST_VALIDATION = 16 * 1024**2
"""bytes of scores while a run trained"""
PATIENCE = 5
"""times what a refresh took, that is waited at least: the runs need the processor more"""


def put(file: Path, content: bytes) -> None:
    with atomic(file) as stream:
        stream.write(content)


def page(
    found: FoundRuns,
    tables: Sequence[Table],
    drawn: Sequence["Drawn"],
    refresh: int | None = None,
    others: Sequence["Unfinished"] = (),
) -> str:
    """The HTML page; with `refresh` also of runs under way, and one that loads itself again.

    `others`: runs of a suite that say themselves how they are, in place of what is found.
    """
    from results.formats.html import ShownRun, to_html

    runs = [
        ShownRun(run.name, run.record, tuple(pictures_of(run)))
        for run in found.finished
        if run.record is not None
    ]
    told = {each.name for each in others}
    there = [run for run in found.unfinished if refresh and run.name not in told]
    return to_html(
        tables,
        drawn,
        runs,
        unfinished=[*others, *(under_way(run) for run in there)],
        skipped=found.skipped,
        made=datetime.now(UTC),
        refresh=refresh,
        world=contact_sheet() if any(map(is_miniature, found.finished)) else None,
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
        said=(f"{age(run)} ago" if busy else f"stopped, {age(run)} ago") + validated(run.folder),
    )


def validated(folder: Path) -> str:
    """The last score while training, if there is one: ", top-1 34.20% at epoch 5"."""
    try:
        line = read_bounded(folder / VALIDATION_FILE, MOST_VALIDATION).splitlines()[-1]
        scores = json.loads(line)
        name = next(iter(shown(scores)))
        title, unit = metric_title(name)
        value = f"{float(scores[name]):.{decimals_of(name)}f}{unit}"
        return f", {title} {value} at epoch {float(scores['epoch']):g}"
    except (ResultsError, OSError, ValueError, KeyError, TypeError, IndexError, StopIteration):
        return ""


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


def refresh(
    runs: Path,
    file: Path,
    wanted: Wanted,
    others: Sequence["Unfinished"] = (),
    seconds: int | None = REFRESH_SECONDS,
) -> str:
    """Write the page of a folder of runs, some of them under way; how many there are.

    `seconds` until a browser loads it again; None: it is the last one. See `page` for `others`.
    """
    from results.figures import figures

    found = find_runs(runs)
    drawn = figures(found.records, published(), logs([*found.finished, *found.unfinished]))
    tables = wanted.tables(found)
    file.parent.mkdir(parents=True, exist_ok=True)
    put(file, page(found, tables, drawn, seconds, others).encode())
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
