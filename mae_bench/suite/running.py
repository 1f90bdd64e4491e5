"""`mae-bench suite`: from backbones to tables by one command. Imports no torch."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from mae_bench.arguments import PRINTED, check_common
from mae_bench.data import MINI, miniature_world
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.progress import duration, say
from mae_bench.report import report
from mae_bench.report_page import REFRESH_SECONDS, changes, refresh
from mae_bench.report_runs import Wanted
from mae_bench.run.files import RECORD_FILE
from mae_bench.srun import refuse_several
from mae_bench.suite.board import Board, score
from mae_bench.suite.choosing import Choice, chosen_spec
from mae_bench.suite.expansion import expand
from mae_bench.suite.local import Job, LocalRunner, places, warm_up
from mae_bench.suite.runs import SuiteRun
from mae_bench.suite.spec import SuiteSpec, write_spec
from mae_bench.suite.there import There, refuse_missing
from mae_bench.words import hand_in
from results import Record, ResultsError
from results.store import read_record

LOOK = 1.0
"""seconds between looks at the runs"""
SHARE = 20
"""times what renewing the page took, that is waited at least: the runs need the processor more"""
MOST_JOBS = 64


def suite(
    what: str | Path | None = None,
    *,
    out: str | Path = "runs",
    jobs: int | None = None,
    execution: Execution | None = None,
    write: str | Path | None = None,
    **choice: Unpack[Choice],
) -> list[Record]:
    """Do all that is missing of a suite of runs, and report; the records of all its runs.

    `what` is a table or figure of the paper ("table-4", "figure-9"), "quickstart", or the TOML file
    of a suite, see `mae_bench.suite.spec`. Without it the suite is every combination of the lists
    in `choice`, see `mae_bench.suite.choosing.Choice`. Each run is a process of its own that
    is a `mae-bench` command; `jobs` of them are under way at a time (default: one on a CPU, one for
    each GPU). What is in `out` already, by this suite or otherwise, is not run again. `write` only
    writes the suite into a TOML file.

    Raises a one-line error for bad input before anything is run, and `RunError` at the end if runs
    failed, after all others are done.
    """
    refuse_several("suite")
    check_common(out)
    how = execution or Execution()
    if jobs is not None and not 1 <= jobs <= MOST_JOBS:
        raise RunError(f"jobs is {jobs!r}; expected 1 to {MOST_JOBS}")
    if how.shard:
        raise RunError(
            "--shard: here each run of a suite is one process, which has nothing to split; give "
            "it to pretrain or transfer under torchrun"
        )
    spec, left_out = chosen_spec(what, **choice)
    expanded = expand(spec)
    for line in [*left_out, *expanded.left_out]:
        say(f"left out: {line}")
    if write is not None:
        write_spec(spec, Path(write))
        say(f"written to {write}: {len(expanded.runs)} runs; `mae-bench suite {write}` does them")
        return []
    return carry_out(expanded.runs, spec, Path(out), how, jobs)


def carry_out(
    runs: Sequence[SuiteRun],
    spec: SuiteSpec,
    out: Path,
    how: Execution,
    jobs: int | None = None,
) -> list[Record]:
    """Run what is missing, and report. `RunError` at the end if runs failed."""
    hand_in()
    refuse_missing(runs, out)
    began = time.monotonic()
    if any(run.data == MINI for run in runs):
        miniature_world()
    out.mkdir(parents=True, exist_ok=True)
    warm_up()
    from mae_bench.provenance import num_cores

    doing = Doing(runs, out, how, LocalRunner(places(jobs, how.device, num_cores())))
    try:
        with doing.board.shown():
            doing.all()
    finally:
        doing.runner.stop(say)
    if doing.there.records:
        report(out)
        for name in spec.report:
            report(out, table=(name,))
    failed = doing.board.with_state("failed")
    if failed:
        doing.page.renew(doing.board, last=True)
    for row in failed:
        say(f"failed: {row.run.name}: {row.said}", style="red")
    say(f"{doing.board.counts()} of {len(runs)} runs in {duration(time.monotonic() - began)}")
    if failed:
        raise RunError(
            f"{len(failed)} of {len(runs)} runs failed, the first {failed[0].run.name}: "
            f"{failed[0].said}; the same command tries them again, and goes on where they stopped"
        )
    return [doing.there.records[run] for run in runs]


class Doing:
    """A suite while it is being done."""

    def __init__(
        self, runs: Sequence[SuiteRun], out: Path, how: Execution, runner: LocalRunner
    ) -> None:
        self.runs, self.out, self.how, self.runner = runs, out, how, runner
        self.board, self.there = Board(runs, out), There(out)
        self.jobs: dict[int, SuiteRun] = {}
        self.page = Page(out)

    def all(self) -> None:
        """Do everything that can be done."""
        while True:
            self.begin()
            if not self.jobs:
                break
            for job in self.runner.wait(LOOK):
                self.end(job)
            self.board.update()
            self.page.renew(self.board)

    def begin(self) -> None:
        """Start what is ready, as far as there is room; name what there is no way to any more."""
        for run, row in self.board.rows.items():
            if row.state != "waiting":
                continue
            before = [self.board.rows[each] for each in run.before]
            lost = next((each for each in before if each.state == "failed"), None)
            if lost is not None:
                self.board.set(run, "failed", f"needs {lost.run.name}, which failed")
            elif any(each.state not in ("finished", "there") for each in before):
                continue
            elif (record := self.there.look(run)) is not None:
                name = self.there.folders.get(run, run.name)
                also = f" (as {name})" if name != run.name else ""
                self.board.set(run, "there", f"{score(record)}{also}")
            elif self.runner.has_room:
                words = run.words(self.out, self.there.folders, self.how)
                job = self.runner.start(words, said_file(self.out, run))
                self.jobs[id(job)] = run
                self.board.set(run, "running")

    def end(self, job: Job) -> None:
        """Note what a run has come to."""
        run = self.jobs.pop(id(job))
        took = duration(time.monotonic() - job.began)
        try:
            if job.exit_code:
                raise RunError(job.reason())
            record = read_record(self.out / run.name / RECORD_FILE)
        except (RunError, ResultsError, OSError) as error:
            self.board.set(run, "failed", f"{error} (all of it in {job.said})")
            return
        self.there.note(run, run.name, record)
        self.board.set(run, "finished", f"{score(record)}, {took}")


def said_file(out: Path, run: SuiteRun) -> Path:
    """Where a run prints to."""
    return out / PRINTED / f"{run.name}.txt"


class Page:
    """The report's page, renewed while runs are under way."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.before: list[object] = []
        self.due = time.monotonic() + REFRESH_SECONDS

    def renew(self, board: Board, last: bool = False) -> None:
        """Write the page if something has changed, and not too often; `last`: in any case."""
        began = time.monotonic()
        now: list[object] = [*changes(self.out), *board.states()]
        if not last and (began < self.due or now == self.before):
            return
        seconds = None if last else REFRESH_SECONDS
        try:
            refresh(self.out, self.out / "report.html", Wanted(), board.unfinished(), seconds)
        except (OSError, ResultsError) as error:  # the runs matter more; the last report tells it
            say(f"the page could not be renewed ({error})", style="yellow")
        self.before = now
        self.due = time.monotonic() + max(REFRESH_SECONDS, SHARE * (time.monotonic() - began))
