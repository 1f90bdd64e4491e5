"""What pre-training gains over random weights: our runs against our runs."""

from collections import defaultdict
from collections.abc import Iterable

from results.cells import Notes
from results.configuration import Configuration, configurations
from results.labels import better, decimals_of
from results.protocol import ProtocolId
from results.record import Record
from results.statistics import welch
from results.table import Cell, Column

SCRATCH = "scratch"
FINETUNE = "finetune"
GAIN = (
    "difference to our random weights: the mean of a row minus that of our runs from random weights"
    " on the same data with the same backbone, by the same protocol; fine-tuning against training"
    " from scratch, as the MAE paper does."
)
IN_NOISE = "ns"
NOISE = (
    "not significant: Welch's 95 % interval of the difference of two means over seeds holds 0; with"
    " one seed in either nobody can tell."
)


def finetuning_family(protocol: str) -> str:
    """imagenet1k/finetune@1 of imagenet1k/scratch@1; every other protocol is its own."""
    parts = ProtocolId.read(protocol)
    if parts.name == SCRATCH:
        return f"{parts.task}/{FINETUNE}@{parts.version}"
    return protocol


class RandomWeights:
    """Our runs from random weights, found by what they are compared with."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.found: dict[tuple, list[Configuration]] = defaultdict(list)
        for c in configurations(records):
            if is_from_scratch(c.first) and c.first.kind == "transfer" and c.first.complete:
                self.found[_key(c.first)].append(c)

    def of(self, c: Configuration) -> Configuration | None:
        """The runs from random weights that stand against `c`: those that follow the protocol, if
        there are any."""
        if is_from_scratch(c.first) or not c.first.complete:
            return None
        there = self.found.get(_key(c.first), [])
        return min(there, key=lambda each: len(each.first.deviations), default=None)

    def gain(self, c: Configuration | None, metric: str, notes: Notes) -> Cell:
        """Of a row over random weights; empty without runs to compare."""
        other = self.of(c) if c else None
        if c is None or other is None:
            return Cell()
        ours, theirs = c.values(metric), other.values(metric)
        if not ours or not theirs:
            return Cell()
        first = other.first
        names = ", ".join(r.name for r in other.records[:3])
        more = f" and {len(other.records) - 3} more" if len(other.records) > 3 else ""
        changed = f" ({'; '.join(first.deviations)})" if first.deviations else ""
        marks = [notes.ours(f"random weights: {names}{more}, {first.protocol}{changed}.")]
        test = welch(ours, theirs)
        if test is not None and test[0][0] <= 0 <= test[0][1]:
            marks.append(notes.symbol(IN_NOISE, NOISE))
        gap = sum(ours) / len(ours) - sum(theirs) / len(theirs)
        return Cell(gap, decimals_of(metric), marks=tuple(marks), runs=c.scored(metric))


def is_from_scratch(record: Record) -> bool:
    return record.init == SCRATCH and record.checkpoint is None


def gain_column(ours: Column, metric: str) -> Column:
    """The column of gains beside that of a metric."""
    title, source = f"gain in {ours.title}", "our random weights"
    return Column(f"{ours.key} gain", title, "difference", "points", source, better=better(metric))


def _key(record: Record) -> tuple:
    return (
        finetuning_family(record.protocol),
        record.backbone,
        record.data.fingerprint,
        record.data.miniature,
        record.trained_on.fingerprint if record.trained_on else None,
    )
