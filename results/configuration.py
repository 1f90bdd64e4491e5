"""Runs that differ only in their seed, taken together."""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

from results.origins import made
from results.record import Record
from results.table import Cell

SIZES = ("vit_mini", "vit_t", "vit_s", "vit_b", "vit_l", "vit_h")
LARGEST = 1e9
"""no score and no cost is larger; a stranger's record may hold 1e308, whose mean overflows"""


@dataclass(frozen=True)
class Configuration:
    """Runs of one configuration, one per seed, in the order of their seeds."""

    records: tuple[Record, ...]
    repeats: tuple[Record, ...] = ()
    """runs left out because a later one has the same seeds"""

    @property
    def first(self) -> Record:
        """Any run stands for what all share."""
        return self.records[0]

    @property
    def origin(self) -> str:
        """What tells the checkpoints of two configurations apart; "" without a checkpoint."""
        file = self.first.checkpoint
        return repr(file.origin) if file else ""

    @property
    def pretrained(self) -> str:
        """The same of the weights that a pre-training made, or that a transfer started from."""
        return repr(made(self.first)) if self.first.kind == "pretrain" else self.origin

    @property
    def untraced(self) -> tuple[Record, ...]:
        """Runs from a pre-training of ours whose data or seed is not recorded."""
        files = ((record, record.checkpoint) for record in self.records)
        return tuple(r for r, file in files if file and file.recipe_hash and not file.is_traced)

    def scored(self, metric: str) -> tuple[Record, ...]:
        """The runs that have `metric`, in the order of the seeds."""
        return tuple(r for r in self.records if abs(r.metrics.get(metric, math.inf)) <= LARGEST)

    def values(self, metric: str) -> list[float]:
        """Their scores."""
        return [record.metrics[metric] for record in self.scored(metric)]

    def cell(self, metric: str, decimals: int, marks: tuple[str, ...] = ()) -> Cell:
        """Mean, sample standard deviation (n - 1) and n over the runs that have `metric`.

        A single run's cell has its confidence interval over images, where the record has one.
        """
        cell = mean_cell(self.values(metric), decimals, marks, self.scored(metric))
        return replace(cell, interval=self.interval(metric))

    def interval(self, metric: str) -> tuple[float, float] | None:
        """The 95 % interval over images of a single run; several runs show their spread instead."""
        runs = self.scored(metric)
        if len(runs) != 1 or metric not in runs[0].intervals:
            return None
        low, high = runs[0].intervals[metric]
        return (low, high) if -LARGEST <= low <= high <= LARGEST else None


def mean_cell(
    values: list[float],
    decimals: int,
    marks: tuple[str, ...] = (),
    runs: tuple[Record, ...] = (),
) -> Cell:
    """Mean, sample standard deviation and count of measured values of some runs; empty without
    any."""
    if not values:
        return Cell(marks=marks)
    std = statistics.stdev(values) if len(values) > 1 else None
    return Cell(statistics.fmean(values), decimals, std, len(values), marks, runs=runs)


def configurations(records: Iterable[Record]) -> list[Configuration]:
    """Group runs by configuration: smallest backbone first, comparable runs first.

    The runs of one configuration differ in their seeds alone, those of the pre-training and of
    the transfer: one protocol, task, backbone, init, origin of the weights (recipe and data of
    the pre-training and what it started from; else the very file), recipe, data set and list of
    deviations. Complete and incomplete runs stay apart. Of two runs with the same seeds the later
    one counts: a repetition is no second seed, even if its file has other bytes.
    """
    groups: dict[tuple, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: (record.finished, record.name)):
        groups[_key(record)].append(record)
    found = []
    for group in groups.values():
        latest = {_seeds(record): record for record in group}
        chosen = tuple(latest[each] for each in sorted(latest))
        kept = {id(record) for record in chosen}
        found.append(Configuration(chosen, tuple(r for r in group if id(r) not in kept)))
    return sorted(found, key=lambda c: (_size(c.first), c.first.init, not c.first.comparable))


def _seeds(record: Record) -> tuple[int, tuple[int, ...]]:
    """Of the transfer, then of the pre-trainings before it."""
    return record.seed, record.checkpoint.seeds if record.checkpoint else ()


def _key(record: Record) -> tuple:
    return (
        record.kind,
        record.protocol,
        record.task,
        record.backbone,
        record.init,
        record.checkpoint.origin if record.checkpoint else None,
        _recipe(record),
        record.data.fingerprint,
        record.data.miniature,
        record.data.standard,
        record.trained_on.fingerprint if record.trained_on else None,
        tuple(sorted(record.deviations)),
        record.complete,
    )


def _recipe(record: Record) -> Hashable:
    """What names its recipe; of a swept one all but what was chosen, which may be another one with
    each seed."""
    sweep = record.sweep
    if sweep is None:
        return record.recipe_hash
    rest = {k: v for k, v in record.recipe.items() if k not in sweep.grid}
    return json.dumps([rest, sweep.grid, sweep.metric, sweep.held_out.share], sort_keys=True)


def _size(record: Record) -> tuple[int, str]:
    """Known sizes in their order, then all other backbones by name."""
    name = record.backbone
    return (SIZES.index(name) if name in SIZES else len(SIZES), name)
