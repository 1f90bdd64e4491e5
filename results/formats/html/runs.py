"""What lies behind the rows of tables: recipes, environments, and runs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.configuration import Configuration
from results.drawing import size_title
from results.figures.lines import title_of
from results.formats.html.tables import MAX_CONFIGURATIONS, Links
from results.labels import decimals_of, is_own, metric_title, shown
from results.origins import Pretrainings
from results.record import Record
from results.showing import weights_title
from results.table import Table

MAX_RUNS = 50
"""listed for one configuration"""


@dataclass(frozen=True)
class ShownRun:
    """A finished run, where it lies, and its pictures as (what they show, file)."""

    name: str
    record: Record
    pictures: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True)
class Unfinished:
    """A run under way, or one that stopped."""

    name: str
    protocol: str
    backbone: str
    init: str
    seed: str
    epoch: float
    epochs: float | None
    """of the whole run, if its recipe tells"""
    loss: float | None
    said: str
    """when it was last heard of"""

    @property
    def share(self) -> float | None:
        """Part that is done, 0 to 1."""
        return min(self.epoch / self.epochs, 1.0) if self.epochs else None


def behind_rows(
    found: Sequence[Configuration],
    runs: Sequence[ShownRun],
    tables: Sequence[Table],
    links: Links,
    pictures: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """What lies behind a row of a table: recipe, environment and runs."""
    names = {id(run.record): run.name for run in runs}
    before = Pretrainings(run.record for run in runs)
    rows: dict[int, dict[tuple[int, int], str]] = defaultdict(dict)
    for (t, r, _), index in links.items():
        rows[index][t, r] = tables[t].title
    shown: list[dict[str, Any]] = []
    for index, c in enumerate(found[:MAX_CONFIGURATIONS]):
        own = [names[id(record)] for record in c.records]
        shown.append(
            {
                "first": c.first,
                "title": title_of(c.first.protocol),
                "size": size_title(c.first.backbone),
                "init": "from " * (c.first.kind == "pretrain") + weights_title(c.first, before),
                "headline": _headline(c),
                "verdict": _verdict(c.first),
                "own": is_own(c.first),
                "metrics": _metric_names(c),
                "runs": [
                    {"name": names[id(r)], "record": r, "cost": _cost(r)}
                    for r in c.records[:MAX_RUNS]
                ],
                "runs_left_out": max(0, len(c.records) - MAX_RUNS),
                "repeats": len(c.repeats),
                "pretraining_seeds": _pretraining_seeds(c),
                "recipe": _recipe(c.first),
                "environments": _environments(c, names),
                "rows": rows[index],
                "pictures": [p for p in pictures if p["run"] in own],
            }
        )
    for picture in pictures:
        picture["configuration"] = next(
            (i for i, each in enumerate(shown) if picture in each["pictures"]), None
        )
    return shown


def _pretraining_seeds(c: Configuration) -> str:
    """ "0, 1, 2", where they are recorded."""
    seeds = [r.checkpoint.seed for r in c.records if r.checkpoint]
    return ", ".join(map(str, sorted({seed for seed in seeds if seed is not None})))


def _headline(c: Configuration) -> str:
    """ "top-1 83.53 ± 0.10 %": the first that tables show, or else the first by name."""
    for name in _metric_names(c)[:1]:
        title, unit = metric_title(name)
        decimals = decimals_of(name)
        cell = c.cell(name, decimals)
        if isinstance(cell.value, float):
            spread = "" if cell.std is None else f" ± {cell.std:.{decimals}f}"
            return f"{title} {cell.value:.{decimals}f}{spread} {unit}"
    return ""


def _metric_names(c: Configuration) -> list[str]:
    present = {name for record in c.records for name in record.metrics}
    first = shown(present)
    return first + sorted(present - set(first))


def _verdict(record: Record) -> tuple[str, str]:
    """A word on whether the scores compare with published ones, and a kind for its colour."""
    if record.comparable:
        return "comparable", "good"
    if record.data.miniature:
        return "miniature world", "small"
    if is_own(record):
        return "own data", "small"
    return "not comparable", "marked"


def _recipe(record: Record) -> list[tuple[str, str, str]]:
    """Field, value, and what the run changed about it."""
    changed = {each.field: f"protocol: {_value(each.standard)}" for each in record.changed}
    return [(name, _value(value), changed.get(name, "")) for name, value in record.recipe.items()]


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_value, value)) or "none"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _cost(record: Record) -> dict[str, str]:
    cost = record.cost
    return {
        "time": "" if cost.seconds is None else _hours(cost.seconds),
        "speed": "" if cost.images_per_second is None else f"{cost.images_per_second:,.5g}",
        "memory": ""
        if cost.peak_memory_bytes is None
        else f"{cost.peak_memory_bytes / 2**30:.3g} GiB",
    }


def _hours(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} h"


def _environments(c: Configuration, names: dict[int, str]) -> list[dict[str, Any]]:
    """Each environment that runs of a configuration share, without its command."""
    found: dict[str, dict[str, Any]] = {}
    for record in c.records[:MAX_RUNS]:
        e = record.environment
        key = e.model_copy(update={"command": ""}).model_dump_json()
        entry = found.setdefault(key, {"environment": e, "runs": []})
        entry["runs"].append(names[id(record)])
    return list(found.values())
