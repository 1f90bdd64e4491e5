"""Runs of a suite that jobs of a cluster do, as a suite on this machine sees them.

Imports no torch.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from mae_bench.arguments import JOBS
from mae_bench.errors import RunError
from mae_bench.progress import say
from mae_bench.run.files import RECORD_FILE
from mae_bench.suite.job import read_entry
from mae_bench.suite.queue import BUSY, WAITING, slurm_states
from mae_bench.suite.runs import SuiteRun

ASK = 15.0
"""seconds between questions to the cluster, which serves others too"""


def entry_file(out: Path, run: SuiteRun) -> Path:
    """The file that says which job does a run."""
    return out / JOBS / f"{run.name}.json"


class Queued:
    """The jobs that earlier commands have put into a cluster's queue for the runs of a folder."""

    def __init__(self, runs: Sequence[SuiteRun], out: Path) -> None:
        """Raises `RunError` if there are such jobs and the cluster does not answer."""
        self.jobs: dict[SuiteRun, str] = {}
        for run in runs:
            job = read_entry(entry_file(out, run)).get("job")
            if isinstance(job, str) and not (out / run.name / RECORD_FILE).exists():
                self.jobs[run] = job
        self.asked = float("-inf")
        self.states: dict[str, str] = {}
        if self.jobs and shutil.which("squeue") is None:
            say(
                f"note: {len(self.jobs)} of these runs were put into the queue of a cluster, the "
                f"first {next(iter(self.jobs)).name}, and there is no squeue here to ask about "
                "them; they are run here, unless another process works in their folders",
                style="yellow",
            )
            self.jobs.clear()
        if self.jobs and not self.ask():
            raise RunError(
                f"{out / JOBS}: jobs of a cluster may do these runs, and squeue does not answer; "
                "the same command tries again"
            )

    def ask(self) -> bool:
        """Ask the cluster how all jobs are; without an answer what was known stays."""
        self.asked = time.monotonic()
        found = slurm_states()
        self.states = self.states if found is None else found
        return found is not None

    def said_of(self, run: SuiteRun) -> str | None:
        """What is to be said of a run that a job does, or is to do; None: there is no such job."""
        job = self.jobs.get(run)
        if job is None:
            return None
        if time.monotonic() - self.asked >= ASK:
            self.ask()
        if self.states.get(job) in (*WAITING, *BUSY):
            return f"job {job} of the cluster does it; waiting for it (`scancel {job}` ends it)"
        del self.jobs[run]
        return None
