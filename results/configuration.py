"""Runs that differ only in their seed, taken together."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from results.record import Record
from results.table import Cell

SIZES = ("vit_mini", "vit_t", "vit_s", "vit_b", "vit_l", "vit_h")
LARGEST = 1e9
"""no score and no cost is larger; a stranger's record may hold 1e308, whose mean overflows"""


@dataclass(frozen=True)
class Configuration:
    """Runs of one configuration, one per seed, in the order of their seeds."""

    records: tuple[Record, ...]
    repeats: int = 0
    """runs left out because a later one has the same seed"""

    @property
    def first(self) -> Record:
        """Any run stands for what all share."""
        return self.records[0]

    @property
    def weights(self) -> str:
        """What tells the checkpoints of two configurations apart; "" without a checkpoint."""
        return _weights(self.first) or ""

    def values(self, metric: str) -> list[float]:
        """The scores of the runs that have `metric`, in the order of the seeds."""
        found = [r.metrics[metric] for r in self.records if metric in r.metrics]
        return [value for value in found if abs(value) <= LARGEST]

    def cell(self, metric: str, decimals: int, marks: tuple[str, ...] = ()) -> Cell:
        """Mean, sample standard deviation (n - 1) and n over the runs that have `metric`.

        A single run's cell has its confidence interval over images, where the record has one.
        """
        cell = mean_cell(self.values(metric), decimals, marks)
        return replace(cell, interval=self.interval(metric))

    def interval(self, metric: str) -> tuple[float, float] | None:
        """The 95 % interval over images of a single run; several runs show their spread instead."""
        runs = [r for r in self.records if abs(r.metrics.get(metric, math.inf)) <= LARGEST]
        if len(runs) != 1 or metric not in runs[0].intervals:
            return None
        low, high = runs[0].intervals[metric]
        return (low, high) if -LARGEST <= low <= high <= LARGEST else None


def mean_cell(values: list[float], decimals: int, marks: tuple[str, ...] = ()) -> Cell:
    """Mean, sample standard deviation and count of measured values; empty without any."""
    if not values:
        return Cell(marks=marks)
    std = statistics.stdev(values) if len(values) > 1 else None
    return Cell(statistics.fmean(values), decimals, std, len(values), marks)


def configurations(records: Iterable[Record]) -> list[Configuration]:
    """Group runs by configuration: smallest backbone first, comparable runs first.

    One configuration is one protocol, task, backbone, init, checkpoint, recipe, data set and list
    of deviations; complete and incomplete runs stay apart. Checkpoints that were pre-trained by
    one recipe of ours count as one: then the seed varies from the start. Of two runs with one
    seed from the same weights the later one counts: a repetition is no second seed.
    """
    groups: dict[tuple, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: (record.finished, record.name)):
        groups[_key(record)].append(record)
    found = []
    for group in groups.values():
        latest = {(record.seed, _sha256(record)): record for record in group}
        chosen = tuple(latest[each] for each in sorted(latest))
        found.append(Configuration(chosen, repeats=len(group) - len(chosen)))
    return sorted(found, key=lambda c: (_size(c.first), c.first.init, not c.first.comparable))


def _sha256(record: Record) -> str:
    return record.checkpoint.sha256 if record.checkpoint else ""


def _key(record: Record) -> tuple:
    return (
        record.kind,
        record.protocol,
        record.task,
        record.backbone,
        record.init,
        _weights(record),
        record.recipe_hash,
        record.data.fingerprint,
        record.data.miniature,
        record.data.standard,
        tuple(sorted(record.deviations)),
        record.complete,
    )


def _weights(record: Record) -> str | None:
    """The recipe of our pre-training, or else the file."""
    file = record.checkpoint
    return None if file is None else file.recipe_hash or file.sha256


def _size(record: Record) -> tuple[int, str]:
    """Known sizes in their order, then all other backbones by name."""
    name = record.backbone
    return (SIZES.index(name) if name in SIZES else len(SIZES), name)
