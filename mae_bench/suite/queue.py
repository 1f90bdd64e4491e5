"""The queue of a Slurm cluster: jobs put in, and how they are.

Imports no torch, and submitit only where a job is put in.
"""

import getpass
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from mae_bench.errors import RunError, first_line
from mae_bench.suite.job import RunJob
from mae_bench.suite.slurm import WARNING, Slurm, minutes

MOST_IN_AN_ARRAY = 1000
"""Slurm's own MaxArraySize is 1001, with jobs numbered from 0"""
MOST_TIME_OUTS = 1_000_000
"""submitit counts how often a time may be up; a job of ours counts the times without a step"""
PATIENCE = 60.0
"""seconds for an answer of the cluster"""
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "CONFIGURING")
BUSY = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")


class Queue(Protocol):
    """A cluster, as a suite sees it."""

    keeps_order: bool
    """whether a job can wait there for others"""

    def put(self, jobs: Sequence[RunJob], name: str, after: Sequence[str]) -> list[str]:
        """Put jobs in, which wait until all of `after` have ended well; their ids.

        Raises `RunError` for what the cluster refuses.
        """
        ...

    def states(self) -> dict[str, str] | None:
        """The state of jobs by their ids, as Slurm calls it; None if the cluster is silent."""
        ...

    def take_out(self, job: str) -> None:
        """Take a job out of the queue, or end it."""
        ...


class SlurmQueue:
    """A Slurm cluster."""

    keeps_order = True

    def __init__(self, slurm: Slurm, folder: Path, at_a_time: int | None, workers: int) -> None:
        """`folder`: for the files of jobs; at most `at_a_time` of those put in together run.

        Raises `RunError` for what is missing here.
        """
        self.slurm, self.folder, self.at_a_time = slurm, folder, at_a_time
        self.workers = workers
        submitit_or_error()
        if shutil.which("sbatch") is None or shutil.which("squeue") is None:
            raise RunError(
                "--launcher slurm: there is no sbatch here; give the command on a machine of the "
                "cluster from which jobs are put into its queue"
            )
        if slurm.time is None:
            raise RunError("--launcher slurm needs --time, for example 24:00:00")

    def put(self, jobs: Sequence[RunJob], name: str, after: Sequence[str]) -> list[str]:
        """One job by itself, several as arrays."""
        found: list[str] = []
        for first in range(0, len(jobs), MOST_IN_AN_ARRAY):
            some = jobs[first : first + MOST_IN_AN_ARRAY]
            executor = self.executor(name, after)
            try:
                put = executor.submit_array(some) if len(some) > 1 else [executor.submit(some[0])]
            except RuntimeError as error:
                told = [line for line in str(error).splitlines() if line.strip()]
                raise RunError(f"sbatch: {(told or [first_line(error)])[-1].strip()}") from None
            found += [job.job_id for job in put]
        return found

    def executor(self, name: str, after: Sequence[str]) -> Any:
        """What submits jobs with all that was asked for."""
        slurm, submitit = self.slurm, submitit_or_error()
        more = dict(word.removeprefix("--").split("=", 1) for word in slurm.sbatch)
        more = {key.replace("-", "_"): value for key, value in more.items()}
        asked: dict[str, Any] = {
            "job_name": name,
            "time": minutes(slurm.time or ""),
            "nodes": slurm.nodes,
            "ntasks_per_node": slurm.processes_per_node,
            "cpus_per_task": self.workers + 1,
            "signal_delay_s": WARNING,
            "partition": slurm.partition,
            "account": slurm.account,
            "qos": slurm.qos,
            "setup": list(slurm.setup) or None,
            "gpus_per_node": slurm.gpus_per_node or None,
            "srun_args": ["--kill-on-bad-exit=1"],
            "additional_parameters": {"requeue": True} | more,
        }
        if after:
            asked["dependency"] = f"afterok:{':'.join(after)}"
            asked["additional_parameters"] = {"kill-on-invalid-dep": "yes"} | asked[
                "additional_parameters"
            ]
        if self.at_a_time is not None:
            asked["array_parallelism"] = self.at_a_time
        executor = submitit.SlurmExecutor(self.folder, max_num_timeout=MOST_TIME_OUTS)
        executor.update_parameters(**{k: v for k, v in asked.items() if v is not None})
        return executor

    def states(self) -> dict[str, str] | None:
        return slurm_states()

    def take_out(self, job: str) -> None:
        subprocess.run(["scancel", job], capture_output=True, timeout=PATIENCE, check=False)


def slurm_states() -> dict[str, str] | None:
    """Of all jobs of this user, also of those that ended some minutes ago; see `Queue.states`."""
    ask = ["squeue", "--array", "--noheader", "--states=all", "--format=%i|%T"]
    try:
        done = subprocess.run(
            [*ask, f"--user={getpass.getuser()}"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = (line.strip().partition("|") for line in done.stdout.splitlines())
    return {job: state for job, _, state in lines}


def submitit_or_error() -> Any:
    """The library; `RunError` where it is not installed."""
    try:
        import submitit
    except ImportError:
        raise RunError(
            "--launcher slurm needs submitit; pip install 'mae-bench[slurm]', or submitit"
        ) from None
    return submitit
