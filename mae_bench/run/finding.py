"""The folders of runs as they are found: whose, how far, how large. Imports no torch."""

import difflib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mae_bench.errors import RunError
from mae_bench.run.files import (
    LOCK_FILE,
    LOG_FILE,
    RECORD_FILE,
    RUN_FILE,
    STATE_FOLDER,
    STATES,
)
from mae_bench.text_table import plain
from results import Record, ResultsError, Skipped
from results.files import open_regular
from results.objects import read_json
from results.store import folders_with, read_folder, read_folders

MOST_RUN_BYTES = 4 * 1024**2
MOST_STEPS = 10**15
TAIL = 4096
"""bytes of a log's end that hold its last line"""


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds a run, finished or not."""

    name: str
    """its path below the folder of all runs"""
    folder: Path
    record: Record | None = None
    """None: not finished, or `fault` says why it cannot be read"""
    identity: dict[str, Any] | None = None
    """what run.json says; read of unfinished runs alone"""
    fault: Skipped | None = None
    """the file of a broken run that cannot be read, and why"""

    @property
    def is_closed(self) -> bool:
        """Whether the folder itself cannot be opened."""
        return self.fault is not None and self.fault.path == self.folder

    @property
    def protocol(self) -> str:
        return self.record.protocol if self.record else self.recipe("protocol")

    @property
    def backbone(self) -> str:
        return self.record.backbone if self.record else self.recipe("backbone")

    @property
    def task(self) -> str:
        return self.record.task if self.record else str((self.identity or {}).get("task", ""))

    @property
    def init(self) -> str:
        return self.record.init if self.record else str((self.identity or {}).get("init", ""))

    def recipe(self, name: str) -> str:
        """A field of the recipe of an unfinished run; nothing of a broken one."""
        return str(self.identity["recipe"].get(name, "")) if self.identity else ""


def all_runs_in(root: Path) -> Path:
    """The folder itself; `RunError` unless it is one."""
    if not root.is_dir():
        raise RunError(
            f"--runs {root}: no such folder of runs; name the folder that `mae-bench transfer` "
            "wrote to"
        )
    return root


def runs_in(root: str | Path) -> list[RunFolder]:
    """All runs in `root` and below, by protocol, then by name; `RunError` if it is no folder.

    A folder that cannot be opened counts as a broken run.
    """
    root = all_runs_in(Path(root))
    there = read_folders(root, (RUN_FILE,))
    found = [run_of(name_of(folder, root), folder, said) for folder, said in there]
    return sorted(found, key=lambda run: (run.protocol, run.name))


def read_run(name: str, folder: Path) -> RunFolder:
    """A run with what its files say, broken ones included."""
    return run_of(name, folder, read_folder(folder))


def run_of(name: str, folder: Path, said: Record | Skipped | None) -> RunFolder:
    """The run in a folder whose record is known."""
    if isinstance(said, Record):
        return RunFolder(name, folder, record=said)
    if isinstance(said, Skipped):
        return RunFolder(name, folder, fault=said)
    try:
        return RunFolder(name, folder, identity=read_identity(folder))
    except ResultsError as error:
        return RunFolder(name, folder, fault=Skipped(folder / RUN_FILE, str(error)))


def name_of(folder: Path, root: Path) -> str:
    """Of a run, among all in `root`."""
    return folder.relative_to(root).as_posix()


def read_identity(folder: Path) -> dict[str, Any]:
    """What a run folder's run.json says; `ResultsError`, without the file, if it says nothing."""
    content: Any = read_json(folder / RUN_FILE, MOST_RUN_BYTES)
    if not isinstance(content, dict) or not isinstance(content.get("recipe"), dict):
        raise ResultsError("names no recipe")
    return dict(content)


