"""A suite whose runs are jobs of a cluster: put into its queue once, found there again.

Imports no torch.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mae_bench.arguments import JOBS
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.progress import say
from mae_bench.run.files import LOCK_FILE, RECORD_FILE, write_json
from mae_bench.run.finding import is_locked
from mae_bench.suite.board import Board, score
from mae_bench.suite.job import BEGIN, RunJob, read_entry
from mae_bench.suite.local import said_file, tail
from mae_bench.suite.page import Page
from mae_bench.suite.queue import BUSY, WAITING, Queue
from mae_bench.suite.queued import ASK, entry_file
from mae_bench.suite.runs import SuiteRun
from mae_bench.suite.there import There

LOOK = 1.0
"""seconds between looks at the folders of runs"""
LATE = 30.0
"""seconds within which a file that was written on another machine is to be seen on this one"""


class Clustered:
    """A suite while a cluster does it."""

    def __init__(
        self,
        runs: Sequence[SuiteRun],
        out: Path,
        how: Execution,
        queue: Queue,
        gpus: int = 0,
        detach: bool = False,
    ) -> None:
        """`gpus`: of each node of a job; `detach`: only put the jobs in."""
        self.out, self.how, self.queue, self.gpus = out, how, queue, gpus
        self.board, self.there, self.page = Board(runs, out), There(out), Page(out)
        self.detach = detach
        self.jobs: dict[SuiteRun, str] = {}
        """of the runs that are queued or under way"""
        self.gone: dict[SuiteRun, float] = {}
        """since when a job has ended without a record to be seen"""
        self.asked = float("-inf")
        self.states: dict[str, str] | None = None

    def all(self) -> None:
        """Put in what is missing and not there yet; wait for it unless detached."""
        with self.alone():
            self.ask()
            if self.states is None:
                raise RunError("squeue does not answer; the same command tries again")
            self.find()
            self.begin()
        while not self.detach and (self.jobs or self.board.with_state("held")):
            time.sleep(LOOK)
            if time.monotonic() - self.asked >= ASK:
                self.ask()
            for run in list(self.jobs):
                self.look(run)
            self.begin()
            self.board.update()
            self.page.renew(self.board)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While open, no other suite puts jobs in for this folder of runs."""
        folder = self.out / JOBS
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / LOCK_FILE, timeout=0):
                yield
        except Timeout:
            raise RunError(
                f"{folder}: another process puts jobs in for these runs; try again when it has"
            ) from None

    def ask(self) -> None:
        """Ask the cluster how all jobs are; without an answer what was known stays."""
        self.asked = time.monotonic()
        found = self.queue.states()
        self.states = self.states if found is None else found

    def find(self) -> None:
        """Find the jobs that earlier commands have put in.

        One whose weights are to be made anew cannot start any more, and is taken out.
        """
        lost: set[SuiteRun] = set()
        for run in self.board.rows:
            job = read_entry(entry_file(self.out, run)).get("job")
            alive = isinstance(job, str) and self.state(job) in (*WAITING, *BUSY)
            if self.there.look(run) is not None:
                continue
            if any(each in lost for each in run.before):
                if alive:
                    self.queue.take_out(str(job))
                alive = False
            if alive:
                self.jobs[run] = str(job)
                self.board.set(run, "queued", f"job {job}, put in before")
            else:
                lost.add(run)

    def begin(self) -> None:
        """Put in all that can be, and name what there is no way to any more."""
        while ready := self.ready():
            for after, runs in ready.items():
                self.put(runs, after)

    def ready(self) -> dict[tuple[str, ...], list[SuiteRun]]:
        """Runs that can be put in, by the jobs that they have to wait for."""
        found: dict[tuple[str, ...], list[SuiteRun]] = {}
        for run in self.board.open_runs(self.there):
            before = [each for each in run.before if each not in self.there.records]
            ids = [self.jobs[each] for each in before if each in self.jobs]
            if len(ids) == len(before) and (self.queue.keeps_order or not ids):
                found.setdefault(tuple(ids), []).append(run)
        return found

    def put(self, runs: Sequence[SuiteRun], after: tuple[str, ...]) -> None:
        """Put in runs that wait for the same jobs; one that is refused has failed."""
        jobs = [self.job(run) for run in runs]
        for job in jobs:
            write_json(Path(job.entry), {"ticket": job.ticket})
        name = runs[0].name if len(runs) == 1 else f"mae-bench-{runs[0].command}"
        try:
            ids = self.queue.put(jobs, name, after)
        except RunError as error:
            for run in runs:
                self.board.set(run, "failed", str(error))
            return
        for run, job, number in zip(runs, jobs, ids, strict=True):
            write_json(Path(job.entry), {"ticket": job.ticket, "job": number})
            self.jobs[run] = number
            self.states = {**(self.states or {}), number: "PENDING"}
            then = f", after {', '.join(after)}" if after else ""
            self.board.set(run, "queued", f"job {number}{then}")

    def job(self, run: SuiteRun) -> RunJob:
        """What the cluster is to call."""
        said = said_file(self.out, run)
        said.parent.mkdir(parents=True, exist_ok=True)
        return RunJob(
            words=run.words(self.out, self.there.folders, self.how),
            said=str(said.resolve()),
            folder=str((self.out / run.name).resolve()),
            entry=str(entry_file(self.out, run).resolve()),
            ticket=uuid.uuid4().hex,
            gpus=self.gpus,
            workers=self.how.workers,
        )

    def state(self, job: str) -> str:
        """As the cluster calls it; nothing of one that has long ended."""
        return (self.states or {}).get(job, "")

    def look(self, run: SuiteRun) -> None:
        """Note how a run in the queue is, or what has become of it."""
        job, row = self.jobs[run], self.board.rows[run]
        written = (self.out / run.name / RECORD_FILE).exists()
        record = self.there.look(run) if written else None
        if record is not None:
            del self.jobs[run]
            self.board.set(run, "finished", score(record))
            return
        state = self.state(job)
        if state in BUSY:
            self.gone.pop(run, None)
            if row.state != "running":
                self.board.set(run, "running")
        elif state in WAITING:
            self.gone.pop(run, None)
            if row.state != "queued":
                held = is_locked(self.out / run.name)
                also = ": another process works in the folder of its run" if held else ""
                self.board.set(run, "queued", f"job {job}, again{also}")
        elif time.monotonic() - self.gone.setdefault(run, time.monotonic()) >= LATE:
            del self.jobs[run]
            self.board.set(run, "failed", self.reason(run, job, state))

    def reason(self, run: SuiteRun, job: str, state: str) -> str:
        """One line about why a job has ended without a result."""
        lost = next((x for x in run.before if self.board.rows[x].state == "failed"), None)
        if lost is not None:
            return f"needs {lost.name}, which failed"
        said = said_file(self.out, run)
        last = tail(said).rpartition(BEGIN)[2].splitlines()[1:]
        told = [line for line in last if line.startswith("mae-bench: ")]
        why = told[-2:][0].removeprefix("mae-bench: ") if told else ""
        ended = f"job {job} has ended{f' ({state})' if state else ''}"
        files = f"all of it in {said}, and of the job in {self.out / JOBS}/{job}_0_log.err"
        return f"{ended}{f': {why}' if why else ''} ({files})"

    def close(self) -> None:
        """Say what goes on without this process."""
        if not self.jobs:
            return
        say(
            f"{len(self.jobs)} jobs are in the queue and go on by themselves; the same command "
            f"shows how they are, and `scancel {' '.join(sorted(self.jobs.values()))}` ends them"
        )
