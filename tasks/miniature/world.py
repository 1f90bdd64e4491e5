"""Make, find and check a miniature world: small data sets of drawn scenes in official layouts.

    root/imagenet1k/...  root/unlabelled/...  root/coco/...  and so on, see `LAYOUTS`
    root/world.json      the manifest; written last, so a world that has it is complete

Image k of a split is a function of (seed, data set, split, k) alone: the same with one worker or
many, and whatever the sizes of the splits. To the byte it also takes the same NumPy and Pillow,
and for ImageNet-C's twin the same OpenCV.
"""

import errno
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from backbones.files import atomic_text, naming
from tasks.cache import cache_folder
from tasks.errors import TaskError
from tasks.miniature.ade20k import ADE20K
from tasks.miniature.coco import COCO
from tasks.miniature.imagenet import IMAGENET, UNLABELLED
from tasks.miniature.inaturalist import INATURALIST
from tasks.miniature.layout import Layout
from tasks.miniature.places import PLACES205, PLACES365
from tasks.miniature.robustness import ROBUSTNESS
from tasks.workers import worker_init

FORMAT = "mae-bench miniature world"
VERSION = 2
"""counts changes that alter any file of a world"""
MANIFEST = "world.json"
UNFINISHED = "world.unfinished"
"""lies in a world from the start of its making to the end"""
LOCK = ".world.lock"
MOMENT = 10.0
"""seconds after which nobody writes into a world any more whose maker was killed"""
CHUNK = 50
"""images a worker process makes per errand"""

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        IMAGENET, *ROBUSTNESS, UNLABELLED, COCO, ADE20K, *INATURALIST, PLACES205, PLACES365
    )
}  # fmt: skip

Progress = Callable[[int, int, str], None]
"""called as (images done, images in total, data set in the making)"""


@dataclass(frozen=True)
class WorldSizes:
    """Images per split; a data set whose splits are all 0 is left out.

    Of ImageNet-C it is the number of clean images: each is written in 75 corrupted versions.
    """

    imagenet1k_train: int = 1_000
    imagenet1k_val: int = 2_000
    imagenet_a_val: int = 200
    imagenet_r_val: int = 200
    imagenet_sketch_val: int = 200
    imagenet_c_val: int = 20
    unlabelled_train: int = 20_000
    coco_train: int = 400
    coco_val: int = 100
    ade20k_train: int = 300
    ade20k_val: int = 80
    inat2017_train: int = 300
    inat2017_val: int = 100
    inat2018_train: int = 300
    inat2018_val: int = 90
    inat2019_train: int = 300
    inat2019_val: int = 100
    places205_train: int = 320
    places205_val: int = 80
    places365_train: int = 320
    places365_val: int = 80

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or value < 0:
                raise TaskError(f"world size {name} is {value!r}; expected an integer, 0 or more")

    def splits(self, layout: str) -> dict[str, int]:
        """Images per split of one data set; empty if it is left out."""
        counts = {
            name.removeprefix(f"{layout}_"): count
            for name, count in asdict(self).items()
            if name.startswith(f"{layout}_")
        }
        return counts if any(counts.values()) else {}


def default_root() -> Path:
    """The world that is made when none is named: `$XDG_CACHE_HOME/mae-bench/mini-v2`."""
    return cache_folder() / f"mini-v{VERSION}"


def ensure(
    root: Path | str | None = None,
    *,
    seed: int = 0,
    sizes: WorldSizes | None = None,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Return a complete world of this version, seed and sizes at `root`, made if need be.

    An unfinished or damaged world is made again. Safe to call from several processes at once:
    one makes the world, the others wait for it. Raises TaskError if `root` holds another
    complete world, or files that are not a world; OSError as `make` does.
    """
    root = default_root() if root is None else Path(root)
    sizes = sizes or WorldSizes()
    if _is_ready(root, seed, sizes):
        return root
    _refuse_foreign(root)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / LOCK):
        if not _is_ready(root, seed, sizes):
            make(root, seed=seed, sizes=sizes, workers=workers, on_progress=on_progress)
    return root


def make(
    root: Path | str,
    *,
    seed: int = 0,
    sizes: WorldSizes | None = None,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Write a world into `root`, replacing a world that is there; return `root`.

    `workers` processes draw (default: one per core, fewer for small worlds; 1 draws in this
    process). They are spawned, so a script that calls this needs the usual
    `if __name__ == "__main__"`. Raises TaskError, before anything is written, if `root` holds
    files that are not a world, and lets OSError (read-only or full disk) through. Whatever stops
    it, an unfinished world has no manifest, and the next `ensure` makes it again.
    """
    root = Path(root)
    sizes = sizes or WorldSizes()
    if not isinstance(seed, int) or seed < 0:
        raise TaskError(f"world seed is {seed!r}; expected an integer, 0 or more")
    if workers is not None and workers < 1:
        raise TaskError(f"workers is {workers}; expected 1 or more")
    _refuse_foreign(root)
    root.mkdir(parents=True, exist_ok=True)
    with naming(root / UNFINISHED):
        (root / UNFINISHED).write_text(f"{FORMAT}, being made\n")
    (root / MANIFEST).unlink(missing_ok=True)
    for name in LAYOUTS:
        _remove(root / name)

    records = _draw_all(root, seed, sizes, workers, on_progress)
    sets: dict[str, dict[str, Any]] = {}
    for name, by_split in records.items():
        with naming(root / name):
            LAYOUTS[name].finish(root / name, by_split)
        sets[name] = {
            "classes": list(LAYOUTS[name].classes),
            "images": sizes.splits(name),
            "files": _count_files(root / name),
        }
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "seed": seed,
        "sizes": asdict(sizes),
        "files": sum(each["files"] for each in sets.values()),
        "sets": sets,
    }
    with atomic_text(root / MANIFEST) as stream:
        stream.write(json.dumps(manifest, indent=1) + "\n")
    (root / UNFINISHED).unlink()
    return root


