"""`mae-bench plan`: what a suite would run, and what that would cost. Imports no torch."""

import json
import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

import tasks
from mae_bench.arguments import check_common
from mae_bench.data import MINI, miniature_world
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.progress import duration, progress, say
from mae_bench.srun import refuse_several
from mae_bench.suite.choosing import Choice, chosen_spec
from mae_bench.suite.cost import (
    DEVICES,
    GIB,
    UTILISATION,
    Cost,
    Probe,
    on_device,
    on_this_device,
)
from mae_bench.suite.expansion import expand
from mae_bench.suite.local import probe_in_process, warm_up
from mae_bench.suite.runs import SuiteRun
from mae_bench.suite.there import There
from mae_bench.text_table import NOTHING, show_table
from tasks.workers import refuse_long_tmpdir

Priced = tuple[SuiteRun, Probe, Cost]
COSTS_NOTHING = ("base_lr", "min_lr", "weight_decay", "layer_decay", "label_smoothing")
"""fields of recipes that change no time, memory or disk, and which no other field depends on"""


def plan(
    what: str | Path | None = None,
    *,
    out: str | Path = "runs",
    execution: Execution | None = None,
    on: str | None = None,
    utilisation: float = UTILISATION,
    **choice: Unpack[Choice],
) -> list[Priced]:
    """Print what `mae_bench.suite` would run, and what that would cost; `choice`: its arguments.

    Nothing is trained but a few steps of each kind of run, in a process of its own, on the device
    at hand: their time is extrapolated. With `on`, one of `mae_bench.suite.cost.DEVICES`, hours are
    reckoned for that device instead, from counted operations and the share `utilisation` of its
    most. Runs that are there already are left out. Raises a one-line error for bad input, and
    `RunError` at the end for runs that could not be probed, as those on data that are not there.
    """
    refuse_several("plan")
    check_common(out)
    how = execution or Execution()
    if how.shard:
        raise RunError("--shard: what is planned is runs of one process; leave it out")
    if on is not None:
        tasks.check_known("device", on, list(DEVICES))
    if not 0 < utilisation <= 1:
        raise RunError(f"utilisation is {utilisation}; expected a share above 0, at most 1")
    refuse_long_tmpdir()
    spec, left_out = chosen_spec(what, **choice)
    expanded = expand(spec)
    for line in [*left_out, *expanded.left_out]:
        say(f"left out: {line}")
    there = There(Path(out))
    missing = [run for run in expanded.runs if there.look(run) is None]
    if len(missing) < len(expanded.runs):
        say(f"{len(expanded.runs) - len(missing)} of {len(expanded.runs)} runs are there already")
    if any(run.data == MINI for run in missing):
        miniature_world()
    priced, faults = price(missing, how, on, utilisation)
    show(priced, Path(out), there, how, on, utilisation)
    if faults:
        raise RunError(f"{len(faults)} of {len(missing)} runs are not planned: {faults[0]}")
    return priced


def price(
    runs: Sequence[SuiteRun], how: Execution, on: str | None, utilisation: float
) -> tuple[list[Priced], list[str]]:
    """The cost of each run, and why some have none; those that cost the same are probed once."""
    faults: list[str] = []
    known: dict[SuiteRun, Probe | str] = {}
    found: list[Priced] = []
    room = float(memory())
    warm_up()
    with TemporaryDirectory() as place, progress("probing", len(runs)) as bar:
        for number, run in enumerate(runs, start=1):
            parts = [costly(each) for each in candidates(run) or [run]]
            for part in parts:
                if part not in known:
                    known[part] = probed(part, how, Path(place) / f"{len(known)}.json")
            bar.update(number, run.name)
            probes = [known[part] for part in parts]
            fault = next((each for each in probes if isinstance(each, str)), None)
            if fault is not None:
                say(f"not planned: {run.name}: {fault}", style="yellow")
                faults.append(f"{run.name}: {fault}")
                continue
            there = [each for each in probes if isinstance(each, Probe)]
            most = max(there, key=lambda each: each.seconds)  # which of them is the best, who knows
            tried = [each.on_held_out(run.holdout) for each in there] if run.sweep else []
            try:
                costs = [
                    on_this_device(each, room)
                    if on is None
                    else on_device(each, DEVICES[on], run.recipe.precision, utilisation)
                    for each in (most, *tried)
                ]
            except RunError as error:
                say(f"not planned: {run.name}: {error}", style="yellow")
                continue
            seconds = sum(each.seconds for each in costs)
            found.append((run, most, replace(costs[0], seconds=seconds)))
    return found, faults


