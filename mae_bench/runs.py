"""`mae-bench runs`: what is in the folder of all runs, and what to do with it. Imports no torch.

From Python:

    from mae_bench import runs
    runs.list_runs(); runs.show("one"); runs.compare("one", "other"); runs.prune(yes=True)
    bundle = runs.pack("one"); runs.rescore(bundle, data="/data/coco")
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mae_bench.errors import RunError
from mae_bench.progress import duration, say
from mae_bench.rescore import rescore
from mae_bench.run.files import HALF_WRITTEN, LOCK_FILE, RUN_FILE, STATE_FOLDER, STATES
from mae_bench.run.finding import (
    RunFolder,
    age,
    contents,
    find,
    is_locked,
    runs_in,
    size_of,
    size_on_disk,
    state,
)
from mae_bench.text_table import NOTHING, plain, show_table
from mae_bench.words import hand_in
from results import Record
from results.bundle import SUFFIX, WEIGHTS, stale_halves, write_bundle
from results.labels import shown
from results.protocol import ProtocolId

__all__ = ["compare", "list_runs", "pack", "prune", "rescore", "show"]

TITLES = ("name", "protocol", "backbone", "init", "score", "state", "size", "age")
Facts = dict[str, dict[str, str]]
"""section -> name -> value: all that is known of a run, as text"""


def list_runs(
    runs: str | Path = "runs", task: str | None = None, protocol: str | None = None
) -> list[RunFolder]:
    """Print a line for each run: what it is, how far, its main score, its size on disk and age.

    `protocol` is a whole id, or the part of it that `mae-bench transfer --protocol` takes.
    """
    everything = runs_in(runs)
    found = [run for run in everything if matches(run, task, protocol)]
    if not found:
        asked = f" of {' '.join(filter(None, (task, protocol)))}" if task or protocol else ""
        there = dict.fromkeys(run.protocol for run in everything if run.protocol)
        hint = f"; there are {', '.join(map(plain, there))}" if there else ""
        say(f"no runs{asked} in {runs}{hint}")
        return []
    table = [TITLES]
    for run in found:
        where = "broken" if run.fault else state(run)
        outside = ("?", "?") if run.is_closed else (size_text(size_on_disk(run.folder)), age(run))
        score = main_score(run.record)
        table.append((run.name, run.protocol, run.backbone, run.init, score, where, *outside))
    show_table(table)
    for run in found:
        if run.fault:
            say(f"broken: {plain(f'{run.fault.path}: {run.fault.reason}')}")
    return found


def summaries(
    runs: str | Path = "runs", task: str | None = None, protocol: str | None = None
) -> list[dict[str, Any]]:
    """What `list_runs` prints, for JSON: numbers as they are, and all scores of a run."""
    return [
        {
            "name": run.name,
            "folder": str(run.folder),
            "task": run.task,
            "protocol": run.protocol,
            "backbone": run.backbone,
            "init": run.init,
            "state": "broken" if run.fault else state(run),
            "finished": run.record.finished.isoformat() if run.record else None,
            "complete": run.record.complete if run.record else None,
            "metrics": run.record.metrics if run.record else {},
            "bytes": size_on_disk(run.folder),
            "fault": run.fault.reason if run.fault else None,
        }
        for run in runs_in(runs)
        if matches(run, task, protocol)
    ]


def matches(run: RunFolder, task: str | None, protocol: str | None) -> bool:
    """Whether a run is of this task and protocol, where they are given."""
    parts = ProtocolId.read(run.protocol)
    names = (parts.full_name, parts.asked)
    known = (None, run.protocol, *names, *(f"{parts.task}/{name}" for name in names))
    return task in (None, run.task) and protocol in known


def show(name: str, runs: str | Path = "runs") -> RunFolder:
    """Print all that is known of a run: scores, recipe, data, environment, cost, files."""
    run = find(name, runs)
    sections = facts(run)
    sections["files"] = {
        file.relative_to(run.folder).as_posix(): size_text(size)
        for file, size in contents(run.folder)
    }
    say(plain(f"{run.name}: {state(run)}"), style="bold")
    for section, entries in sections.items():
        if entries:
            say(f"\n{section}", style="bold")
            show_table([("", key, value) for key, value in entries.items()])
    return run


def compare(a: str, b: str, runs: str | Path = "runs") -> list[tuple[str, str, str, str]]:
    """Print what differs between two runs, and all their scores.

    Returns the rows: section, name, value of `a`, value of `b`.
    """
    one, other = find(a, runs), find(b, runs)
    ours, theirs = facts(one), facts(other)
    rows = []
    for section in dict.fromkeys([*ours, *theirs]):
        left, right = ours.get(section, {}), theirs.get(section, {})
        for key in dict.fromkeys([*left, *right]):
            pair = left.get(key, NOTHING), right.get(key, NOTHING)
            if section == "metrics" or pair[0] != pair[1]:
                rows.append((section, key, *pair))
    table, before = [("", "", a, b, "first − second")], ""
    for section, key, left_value, right_value in rows:
        change = difference(key, one.record, other.record) if section == "metrics" else ""
        shown = "" if section == before else section
        table.append((shown, key, left_value, right_value, change))
        before = section
    show_table(table, fold=True)
    return rows


def difference(metric: str, a: Record | None, b: Record | None) -> str:
    """The first run's score minus the second one's, as `report --compare` has it."""
    if a is None or b is None or metric not in a.metrics or metric not in b.metrics:
        return ""
    return f"{a.metrics[metric] - b.metrics[metric]:+.{decimals(metric)}f}"


def prune(
    runs: str | Path = "runs",
    names: Sequence[str] = (),
    *,
    weights: bool = False,
    yes: bool = False,
) -> int:
    """Delete what a finished run has no more use for; without `yes` only say what that is.

    That is its saved states, which only training goes on from, and of any run what a killed
    process left half written, bundles beside the runs included. What another user owns is named
    and left alone. `weights`: the weights of finished runs too, which only training
    makes again. Never a record, a log or predictions, nor anything of a run under way. `names`:
    of these runs alone. Returns the bytes that are, or would be, free.
    """
    chosen = [find(name, runs) for name in names] or runs_in(runs)
    total = 0
    for run in chosen:
        if not run.fault and (run.folder / RUN_FILE).is_file():
            try:
                total += prune_run(run, weights, yes)
            except OSError as error:  # somebody else's files
                where = error.filename or run.folder
                say(plain(f"{run.name}: left alone; {where}: {error.strerror}"))
    if not names:
        total += prune_bundles({Path(runs), *(run.folder.parent for run in chosen)}, yes)
    done = "freed" if yes else "would free"
    say(f"{done} {size_text(total)}" + ("" if yes or not total else "; --yes does it"))
    return total


def prune_bundles(folders: Iterable[Path], yes: bool) -> int:
    """`prune` of bundles that were never written to their end, beside the runs."""
    total = 0
    for file in (file for folder in sorted(folders) for file in stale_halves(folder)):
        try:
            size = size_of(file)
            if yes:
                file.unlink(missing_ok=True)
        except OSError as error:
            say(plain(f"{file}: left alone; {error.strerror}"))
            continue
        say(plain(f"{file} {size_text(size)}"))
        total += size
    return total


def prune_run(run: RunFolder, weights: bool, yes: bool) -> int:
    """`prune` of one run, while no process works in it."""
    if not yes:
        busy = is_locked(run.folder)
        return 0 if busy else sum(tell(run, *each) for each in useless(run, weights))
    lock = FileLock(run.folder / LOCK_FILE, timeout=0)
    try:
        with lock:
            total = 0
            for file, size in list(useless(run, weights)):
                file.unlink(missing_ok=True)
                total += tell(run, file, size)
            states = run.folder / STATE_FOLDER
            linked = states.is_symlink()
            if run.record and states.is_dir() and not linked and not any(states.iterdir()):
                states.rmdir()
            return total
    except Timeout:
        return 0


def tell(run: RunFolder, file: Path, size: int) -> int:
    say(plain(f"{run.name}: {file.relative_to(run.folder)} {size_text(size)}"))
    return size


def useless(run: RunFolder, weights: bool) -> Iterator[tuple[Path, int]]:
    """Files that `prune` deletes, with their bytes. Links lead elsewhere and are left alone."""
    states = run.folder / STATE_FOLDER
    places = [run.folder] if states.is_symlink() else [run.folder, states]
    found = [file for place in places for file in place.glob(f"*{HALF_WRITTEN}")]
    if run.record is not None:
        found += [] if states.is_symlink() else sorted(states.glob(STATES))
        found += [run.folder / name for name in WEIGHTS if weights]
    for file in found:
        if file.is_file() and not file.is_symlink():
            yield file, size_of(file)


def pack(
    name: str,
    output: str | Path | None = None,
    runs: str | Path = "runs",
    *,
    weights: bool = False,
    pictures: bool = False,
) -> Path:
    """Write a finished run into one file, by default beside its folder: `results.bundle`."""
    run = find(name, runs)
    if run.record is None:
        raise RunError(f"run {name!r} is {state(run)}; the command that began it finishes it")
    folder = run.folder.resolve()
    file = Path(output) if output is not None else folder.with_name(f"{folder.name}{SUFFIX}")
    if file.is_dir():
        raise RunError(f"--output {file}: is a folder; expected the name of a file, *{SUFFIX}")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(run.folder, file, weights=weights, pictures=pictures)
    say(f"written to {file}  {size_text(file.stat().st_size)}")
    return file


def facts(run: RunFolder) -> Facts:
    """All that is known of a run but its files."""
    record = run.record
    if record is None:
        identity = dict(run.identity or {})
        sections: Facts = {"run": {}}
        for key, value in identity.items():
            if isinstance(value, dict):
                sections[{"checkpoint": "weights"}.get(key, key)] = texts(value)
            elif value is not None:
                sections["run"][key] = text(value)
        return sections
    interval = {
        name: f" (95 % interval {low:.{decimals(name)}f} to {high:.{decimals(name)}f})"
        for name, (low, high) in record.intervals.items()
    }
    seconds, memory = record.cost.seconds, record.cost.peak_memory_bytes
    speed = record.cost.images_per_second
    environment = record.environment.model_dump()
    versions = environment.pop("versions")
    return {
        "metrics": {
            name: f"{value:.{decimals(name)}f}{interval.get(name, '')}"
            for name, value in record.metrics.items()
        },
        "run": {
            "protocol": record.protocol,
            "backbone": record.backbone,
            "init": record.init,
            "seed": text(record.seed),
            "recipe hash": record.recipe_hash,
            "deviations": "; ".join(record.deviations) or "none",
            "complete": text(record.complete),
            "unreadable images": text(record.skipped_images),
            "started": f"{record.started:%Y-%m-%d %H:%M} UTC",
            "finished": f"{record.finished:%Y-%m-%d %H:%M} UTC",
        },
        "sweep": sweep_facts(record),
        "weights": texts(record.checkpoint.to_dict()) if record.checkpoint else {},
        "data": texts(record.data.model_dump()),
        "recipe": texts(record.recipe),
        "cost": {
            "training": NOTHING if seconds is None else duration(seconds),
            "images/s": NOTHING if speed is None else f"{speed:,.1f}",
            "peak memory": NOTHING if memory is None else size_text(memory),
        },
        "environment": texts(environment | versions),
    }


def sweep_facts(record: Record) -> dict[str, str]:
    """The score of each candidate; nothing of a run that was not swept."""
    sweep = record.sweep
    if sweep is None:
        return {}
    held = sweep.held_out
    found = {"by": f"{sweep.metric} on {held.images} of {held.images + held.train_images} images"}
    for each in sweep.tried:
        score = f"failed: {each.failed}" if each.score is None else f"{each.score:.4g}"
        found[str(each)] = score + (" (chosen)" if each.values == sweep.chosen else "")
    return found | {f"note {n}": note for n, note in enumerate(sweep.notes, start=1)}


def texts(values: dict[str, Any]) -> dict[str, str]:
    return {key: text(value) for key, value in values.items()}


def text(value: Any) -> str:
    """A value of a recipe as it is typed."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def decimals(metric: str) -> int:
    """Digits after the point: of points two, of a loss more."""
    return 4 if metric == "loss" else 2


def main_score(record: Record | None) -> str:
    """The score that tables show first, by name."""
    if record is None or not record.metrics:
        return NOTHING
    hand_in()
    name = next(iter([*shown(record.metrics), *record.metrics]))
    return f"{name} {record.metrics[name]:.{decimals(name)}f}"


def size_text(size: float) -> str:
    """ "512 B", "4.0 KiB", "1.2 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
