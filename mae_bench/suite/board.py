"""How a suite is going: a live table in a terminal, lines elsewhere. Imports no torch."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.live import Live
from rich.table import Table
from rich.text import Text

from mae_bench.progress import console, duration, say
from mae_bench.report_page import validated
from mae_bench.run.files import FAILED_FILE, LOG_FILE, RECORD_FILE
from mae_bench.run.finding import is_locked, last_step, planned_steps, read_identity
from mae_bench.suite.runs import SuiteRun, title
from mae_bench.suite.there import There
from results import Record, ResultsError
from results.formats.html import Unfinished
from results.labels import decimals_of, metric_title, shown
from results.logs import read_log
from results.store import CANDIDATES

State = Literal["waiting", "queued", "held", "running", "finished", "there", "failed"]
MARKS: dict[State, str] = {
    "waiting": "·",
    "queued": "~",
    "held": "!",
    "running": ">",
    "finished": "+",
    "there": "=",
    "failed": "x",
}
STYLES: dict[State, str] = {
    "running": "bold",
    "held": "yellow",
    "failed": "red",
    "queued": "dim",
    "waiting": "dim",
    "there": "dim",
}
ORDER: tuple[State, ...] = (
    "running",
    "failed",
    "held",
    "queued",
    "waiting",
    "finished",
    "there",
)
"""which rows are shown first where the terminal is too low for all"""
ENDED: tuple[State, ...] = ("finished", "there", "failed")
SECONDS_BETWEEN_LINES = 30.0
EDGE = 4
"""lines of a terminal that the table leaves free"""


@dataclass
class Row:
    """One run of a suite on the board."""

    run: SuiteRun
    state: State = "waiting"
    said: str = ""
    """score, reason, or how far"""
    began: float = 0.0
    """by `time.monotonic`"""
    first_step: int | None = None
    """when it was first looked at"""

    def look(self, folder: Path) -> None:
        """See how far a run under way has come, and when it will be done."""
        try:
            planned = planned_steps(read_identity(folder))
        except ResultsError:
            return
        passed, step = time.monotonic() - self.began, last_step(folder)
        if planned is None or not step:
            self.said = duration(passed) + self.candidate(folder)
            return
        # A run that goes on cuts its log back to the state that it goes on from.
        if self.first_step is None or step < self.first_step:
            self.first_step, self.began = step, time.monotonic()
        done = step - self.first_step
        left = f", {duration(passed / done * (planned - step))} left" if done else ""
        self.said = f"step {step} of {planned}{left}" if step < planned else "scoring"

    def candidate(self, folder: Path) -> str:
        """ ", candidate 2 of 3" of a sweep that is still choosing."""
        grid = self.run.grid
        if grid is None:
            return ""
        ended = [*folder.glob(f"{CANDIDATES}/*/{RECORD_FILE}")]
        ended += folder.glob(f"{CANDIDATES}/*/{FAILED_FILE}")
        count = len(grid.candidates)
        return f", candidate {len(ended) + 1} of {count}" if len(ended) < count else ""


class Board:
    """The rows of a suite, and what is printed of them."""

    def __init__(self, runs: Sequence[SuiteRun], out: Path) -> None:
        self.rows = {run: Row(run) for run in runs}
        self.out = out
        self.live: Live | None = None
        self.printed = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While open, a terminal shows a table that renews itself."""
        if console.quiet or not console.is_terminal:
            yield
            return
        with Live(console=console, auto_refresh=False, transient=True) as self.live:
            yield
        self.live = None

    def set(self, run: SuiteRun, state: State, said: str = "") -> None:
        """Note what has become of a run; elsewhere than in a terminal's table it is said."""
        row = self.rows[run]
        row.state, row.said = state, said
        if state == "running":
            row.began = time.monotonic()
        elif state in ("queued", "held"):
            say(f"{state:>15}   {run.name}: {said}", style=STYLES.get(state))
        elif state != "waiting":
            # What has ended stays on the screen above the table.
            number = sum(len(self.with_state(each)) for each in ENDED)
            place = f"{number}/{len(self.rows)}"
            say(f"{place:>7}  {state:8}  {run.name}: {said}", style=STYLES.get(state))

    def open_runs(
        self, there: There, held_by: Callable[[SuiteRun], str | None] = lambda _: None
    ) -> Iterator[SuiteRun]:
        """The runs that wait, once it is noted which are there by now, held or lost.

        Held is one in whose folder another process works: another suite, or a command by hand; or
        that somebody else is to do, of whom `held_by` tells.
        """
        for run, row in self.rows.items():
            if row.state not in ("waiting", "held"):
                continue
            lost = next((x for x in run.before if self.rows[x].state == "failed"), None)
            if lost is not None:
                self.set(run, "failed", f"needs {lost.name}, which failed")
            elif (record := there.look(run)) is not None:
                name = there.folders.get(run, run.name)
                also = f" (as {name})" if name != run.name else ""
                self.set(run, "there", f"{score(record)}{also}")
            elif said := held_by(run) or self.locked(run):
                if (row.state, row.said) != ("held", said):
                    self.set(run, "held", said)
            else:
                row.state = "waiting"
                yield run

    def locked(self, run: SuiteRun) -> str | None:
        """What is to be said of a run in whose folder another process works."""
        held = is_locked(self.out / run.name)
        return "another process works in its folder; waiting for it" if held else None

    def update(self) -> None:
        """Look at the runs under way."""
        running = [row for row in self.rows.values() if row.state == "running"]
        for row in running:
            row.look(self.out / row.run.name)
        if self.live is not None:
            self.live.update(self.table(console.height - EDGE), refresh=True)
        elif time.monotonic() - self.printed >= SECONDS_BETWEEN_LINES:
            self.printed = time.monotonic()
            for row in running:
                say(f"         running   {row.run.name}: {row.said or 'starting'}")

    def table(self, height: int) -> Table:
        """Rows under way and failed first, as many as there is room for, in the suite's order."""
        table = Table(show_header=False, box=None, pad_edge=False)
        for _ in range(3):
            table.add_column(no_wrap=True, overflow="ellipsis")
        by_weight = sorted(self.rows.values(), key=lambda row: ORDER.index(row.state))
        kept = {id(row) for row in by_weight[: max(1, height - 1)]}
        for row in self.rows.values():
            if id(row) in kept:
                words = (MARKS[row.state], row.run.name, f"{row.state} {row.said}".strip())
                table.add_row(*map(Text, words), style=STYLES.get(row.state))
        table.add_row("", self.counts(), "")
        return table

    def counts(self) -> str:
        """ "3 finished, 1 running, 8 waiting"."""
        states = self.states()
        return ", ".join(f"{states.count(s)} {s}" for s in MARKS if s in states)

    def states(self) -> list[State]:
        return [row.state for row in self.rows.values()]

    def unfinished(self) -> list[Unfinished]:
        """The rows that the page is to show beside finished runs."""
        found = []
        for row in self.rows.values():
            if row.state in ("finished", "there"):
                continue
            run = row.run
            log = read_log(self.out / run.name / LOG_FILE, run.name, run.recipe.protocol, False)
            epochs = getattr(run.recipe, "epochs", None)
            found.append(
                Unfinished(
                    name=run.name,
                    protocol=run.recipe.protocol,
                    backbone=run.backbone,
                    init=run.origin,
                    seed=str(run.seed),
                    epoch=log.epochs[-1] if log else 0.0,
                    epochs=None if epochs is None else float(epochs),
                    loss=log.losses[-1] if log else None,
                    said=f"{row.state} {row.said}".strip() + validated(self.out / run.name),
                )
            )
        return found

    def with_state(self, state: State) -> list[Row]:
        return [row for row in self.rows.values() if row.state == state]


def score(record: Record) -> str:
    """The headline score of a run."""
    name = next(iter([*shown(record.metrics), *record.metrics]))
    words, unit = metric_title(name)
    value = f"{record.metrics[name]:.{decimals_of(name)}f}"
    return f"{words} {value}{' ' if unit and unit != '%' else ''}{unit}"


def listed(runs: Sequence[SuiteRun]) -> None:
    """Say what a suite is going to do."""
    for number, run in enumerate(runs, start=1):
        say(f"{number:>4}  {title(run)}")