def find(name: str, root: str | Path) -> RunFolder:
    """The run of that name; `RunError` with near matches if there is none, or it is broken."""
    there = folders_with((RECORD_FILE, RUN_FILE), all_runs_in(Path(root)))
    folders = {name_of(folder, Path(root)): folder for folder in there}
    if name not in folders:
        last = {each.rpartition("/")[2]: each for each in folders}
        near = difflib.get_close_matches(name, [*folders, *last], n=3)
        names = dict.fromkeys(repr(last.get(each, each)) for each in near)
        hint = f"did you mean {' or '.join(names)}? " if near else ""
        raise RunError(f"no run {name!r} in {root}; {hint}`mae-bench runs list` names them all")
    run = read_run(name, folders[name])
    if run.fault:
        raise RunError(plain(f"run {name!r} is broken: {run.fault.path}: {run.fault.reason}"))
    return run


def state(run: RunFolder) -> str:
    """ "finished", "under way, step 12 of 75" or "stopped at step 10 of 75"."""
    if run.record is not None:
        return "finished" if run.record.complete else "finished, incomplete"
    busy = is_locked(run.folder)
    step = last_step(run.folder) if busy else saved_step(run.folder)
    planned = planned_steps(run.identity or {})
    where = f"step {step}" + (f" of {planned}" if planned else "")
    return f"under way, {where}" if busy else f"stopped at {where}"


def is_locked(folder: Path) -> bool:
    """Whether a process works in a run folder, as far as this user can tell."""
    if not (folder / LOCK_FILE).exists():
        return False
    try:
        with FileLock(folder / LOCK_FILE, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # somebody else's folder
        return False


def last_step(folder: Path) -> int:
    """The last step in the log, 0 if there is none."""
    try:
        with open_regular(folder / LOG_FILE) as stream:
            stream.seek(max(0, stream.seek(0, 2) - TAIL))
            line = stream.read(TAIL).rpartition(b"\n")[0].rpartition(b"\n")[2]
        step = json.loads(line)["step"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0
    return step if isinstance(step, int) and 0 <= step <= MOST_STEPS else 0


def saved_step(folder: Path) -> int:
    """The step that a stopped run goes on from."""
    names = [file.stem.removeprefix("step-") for file in (folder / STATE_FOLDER).glob(STATES)]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def planned_steps(identity: dict[str, Any]) -> int | None:
    """How many steps a run takes, as `batches.MicroBatches` counts them; None: it trains none."""
    try:
        recipe, data = identity["recipe"], identity["data"]
        epoch_steps = data["train_images"] // recipe["batch_size"]
        if data["standard"] and recipe.get("epoch_images") is not None:
            epoch_steps = recipe["epoch_images"] / recipe["batch_size"]
        return max(1, int(recipe["epochs"] * float(epoch_steps)))
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None


def age(run: RunFolder) -> str:
    """Since a run finished, or since anything happened in its folder: "45 s", "3 d"."""
    if run.record is not None:
        since = run.record.finished
    else:
        files = [run.folder / name for name in (LOG_FILE, RUN_FILE, RECORD_FILE)]
        times = [file.stat().st_mtime for file in files if file.exists()]
        since = datetime.fromtimestamp(max(times, default=0), UTC)
    seconds = max(0.0, (datetime.now(UTC) - since).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size_on_disk(folder: Path) -> int:
    return sum(size for _, size in contents(folder))


def contents(folder: Path) -> list[tuple[Path, int]]:
    """The files and folders of a run with their bytes, without the runs inside it."""
    found = []
    for place in sorted(folder.iterdir()):
        if not place.is_dir() or place.is_symlink():
            found.append((place, size_of(place)))
        elif not (place / RUN_FILE).exists() and not (place / RECORD_FILE).exists():
            found.append((place, bytes_below(place)))
    return found


def bytes_below(folder: Path) -> int:
    """Of all files; what a link leads to does not count."""
    files = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sum(map(size_of, files))


def size_of(file: Path) -> int:
    """Bytes of a file or link; 0 if a run under way has just taken it away."""
    try:
        return file.lstat().st_size
    except FileNotFoundError:
        return 0
