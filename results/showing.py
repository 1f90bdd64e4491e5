"""What every table of protocols shows of its configurations, whatever stands beside them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from results.cells import (
    BEST,
    COST_COLUMNS,
    COSTS,
    INTERVALS,
    ONE_SEED,
    Entry,
    Notes,
    any_best,
    caveats,
    cost_cells,
    measured_group,
    single_differences,
)
from results.configuration import Configuration
from results.gains import RandomWeights, is_from_scratch
from results.labels import (
    better,
    decimals_of,
    metric_title,
    shown,
)
from results.origins import Pretrainings, changed_settings
from results.record import Record
from results.table import Cell, Column

MOST_METRICS = 12
"""of a task that is not known here"""


BACKBONE = Column("backbone", "backbone", "label")


INIT = Column("init", "weights", "label")


def init_column(records: Iterable[Record]) -> Column:
    """Of a table of pre-trainings, which make weights, what these began from."""
    made = all(record.kind == "pretrain" for record in records)
    return replace(INIT, title="begun from") if made else INIT


def init_title(record: Record) -> str:
    """What a run began from: "mae"; of a pre-training "random weights" where it had no others."""
    made = record.kind == "pretrain"
    return "random weights" if made and is_from_scratch(record) else record.init


def weights_title(record: Record, before: Pretrainings) -> str:
    """The same with what our pre-training did otherwise than its protocol: "mae, mask block"."""
    return ", ".join([init_title(record), *changed_settings(record, before)])


@dataclass(frozen=True)
class Show:
    """What a table shows on request."""

    costs: bool
    intervals: bool
    before: Pretrainings
    random: RandomWeights

    def notes(self, rows: Iterable[tuple[Cell, ...]]) -> list[str]:
        """The general notes that its rows need."""
        rows = list(rows)
        intervals = any(cell.interval is not None for row in rows for cell in row)
        wanted = {
            ONE_SEED: single_differences(rows),
            BEST: any_best(rows),
            INTERVALS: intervals,
            COSTS: self.costs,
        }
        return [note for note, is_wanted in wanted.items() if is_wanted]

    def score(self, c: Configuration | None, metric: str, notes: Notes) -> Entry:
        if c is None:
            return Entry(Cell())
        cell = c.cell(metric, decimals_of(metric), caveats(c, notes))
        return Entry(cell if self.intervals else replace(cell, interval=None), measured_group(c))

    def cost(self, c: Configuration | None, notes: Notes) -> list[Entry]:
        if not self.costs:
            return []
        cells = cost_cells(c, notes) if c else [Cell()] * len(COST_COLUMNS)
        return [Entry(cell) for cell in cells]


def metrics_of(records: Iterable[Record]) -> list[str]:
    """The scores that tables show; if there are none, metrics by name, as many as a table holds."""
    present = {name for record in records for name in record.metrics}
    return shown(present) or sorted(present)[:MOST_METRICS]


def measured_column(metric: str) -> Column:
    title, unit = metric_title(metric)
    return Column(f"{metric} ours", title, "measured", unit, better=better(metric))