def _remove(folder: Path) -> None:
    """Remove a folder, into which the processes of a killed making may write for a moment yet."""
    until = time.monotonic() + MOMENT
    while True:
        try:
            if folder.exists():
                shutil.rmtree(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT) or time.monotonic() > until:
                raise
        time.sleep(0.1)


def find(path: Path | str) -> dict[str, Any] | None:
    """The manifest of the complete world that `path` lies in or is; None if in none.

    `path` need not exist.
    """
    path = Path(path).resolve()
    for folder in (path, *path.parents):
        manifest = _read_manifest(folder)
        if manifest is not None:
            return manifest
    return None


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):  # absent, unreadable or not JSON: no world of ours
        return None
    is_ours = isinstance(manifest, dict) and manifest.get("format") == FORMAT
    return manifest if is_ours else None


def _is_ready(root: Path, seed: int, sizes: WorldSizes) -> bool:
    """Whether the world at `root` is complete; raises TaskError if it is another one."""
    manifest = _read_manifest(root)
    if manifest is None:
        return False
    wanted = {"version": VERSION, "seed": seed, "sizes": asdict(sizes)}
    for key, value in wanted.items():
        if manifest.get(key) != value:
            raise TaskError(
                f"{root} holds a miniature world of {key} {manifest.get(key)}; "
                f"expected {value}: name another folder, or delete this one"
            )
    counts = {name: each["files"] for name, each in manifest["sets"].items()}
    return counts == {name: _count_files(root / name) for name in LAYOUTS if sizes.splits(name)}


def _refuse_foreign(root: Path) -> None:
    """Raise TaskError if `root` is a file or a folder with something other than a world in it."""
    if not root.exists():
        return
    if not root.is_dir():
        raise TaskError(f"{root} is a file; expected a folder for the miniature world")
    # Names first: a world that another process begins or ends meanwhile is never taken as foreign.
    names = {entry.name for entry in root.iterdir()} - {LOCK}
    is_ours = UNFINISHED in names or _read_manifest(root) is not None
    if names and not is_ours and not (root / UNFINISHED).exists():
        raise TaskError(
            f"{root} is not empty and no miniature world; name an empty or new folder for it"
        )


def _count_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


@dataclass(frozen=True)
class _Errand:
    """Images start to stop (exclusive) of one split."""

    root: Path
    seed: int
    layout: str
    split: str
    start: int
    stop: int


def _run_errand(errand: _Errand) -> list[Any]:
    layout = LAYOUTS[errand.layout]
    stream = zlib.crc32(f"{layout.stream or layout.name}/{errand.split}".encode())
    records = []
    with naming(errand.root / layout.name):
        for index in range(errand.start, errand.stop):
            rng = np.random.default_rng([errand.seed, stream, index])
            records.append(layout.write(errand.root / layout.name, errand.split, index, rng))
    return records


def _draw_all(
    root: Path, seed: int, sizes: WorldSizes, workers: int | None, on_progress: Progress | None
) -> dict[str, dict[str, list[Any]]]:
    """Write all images; return what the layouts noted, per data set and split, in order."""
    errands = [
        _Errand(root, seed, layout, split, start, min(start + CHUNK, count))
        for layout in LAYOUTS
        for split, count in sizes.splits(layout).items()
        for start in range(0, count, CHUNK)
    ]
    total = sum(errand.stop - errand.start for errand in errands)
    notes: dict[_Errand, list[Any]] = {}
    done = 0
    with closing(_run_errands(errands, workers)) as results:
        for errand, records in results:
            notes[errand] = records
            done += len(records)
            if on_progress is not None:
                on_progress(done, total, errand.layout)

    by_set: dict[str, dict[str, list[Any]]] = {
        layout: {split: [] for split in sizes.splits(layout)}
        for layout in LAYOUTS
        if sizes.splits(layout)
    }
    for errand in errands:
        by_set[errand.layout][errand.split] += notes[errand]
    return by_set


def _run_errands(
    errands: list[_Errand], workers: int | None
) -> Generator[tuple[_Errand, list[Any]], None, None]:
    """Run the errands, in this process or in several, and yield each with its result."""
    if workers is None:
        # Starting a process takes as long as drawing a few hundred images.
        workers = min(_count_cores(), 1 + len(errands) // 8)
    if workers == 1:
        for errand in errands:
            yield errand, _run_errand(errand)
        return
    yield from _share_out(errands, min(workers, len(errands)))


def _share_out(
    errands: list[_Errand], workers: int
) -> Generator[tuple[_Errand, list[Any]], None, None]:
    """Run the errands in so many processes, which end with this one and leave nothing behind.

    Each is asked through a pipe of its own: the queues of a pool take semaphores that outlive it
    when it is killed. A process waits for its next errand, so one that is idle is soon done.
    """
    context = get_context("spawn")
    processes: dict[Connection, BaseProcess] = {}
    busy: dict[Connection, _Errand] = {}
    try:
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
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


def _serve(pipe: Connection) -> None:
    """Run errands as they come, to the end of the pipe; send back what each returns or raises."""
    worker_init()
    while True:
        try:
            errand = pipe.recv()
        except (EOFError, ConnectionError):
            return
        try:
            outcome: Any = _run_errand(errand)
        except Exception as error:
            outcome = error
        pipe.send(outcome)


def _count_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