def candidates(run: SuiteRun) -> list[SuiteRun]:
    """The trainings of a sweep, as runs; none: nothing is swept."""
    grid = run.grid
    values = [] if grid is None else [each.values for each in grid.candidates]
    changes = [dict(run.overrides) | each for each in values]
    return [replace(run, sweep=(), overrides=tuple(sorted(each.items()))) for each in changes]


def costly(run: SuiteRun) -> SuiteRun:
    """What of a run decides what it costs: runs that differ in nothing else are probed once."""
    kept = tuple((name, value) for name, value in run.overrides if name not in COSTS_NOTHING)
    tested = run.needs if run.command == "evaluate" else None
    needs = None if tested is None else costly(replace(tested, sweep=()))
    return replace(run, seed=0, overrides=kept, weights=None, init=None, needs=needs, called=None)


def probed(run: SuiteRun, how: Execution, file: Path) -> Probe | str:
    """What a run shows in a few steps, or why it does not."""
    reason = probe_in_process(run, how, file)
    return reason if reason is not None else Probe(**json.loads(file.read_text()))


def show(
    priced: Sequence[Priced],
    out: Path,
    there: There,
    how: Execution,
    on: str | None,
    utilisation: float,
) -> None:
    """The table, the commands, the totals, and what does not suffice."""
    if not priced:
        return
    rows = [["run", "parameters", "FLOPs a step", "steps", "batch", "memory", "disk", "time"]]
    for run, probe, cost in priced:
        per_step = probe.flops_per_step
        batch = f"{cost.accumulation} x {cost.device_batch}" if probe.steps else NOTHING
        rows.append(
            [
                run.name,
                amount(probe.parameters),
                amount(per_step) if per_step else NOTHING,
                f"{probe.steps:,}" if probe.steps else NOTHING,
                batch,
                size(cost.bytes) if cost.bytes > 0 else NOTHING,
                size(probe.disk_bytes),
                duration(cost.seconds),
            ]
        )
    show_table(rows)
    say("\ncommands:")
    for run, _, _ in priced:
        say(shlex.join(["mae-bench", *run.words(out, there.folders, how)]))
    seconds = sum(cost.seconds for _, _, cost in priced)
    disk = sum(probe.disk_bytes for _, probe, _ in priced)
    say(f"\ntotal: {seconds / 3600:.2f} device-hours, {size(disk)} on disk at most")
    say(f"times: {source(priced[0][1], on, utilisation)}")
    if any(run.sweep for run, _, _ in priced):
        say(
            "a sweep's time is that of all its candidates and of the last training, as long as the "
            "longest; the rest of its row is that of one training"
        )
    say("batch: micro-batches of a step x images on the device, whose product is the recipe's")
    for line in lacking(priced, out, disk):
        say(line, style="bold red")


def source(probe: Probe, on: str | None, utilisation: float) -> str:
    """Where the times come from."""
    if on is None:
        return f"measured over a few steps on this device ({probe.device}), and extrapolated"
    return (
        f"reckoned for {DEVICES[on].title} from counted operations, at {utilisation:.0%} of its "
        "most (assumed; --utilisation), with images read as fast as it takes them"
    )


def lacking(priced: Sequence[Priced], out: Path, disk: int) -> list[str]:
    """What does not suffice, a line each."""
    found = []
    for run, probe, cost in priced:
        if not cost.fits:
            found.append(
                f"memory does not suffice: {run.name} takes {size(cost.bytes)} with "
                f"{cost.device_batch} image at a time, and there are {size(cost.room)}"
            )
        elif probe.steps and cost.device_batch < probe.device_batch:
            found.append(
                f"memory does not suffice for {probe.device_batch} images at a time: "
                f"{run.name} fits with --device-batch {cost.device_batch}, {cost.accumulation} "
                "micro-batches to a step"
            )
    place = next(each for each in (out.resolve(), *out.resolve().parents) if each.exists())
    free = shutil.disk_usage(place).free
    if disk > free:
        found.append(
            f"disk does not suffice: {size(disk)} are needed, {size(free)} free in {place}"
        )
    return found


def memory() -> int:
    """Bytes of memory of one device: of a GPU, or of this machine."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def amount(number: float) -> str:
    """ "86.6 M", "1.2 T"."""
    for unit, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number:.0f}"


def size(number: float) -> str:
    """ "3.2 GiB"."""
    return f"{number / GIB:.2f} GiB" if number >= GIB / 100 else f"{number / 2**20:.1f} MiB"
