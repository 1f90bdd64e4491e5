"""`mae-bench suite`: from backbones to tables by one command. Imports no torch."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from mae_bench.arguments import JOBS, check_common
from mae_bench.data import MINI, miniature_world
from mae_bench.errors import HELD, RunError
from mae_bench.execution import Execution
from mae_bench.progress import duration, say
from mae_bench.report import report
from mae_bench.run import wandb_log
from mae_bench.run.files import RECORD_FILE
from mae_bench.srun import refuse_several
from mae_bench.suite.board import Board, score
from mae_bench.suite.choosing import Choice, chosen_spec
from mae_bench.suite.clustered import Clustered
from mae_bench.suite.expansion import expand
from mae_bench.suite.local import Job, LocalRunner, places, said_file, warm_up
from mae_bench.suite.page import Page
from mae_bench.suite.queue import Queue, SlurmQueue
from mae_bench.suite.queued import Queued
from mae_bench.suite.runs import SuiteRun
from mae_bench.suite.slurm import Slurm
from mae_bench.suite.spec import SuiteSpec, write_spec
from mae_bench.suite.there import There, refuse_missing
from mae_bench.words import hand_in
from results import Record, ResultsError
from results.store import read_record
from tasks.workers import refuse_long_tmpdir

LOOK = 1.0
"""seconds between looks at the runs"""
MOST_JOBS = 64


def suite(
    what: str | Path | None = None,
    *,
    out: str | Path = "runs",
    jobs: int | None = None,
    execution: Execution | None = None,
    write: str | Path | None = None,
    slurm: Slurm | None = None,
    detach: bool = False,
    **choice: Unpack[Choice],
) -> list[Record]:
    """Do all that is missing of a suite of runs, and report; the records of all its runs.

    `what` is a table or figure of the paper ("table-4", "figure-9"), "quickstart", or the TOML file
    of a suite, see `mae_bench.suite.spec`. Without it the suite is every combination of the lists
    in `choice`, see `mae_bench.suite.choosing.Choice`. Each run is a process of its own that
    is a `mae-bench` command; `jobs` of them are under way at a time (default: one on a CPU, one for
    each GPU). With `slurm` each is a job of a Slurm cluster, where one that needs another's weights
    waits for it; this process waits too, unless `detach`, and reports; `jobs` of an array are under
    way at a time. What is in `out` already, by this suite or otherwise, is not run again. `write`
    only writes the suite into a TOML file.

    Raises a one-line error for bad input before anything is run, and `RunError` at the end if runs
    failed, after all others are done.
    """
    refuse_several("suite")
    check_common(out)
    how = execution or Execution()
    if jobs is not None and not 1 <= jobs <= MOST_JOBS:
        raise RunError(f"jobs is {jobs!r}; expected 1 to {MOST_JOBS}")
    if how.shard and (slurm is None or slurm.processes == 1):
        raise RunError(
            "--shard: here each run of a suite is one process, which has nothing to split; give "
            "it to pretrain or transfer under torchrun, or --launcher slurm several GPUs"
        )
    spec, left_out = chosen_spec(what, **choice)
    expanded = expand(spec)
    for line in [*left_out, *expanded.left_out]:
        say(f"left out: {line}")
    if write is not None:
        write_spec(spec, Path(write))
        say(f"written to {write}: {len(expanded.runs)} runs; `mae-bench suite {write}` does them")
        return []
    if slurm is None:
        return carry_out(expanded.runs, spec, Path(out), how, jobs)
    queue = SlurmQueue(slurm, Path(out) / JOBS, jobs, how.workers)
    gpus = slurm.gpus_per_node
    return carry_out(expanded.runs, spec, Path(out), how, queue=queue, gpus=gpus, detach=detach)


def carry_out(
    runs: Sequence[SuiteRun],
    spec: SuiteSpec,
    out: Path,
    how: Execution,
    jobs: int | None = None,
    queue: Queue | None = None,
    gpus: int = 0,
    detach: bool = False,
) -> list[Record]:
    """Run what is missing, and report. `RunError` at the end if runs failed.

    Here, `jobs` at a time; or as jobs in the queue of a cluster, with so many `gpus` on each node.
    With `detach` they are only put in.
    """
    hand_in()
    refuse_missing(runs, out)
    refuse_long_tmpdir()
    if how.log == "wandb":
        wandb_log.refuse_missing()
        if not all((out / run.name / RECORD_FILE).exists() for run in runs):
            wandb_log.refuse_keyless()
    began = time.monotonic()
    if any(run.data == MINI for run in runs):
        miniature_world()
    out.mkdir(parents=True, exist_ok=True)
    doing = (
        Clustered(runs, out, how, queue, gpus, detach)
        if queue is not None
        else Doing(runs, out, how, here(jobs, how))
    )
    try:
        with doing.board.shown():
            doing.all()
    finally:
        doing.close()
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
    return [doing.there.records[run] for run in runs if run in doing.there.records]


def here(jobs: int | None, how: Execution) -> LocalRunner:
    """What starts runs on this machine."""
    warm_up()
    from mae_bench.provenance import num_cores

    found = places(jobs, how.device, num_cores())
    if jobs is not None and len(found) < jobs:
        say(f"--jobs {jobs}: one run at a time on each GPU, of which there are {len(found)}")
    return LocalRunner(found)


class Doing:
    """A suite while it is being done."""

    def __init__(
        self, runs: Sequence[SuiteRun], out: Path, how: Execution, runner: LocalRunner
    ) -> None:
        self.runs, self.out, self.how, self.runner = runs, out, how, runner
        self.board, self.there, self.queued = Board(runs, out), There(out), Queued(runs, out)
        self.jobs: dict[int, SuiteRun] = {}
        self.page = Page(out)

    def all(self) -> None:
        """Do everything that can be done."""
        while True:
            if self.runner.has_room:  # else nothing can begin, and to look for it takes time
                self.begin()
            if self.jobs:
                for job in self.runner.wait(LOOK):
                    self.end(job)
            elif self.board.with_state("held"):
                time.sleep(LOOK)
            else:
                break
            self.board.update()
            self.page.renew(self.board)

    def begin(self) -> None:
        """Start what is ready, as far as there is room."""
        for run in self.board.open_runs(self.there, self.queued.said_of):
            ready = all(each in self.there.records for each in run.before)
            if ready and self.runner.has_room:
                words = run.words(self.out, self.there.folders, self.how)
                job = self.runner.start(words, said_file(self.out, run))
                self.jobs[id(job)] = run
                self.board.set(run, "running")

    def end(self, job: Job) -> None:
        """Note what a run has come to."""
        run = self.jobs.pop(id(job))
        took = duration(time.monotonic() - job.began)
        if job.exit_code == HELD:  # another process has begun it at the same time
            self.board.set(run, "waiting")
            return
        try:
            if job.exit_code:
                raise RunError(job.reason())
            record = read_record(self.out / run.name / RECORD_FILE)
        except (RunError, ResultsError, OSError) as error:
            self.board.set(run, "failed", f"{error} (all of it in {job.said})")
            return
        self.there.note(run, run.name, record)
        self.board.set(run, "finished", f"{score(record)}, {took}")

    def close(self) -> None:
        """Have what is under way save and end."""
        self.runner.stop(say)
