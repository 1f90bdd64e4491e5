"""A run of a suite as a job of a cluster: what happens on its nodes. Imports no torch.

submitit calls the job in each of its processes, one for each GPU. Each carries out the run's
command in a process of its own and waits for it. Asked to end, by the warning before its time is
up or by SIGTERM, it has the command save, and the job goes back into the queue.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mae_bench.errors import HELD, RunError
from mae_bench.run.files import RECORD_FILE, STATES
from mae_bench.srun import port_of

SAVING = 150.0
"""seconds that the command may take to save before it is killed; a warning comes before"""
STAYING = 3600.0
"""seconds that a job which has saved waits for the cluster to end it, and to queue it again
perhaps: one that is preempted is only queued again if it is there at the end of its grace"""
MOST_IDLE = 5
"""times that a job is queued again without a step further; its time is too short, then"""
HOLDING = 60.0
"""seconds before a job goes back into the queue because another process works on its run"""
LOOK = 0.2
"""seconds between looks at the command"""
BEGIN = "--- job "
"""what the part of each start begins with, in the file of what a run prints"""
COULD_NOT_SAVE = 2
"""exit code of a command that ended by an error"""


@dataclass
class RunJob:
    """A command of ours for submitit, which pickles it: now, and whenever it is queued again."""

    words: Sequence[str]
    """of the command, after mae-bench"""
    said: str
    """file of what it prints"""
    folder: str
    """of its run"""
    entry: str
    """file that says which job does the run"""
    ticket: str
    """what that file says if it is this one"""
    gpus: int = 0
    """on each node"""
    workers: int = 0
    """loader processes of each process"""
    saved: tuple[str, ...] | None = None
    """what there was when it was queued again for the last time"""
    idle: int = 0
    """how often it was queued again without a step further"""
    held: bool = False
    """whether it was queued again because another process worked on its run"""

    def __call__(self) -> None:
        """Carry the command out; `RunError` if it fails."""
        import submitit

        place = submitit.JobEnvironment()
        if not place.global_rank:
            self.say(f"{BEGIN}{place.job_id} on {socket.gethostname()}")
        try:
            self.refuse()
            self.carry_out(place)
        except RunError as error:
            self.say(f"mae-bench: error: {error}")
            raise

    def carry_out(self, place: Any) -> None:
        """Have the command done; queue again if it had to stop before its end."""
        asked: list[int] = []
        command = self.start(place)

        def note(number: int, _: Any) -> None:
            if not asked and command.poll() is None:
                command.terminate()
            asked.append(number)

        warning = int(signal.Signals[f"SIG{place.USR_SIG}"])
        numbers = {warning, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
        before: dict[int, Any] = {each: signal.signal(each, note) for each in numbers}
        code = wait(command, asked)
        if not code:
            return
        self.held = code == HELD
        if code == COULD_NOT_SAVE or not (asked or self.held):
            raise RunError(f"exit code {code}")
        if place.global_rank:  # the first speaks for all
            return
        if self.held:  # to end well is for a run that is finished, to fail for what cannot be
            self.say("mae-bench: held; the job goes back into the queue, to try again from there")
            sleep(HOLDING, asked)
        if warning in asked or not asked or is_wanted(place):
            before[warning](warning, None)  # submitit's: `checkpoint`, and back into the queue
        time.sleep(STAYING)
        raise RunError(f"stopped by {signal.Signals(asked[0]).name}, and ended by nobody")

    def checkpoint(self) -> Any:
        """What submitit is to queue instead of this job; None: nothing, which ends the run."""
        import submitit

        there = saved(Path(self.folder))
        if not self.held:
            self.idle = self.idle + 1 if there == self.saved else 0
        self.saved = there
        if self.idle >= MOST_IDLE:
            self.say(
                f"mae-bench: error: not a step further in {MOST_IDLE} starts, so it is not queued "
                "again; give it more --time"
            )
            return None
        return submitit.helpers.DelayedSubmission(self)

    def start(self, place: Any) -> "subprocess.Popen[bytes]":
        """The command, begun; it stays in this group of processes, by which some clusters kill."""
        with Path(self.said).open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "mae_bench", *self.words],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=os.environ | self.threads() | where(place),
            )

    def threads(self) -> dict[str, str]:
        """The threads of a process, if the cluster says how many cores it has, and nobody else."""
        cores = os.environ.get("SLURM_CPUS_PER_TASK", "")
        if "OMP_NUM_THREADS" in os.environ or not cores.isdigit():
            return {}
        return {"OMP_NUM_THREADS": str(max(1, int(cores) - self.workers))}

    def refuse(self) -> None:
        """Raise `RunError` if another job does the run by now, or there are no GPUs."""
        entry = read_entry(Path(self.entry))
        if entry.get("ticket") != self.ticket:
            raise RunError(f"this run belongs to another job by now ({entry.get('job', 'none')})")
        if not self.gpus:
            return
        import torch

        found = torch.cuda.device_count()
        if not found:
            raise RunError(
                f"the job asked for {self.gpus} GPUs of a node, and torch sees none on "
                f"{socket.gethostname()}; --gpus-per-node 0 works without, and `mae-bench doctor` "
                "says what torch lacks"
            )

    def say(self, line: str) -> None:
        """Add a line to what the run prints."""
        with Path(self.said).open("a") as said:
            said.write(f"{line}\n")


def wait(command: "subprocess.Popen[bytes]", asked: Sequence[int]) -> int:
    """The exit code of a command, which is killed if it does not end in time after a signal."""
    end = None
    while (code := command.poll()) is None:
        if asked and end is None:
            end = time.monotonic() + SAVING
        if end is not None and time.monotonic() >= end:
            command.kill()
        time.sleep(LOOK)
    return code


def sleep(seconds: float, asked: Sequence[int]) -> None:
    """Wait so long, or until a signal asks to end."""
    end = time.monotonic() + seconds
    while not asked and time.monotonic() < end:
        time.sleep(LOOK)


def where(place: Any) -> dict[str, str]:
    """What torch asks for, of a process among others of a job; nothing for one alone."""
    if place.num_tasks == 1:
        return {}
    return {
        "RANK": str(place.global_rank),
        "WORLD_SIZE": str(place.num_tasks),
        "LOCAL_RANK": str(place.local_rank),
        "MASTER_ADDR": "127.0.0.1" if place.num_nodes == 1 else place.hostnames[0],
        "MASTER_PORT": str(port_of(int(re.sub(r"\D", "", place.raw_job_id)), 0)),
    }


def is_wanted(place: Any) -> bool:
    """Whether a job that got SIGTERM is to go on later: not if somebody has taken it out.

    Where Slurm does not answer it decides itself.
    """
    if place.name() != "slurm":
        return True
    ask = ["squeue", "--noheader", "--format=%T", f"--jobs={place.job_id}"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip() == "RUNNING"


def saved(folder: Path) -> tuple[str, ...]:
    """The states and results of a run, and of the candidates of its sweep, by name."""
    files = (file for name in (STATES, RECORD_FILE) for file in folder.rglob(name))
    return tuple(sorted(file.relative_to(folder).as_posix() for file in files))


def read_entry(file: Path) -> dict[str, Any]:
    """Which job does a run; nothing if none was ever asked to."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
