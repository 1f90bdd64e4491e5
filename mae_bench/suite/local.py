"""Runs of a suite on this machine: each a process of its own, some at the same time.

A run that fails, is killed or eats all memory harms no other, and leaves nothing behind. The
processes are forked from one that has imported torch and done nothing else, so that a short run
does not wait seconds for imports. Imports no torch.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from mae_bench.arguments import PRINTED
from mae_bench.execution import Execution
from mae_bench.streams import keep_going_unread
from mae_bench.suite.runs import SuiteRun
from tasks.workers import LEFT_TO_THE_PARENT, end_with_the_parent

PRELOADED = ["mae_bench.pretrain", "mae_bench.transfer", "mae_bench.evaluate"]
LEAVING = 10.0
"""seconds that a probe may take to end when it is stopped"""
SAVING = 60.0
"""seconds that a run may take to save when it is stopped, before it is killed"""
LEAST_FREE = 2**16
"""bytes of a disk; with less what a run prints may be cut off"""
THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Job:
    """A command line of ours in a process of its own."""

    process: Any
    said: Path
    """file of what it prints"""
    began: float
    """by `time.monotonic`"""

    @property
    def exit_code(self) -> int | None:
        """Negative: the number of the signal that killed it; None: it is under way."""
        code: int | None = self.process.exitcode
        return code

    def reason(self) -> str:
        """One line about why it failed."""
        code = self.exit_code or 0
        lines = [each.strip() for each in tail(self.said).splitlines() if each.strip()]
        told = next((x for x in reversed(lines) if x.startswith("mae-bench: ")), None)
        if code < 0:
            name = signal.Signals(-code).name
            memory = ", perhaps for want of memory" if name == "SIGKILL" else ""
            return f"killed by {name}{memory}"
        if told is None and shutil.disk_usage(self.said.parent).free < LEAST_FREE:
            return f"exit code {code}; the disk is full, also for the reason: {self.said.parent}"
        return (told or (lines[-1] if lines else f"exit code {code}")).removeprefix("mae-bench: ")


def said_file(out: Path, run: SuiteRun) -> Path:
    """Where a run prints to."""
    return out / PRINTED / f"{run.name}.txt"


def warm_up() -> None:
    """Begin to import what runs need, in the process that they are forked from."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    for helper in (resource_tracker, forkserver):  # the first lets some signals through again
        with blocked():
            helper.ensure_running()


@contextmanager
def blocked() -> Iterator[None]:
    """While open, signals wait, and processes that are begun never hear them.

    Signals often reach the whole group, and with the fork server its runs would end, unsaved.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_THE_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_as_if_typed(said: str) -> None:
    """Make of a process that the fork server has begun what a typed command is.

    But Ctrl-C is for its parent alone, with which it ends, and it prints into the file `said`.
    """
    if not Path(said).parent.is_dir():  # the parent was stopped meanwhile, and has cleared up
        os._exit(1)
    os.setsid()
    end_with_the_parent()
    multiprocessing.set_start_method(None, force=True)  # for loaders; it would be this server's
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_THE_PARENT)
    print_into(said)


class LocalRunner:
    """Starts runs in processes, and waits for them."""

    def __init__(self, places: Sequence[dict[str, str]]) -> None:
        """`places`: environment of each of the runs that may be under way at the same time."""
        warm_up()
        self.context = multiprocessing.get_context("forkserver")
        self.free = list(places)
        self.busy: dict[int, dict[str, str]] = {}
        self.jobs: list[Job] = []

    @property
    def has_room(self) -> bool:
        return bool(self.free)

    def start(self, words: Sequence[str], said: Path) -> Job:
        """Begin a command; `said` is the file for what it prints."""
        said.parent.mkdir(parents=True, exist_ok=True)
        place = self.free.pop(0)
        process = self.context.Process(target=work, args=(list(words), str(said), place))
        process.start()
        job = Job(process, said, time.monotonic())
        self.jobs.append(job)
        self.busy[id(job)] = place
        return job

    def wait(self, seconds: float) -> list[Job]:
        """The jobs that have ended, after waiting for one for at most so long."""
        wait([job.process.sentinel for job in self.jobs], seconds)
        ended = [job for job in self.jobs if job.exit_code is not None]
        for job in ended:
            job.process.join()
            self.jobs.remove(job)
            self.free.append(self.busy.pop(id(job)))
        return ended

    def stop(self, say: Callable[[str], None]) -> None:
        """Have all runs save and end."""
        for job in self.jobs:
            job.process.terminate()
        if self.jobs:
            say(f"stopping: {len(self.jobs)} under way save what they have")
        end = time.monotonic() + SAVING
        while self.jobs and time.monotonic() < end:
            self.wait(end - time.monotonic())
        for job in self.jobs:
            job.process.kill()


def work(words: list[str], said: str, place: dict[str, str]) -> None:
    """Entry point of a run's process: the command, as if typed, printing into a file."""
    begin_as_if_typed(said)
    os.environ.update(place)
    sys.argv = ["mae-bench", *words]
    import torch

    from mae_bench.cli import call

    if THREADS in place:
        torch.set_num_threads(int(place[THREADS]))
    sys.exit(call(words))


def print_into(said: str) -> None:
    """Have this process print into a file, from now on."""
    with Path(said).open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    # The descriptors stay open whatever becomes of the objects.
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    keep_going_unread()


def tail(file: Path, size: int = 8192) -> str:
    """The end of a text file; nothing of one that is not there."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - size))
            return stream.read(size).decode(errors="replace")
    except OSError:
        return ""


def places(jobs: int | None, device: str, cores: int) -> list[dict[str, str]]:
    """The environments of the runs that are under way at the same time.

    One for each GPU; without GPUs one, or `jobs` that share the cores. Threads that have to share
    a core hold each other up at every barrier. A user's own setting of threads stays.
    """
    if device != "cpu":
        import torch

        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        count = torch.cuda.device_count()
        ids = named.split(",") if named else [str(n) for n in range(count)]
        if count:
            chosen = ids[: min(jobs or count, count)]
            shared = threads(len(chosen), cores)
            return [{"CUDA_VISIBLE_DEVICES": name.strip()} | shared for name in chosen]
    return [threads(jobs or 1, cores) for _ in range(jobs or 1)]


def threads(runs: int, cores: int) -> dict[str, str]:
    """Environment of each of several runs that share the cores."""
    if runs == 1 or THREADS in os.environ:
        return {}
    return {THREADS: str(max(1, cores // runs))}


def probe_in_process(run: SuiteRun, how: Execution, file: Path) -> str | None:
    """Probe a run in a process of its own; why it failed, in a line, or None."""
    context = multiprocessing.get_context("forkserver")
    said = file.with_suffix(".txt")
    process = context.Process(target=probe_work, args=(run, how, str(file), str(said)))
    process.start()
    try:
        process.join()
    finally:  # stopped perhaps; what it shares with its loaders is taken away in order
        process.terminate()
        process.join(LEAVING)
        process.kill()
    return None if file.exists() else Job(process, said, 0.0).reason()


def probe_work(run: SuiteRun, how: Execution, file: str, said: str) -> None:
    """Entry point of a probe's process."""
    begin_as_if_typed(said)
    from mae_bench.cli import bad_input
    from mae_bench.signals import Stopped, obeyed
    from mae_bench.suite.probing import probe_into

    try:
        with obeyed():
            probe_into(run, how, Path(file))
    except Stopped as stop:
        sys.exit(128 + stop.number)
    except bad_input() as error:
        sys.exit(f"mae-bench: {error}")
