"""Runs that differ only in their seed, taken together."""

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from results.record import Record
from results.table import Cell

SIZES = ("vit_mini", "vit_t", "vit_s", "vit_b", "vit_l", "vit_h")


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

    def cell(self, metric: str, decimals: int, marks: tuple[str, ...] = ()) -> Cell:
        """Mean, sample standard deviation (n - 1) and n over the runs that have `metric`."""
        values = [r.metrics[metric] for r in self.records if metric in r.metrics]
        if not values:
            return Cell(marks=marks)
        std = statistics.stdev(values) if len(values) > 1 else None
        return Cell(statistics.fmean(values), decimals, std, len(values), marks)


def configurations(records: Iterable[Record]) -> list[Configuration]:
    """Group runs by configuration: smallest backbone first, comparable runs first.

    One configuration is one protocol, task, backbone, init, checkpoint, recipe, data set and list
    of deviations; complete and incomplete runs stay apart. Checkpoints that were pre-trained by
    one recipe of ours count as one: then the seed varies from the start. Of two runs with one
    seed the later one counts: a repetition is no second seed.
    """
    groups: dict[tuple, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: (record.finished, record.name)):
        groups[_key(record)].append(record)
    found = []
    for group in groups.values():
        latest = {record.seed: record for record in group}
        chosen = tuple(latest[seed] for seed in sorted(latest))
        found.append(Configuration(chosen, repeats=len(group) - len(chosen)))
    return sorted(found, key=lambda c: (_size(c.first), c.first.init, not c.first.comparable))


def _key(record: Record) -> tuple:
    return (
        record.kind,
        record.protocol,
        record.task,
        record.backbone,
        record.init,
        record.checkpoint and (record.checkpoint.recipe_hash or record.checkpoint.sha256),
        record.recipe_hash,
        record.data.fingerprint,
        record.data.miniature,
        record.data.standard,
        tuple(sorted(record.deviations)),
        record.complete,
    )


def _size(record: Record) -> tuple[int, str]:
    """Known sizes in their order, then all other backbones by name."""
    name = record.backbone
    return (SIZES.index(name) if name in SIZES else len(SIZES), name)
