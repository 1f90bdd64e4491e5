"""Draw the images of twins, in one process or in several.

Image k of a split is a function of (seed, data set, split, k) alone: the same with one worker or
many, and whatever the sizes of the splits. To the byte it also takes the same NumPy and Pillow,
and for ImageNet-C's twin the same OpenCV.
"""

import os
import zlib
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from backbones.files import naming
from tasks.errors import TaskError
from tasks.miniature.twin import Twin
from tasks.workers import worker_init

CHUNK = 50
"""images a worker process makes per errand"""

Progress = Callable[[int, int, str], None]
"""called as (images done, images in total, data set in the making)"""


@dataclass(frozen=True, eq=False)
class Errand:
    """Images start to stop (exclusive) of one split of a twin."""

    root: Path
    seed: int
    twin: Twin
    split: str
    start: int
    stop: int

    def run(self) -> list[Any]:
        """Write the images; what the twin notes of each."""
        twin, folder = self.twin, self.root / self.twin.name
        stream = zlib.crc32(f"{twin.stream or twin.name}/{self.split}".encode())
        records = []
        with naming(folder):
            for index in range(self.start, self.stop):
                rng = np.random.default_rng([self.seed, stream, index])
                records.append(twin.write(folder, self.split, index, rng))
        return records


def draw(
    root: Path,
    seed: int,
    sizes: Mapping[Twin, Mapping[str, int]],
    workers: int | None,
    on_progress: Progress | None,
) -> None:
    """Write some twins, of so many images per split, into folders of their names in `root`."""
    errands = [
        Errand(root, seed, twin, split, start, min(start + CHUNK, count))
        for twin, splits in sizes.items()
        for split, count in splits.items()
        for start in range(0, count, CHUNK)
    ]
    total = sum(errand.stop - errand.start for errand in errands)
    notes: dict[Errand, list[Any]] = {}
    done = 0
    with closing(run_errands(errands, workers)) as results:
        for errand, records in results:
            notes[errand] = records
            done += len(records)
            if on_progress is not None:
                on_progress(done, total, errand.twin.name)
    for twin, splits in sizes.items():
        records_of: dict[str, list[Any]] = {split: [] for split in splits}
        for errand in errands:
            if errand.twin is twin:
                records_of[errand.split] += notes[errand]
        with naming(root / twin.name):
            twin.finish(root / twin.name, records_of)


def run_errands(
    errands: list[Errand], workers: int | None
) -> Generator[tuple[Errand, list[Any]], None, None]:
    """Run the errands, in this process or in several, and yield each with its result."""
    if workers is None:
        # Starting a process takes as long as drawing a few hundred images.
        workers = min(count_cores(), 1 + len(errands) // 8)
    if workers == 1:
        for errand in errands:
            yield errand, errand.run()
        return
    yield from share_out(errands, min(workers, len(errands)))


def share_out(
    errands: list[Errand], workers: int
) -> Generator[tuple[Errand, list[Any]], None, None]:
    """Run the errands in so many processes, which end with this one and leave nothing behind.

    Each is asked through a pipe of its own: the queues of a pool take semaphores that outlive it
    when it is killed. A process waits for its next errand, so one that is idle is soon done.
    """
    context = get_context("spawn")
    processes: dict[Connection, BaseProcess] = {}
    busy: dict[Connection, Errand] = {}
    try:
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            processes[ours] = process
        left, idle = errands[::-1], list(processes)
        while left or busy:
            while left and idle:
                busy[pipe := idle.pop()] = left.pop()
                pipe.send(busy[pipe])
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                outcome = ready.recv()
                if isinstance(outcome, Exception):
                    raise outcome
                yield busy.pop(ready), outcome
                idle.append(ready)
    except (EOFError, ConnectionError):
        raise TaskError(
            "a drawing process died, killed perhaps for want of memory; the same command draws "
            "the world again"
        ) from None
    finally:
        for pipe, helper in processes.items():
            pipe.close()
            helper.kill()
        for helper in processes.values():
            helper.join()


def serve(pipe: Connection) -> None:
    """Run errands as they come, to the end of the pipe; send back what each returns or raises."""
    worker_init()
    while True:
        try:
            errand = pipe.recv()
        except (EOFError, ConnectionError):
            return
        try:
            outcome: Any = errand.run()
        except Exception as error:
            outcome = error
        pipe.send(outcome)


def count_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
