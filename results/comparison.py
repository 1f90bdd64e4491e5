"""From records and published rows to the tables of a report. Pure functions."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from results.cells import (
    COST_COLUMNS,
    DIFFERENCE,
    OTHER_RECIPE,
    OURS,
    THEIRS,
    Entry,
    Identities,
    Notes,
    difference_cell,
    pretraining,
    published_cell,
    with_best,
)
from results.configuration import Configuration, configurations
from results.gains import GAIN, RandomWeights, finetuning_family, gain_column
from results.labels import (
    data_title,
    family_of,
    is_own,
    plain,
    protocol_order,
    protocol_title,
    table_title,
    task_order,
    trained_blocks,
)
from results.origins import Pretrainings
from results.published import Published, headline, same_recipe
from results.record import Record
from results.showing import (
    BACKBONE,
    Show,
    init_column,
    measured_column,
    metrics_of,
    weights_title,
)
from results.table import Cell, Column, Table
from results.wide_tables import as_wide, wide_table

PARTIAL_NOTE = "trained blocks: the last ones of the backbone; 0.5 is the MLP half of the last."


BLOCKS = Column("blocks", "trained blocks", "label")


def comparison_table(
    records: Iterable[Record],
    published: Iterable[Published],
    *,
    costs: bool = False,
    intervals: bool = False,
) -> list[Table]:
    """One table per protocol: ours beside the headline rows of `published`.

    A difference is printed only where our runs are comparable (`Record.comparable`) and the
    published number was scored with the same protocol; everything else is marked, with a note
    that says why. The protocols of partial fine-tuning share a table, and so do fine-tuning and
    training from scratch. Runs on one's own data, and those of the miniature world, come after the
    others and never beside published numbers: one table per task and data set, with a column for
    each protocol.
    Where the record of our own pre-training is there, a note tells what it did otherwise.
    `costs` adds columns of what the runs took, `intervals` the bootstrap interval of single runs.
    """
    records, rows = list(records), list(published)
    show = Show(costs, intervals, Pretrainings(records), RandomWeights(records))
    photos: dict[str, list[Record]] = defaultdict(list)
    apart: dict[tuple[bool, str, str, bool], list[Record]] = defaultdict(list)
    for record in records:
        own = is_own(record)
        if own or record.data.miniature:
            is_curve = trained_blocks(record.protocol) is not None
            data = record.data.fingerprint if own else ""
            apart[own, record.task, data, is_curve].append(record)
        else:
            photos[finetuning_family(family_of(record.protocol))].append(record)
    families = sorted(photos, key=protocol_order)
    tables = [_table(family, photos[family], rows, show) for family in families]

    def order(key: tuple[bool, str, str, bool]) -> tuple:
        own, task, data, is_curve = key
        return not own, task_order(task), data, is_curve

    for key in sorted(apart, key=order):
        same, is_curve = apart[key], key[-1]
        if is_curve:
            table = _table(family_of(same[0].protocol), same, [], show)
            tables.append(as_wide(table, same))
        else:
            tables.append(wide_table(same, show))
    return tables


@dataclass(frozen=True)
class _Plan:
    """What the rows of one table are filled from."""

    show: Show
    places: dict[str, list[tuple[str, str]]]
    """metric -> places of its published columns, the first being subtracted"""
    beside: dict[tuple[str, str, str, str, tuple[str, str]], Published]
    """protocol, backbone, plain method, metric, place -> row"""
    gains: bool
    """whether a row stands against our random weights"""
    notes: Notes = field(default_factory=Notes)


def _table(family: str, records: list[Record], published: list[Published], show: Show) -> Table:
    """The table of runs of one protocol and of training from scratch, or of one partial
    fine-tuning."""
    found, is_curve = _ordered(records)
    pairs = dict.fromkeys((c.first.protocol, c.first.backbone) for c in found)
    rows = [(pair[0], row) for pair in pairs for row in headline(*pair, published)]
    gains = any(show.random.of(c) for c in found)
    plan = _plan(metrics_of(records), rows, show, is_curve, gains)
    columns = _columns(plan, init_column(records), is_curve)
    identities = Identities(found, show.before)

    lines = []
    for backbone in dict.fromkeys(c.first.backbone for c in found):
        ours = [c for c in found if c.first.backbone == backbone]
        for c in ours:
            name = weights_title(c.first, show.before)
            labels = _labels(c.first.protocol, backbone, name, is_curve)
            labels[1] = Entry(replace(labels[1].cell, marks=identities.marks(c, plan.notes)))
            lines.append(labels + _scores(plan, c.first.protocol, backbone, c.first.init, c))
        shown = {(c.first.protocol, plain(c.first.init)) for c in ours}
        theirs = dict.fromkeys((r.method, of) for of, r in rows if r.backbone == backbone)
        order = list(dict.fromkeys(method for method, _ in theirs))
        for method, protocol in sorted(
            theirs, key=lambda pair: (order.index(pair[0]), _blocks(pair[1]))
        ):
            if (protocol, plain(method)) not in shown:
                labels = _labels(protocol, backbone, method, is_curve)
                lines.append(labels + _scores(plan, protocol, backbone, method, None))

    body = with_best(columns, lines)
    general = [OURS, THEIRS, DIFFERENCE] if any(plan.places.values()) else [OURS]
    general += [PARTIAL_NOTE] if is_curve else []
    general += [GAIN] if gains else []
    protocols = sorted({record.protocol for record in records}, key=protocol_order)
    title = table_title(family)
    if len({family_of(each) for each in protocols}) > 1:
        title = f"{data_title(records[0].task)}: {' and '.join(map(protocol_title, protocols))}"
        title += f" (protocols {' and '.join(protocols)})"
    elif family not in protocols and not is_curve:
        title = table_title(protocols[0])
    notes = plan.notes.listed(general + show.notes(body))
    return Table(title, columns, tuple(body), notes)


def _ordered(records: list[Record]) -> tuple[list[Configuration], bool]:
    """Configurations, those of a partial fine-tuning along its curves; whether they are that."""
    found = configurations(records)
    is_curve = trained_blocks(records[0].protocol) is not None
    if is_curve:
        size = {b: i for i, b in enumerate(dict.fromkeys(c.first.backbone for c in found))}
        found.sort(
            key=lambda c: (
                size[c.first.backbone],
                c.first.init,
                c.origin,
                _blocks(c.first.protocol),
            )
        )
    return found, is_curve


def _blocks(protocol: str) -> float:
    return float(trained_blocks(protocol) or 0)


def _labels(protocol: str, backbone: str, name: str, is_curve: bool) -> list[Entry]:
    texts = [backbone, name, trained_blocks(protocol)] if is_curve else [backbone, name]
    return [Entry(Cell(text)) for text in texts]


def _plan(
    metrics: list[str],
    rows: list[tuple[str, Published]],
    show: Show,
    is_curve: bool,
    gains: bool,
) -> _Plan:
    def place(row: Published) -> tuple[str, str]:
        """A column each; the points of a curve are one column, wherever they are printed."""
        return (row.source, "" if is_curve else row.locator)

    places = {
        metric: list(dict.fromkeys(place(row) for _, row in rows if row.metric == metric))
        for metric in metrics
    }
    beside = {
        (protocol, row.backbone, plain(row.method), row.metric, place(row)): row
        for protocol, row in rows
    }
    return _Plan(show, places, beside, gains)


def _columns(plan: _Plan, init: Column, is_curve: bool) -> tuple[Column, ...]:
    columns = [BACKBONE, init, BLOCKS] if is_curve else [BACKBONE, init]
    for metric, places in plan.places.items():
        ours = measured_column(metric)
        columns.append(ours)
        for place in places:
            rows = [row for key, row in plan.beside.items() if key[3:] == (metric, place)]
            citations = dict.fromkeys(row.citation for row in rows)
            marks = tuple(plan.notes.published(f"{citation}.") for citation in citations)
            columns.append(
                replace(
                    ours,
                    key=f"{metric} {' '.join(place)}".strip(),
                    kind="published",
                    source=rows[0].title,
                    marks=marks,
                )
            )
        if places:
            key, source = f"{metric} difference", columns[-len(places)].source
            columns.append(Column(key, ours.title, "difference", "points", source))
        if plan.gains:
            columns.append(gain_column(ours, metric))
    return (*columns, *COST_COLUMNS) if plan.show.costs else tuple(columns)


def _scores(
    plan: _Plan, protocol: str, backbone: str, method: str, configuration: Configuration | None
) -> list[Entry]:
    """What stands in one row after its labels; no configuration: only published numbers."""
    entries = []
    for metric, places in plan.places.items():
        entries.append(plan.show.score(configuration, metric, plan.notes))
        rows = [plan.beside.get((protocol, backbone, plain(method), metric, p)) for p in places]
        entries += [Entry(_theirs(plan, protocol, row), (protocol, backbone)) for row in rows]
        if rows:
            entries.append(Entry(_difference(plan, protocol, configuration, metric)))
        if plan.gains:
            entries.append(Entry(plan.show.random.gain(configuration, metric, plan.notes)))
    return entries + plan.show.cost(configuration, plan.notes)


def _theirs(plan: _Plan, protocol: str, row: Published | None) -> Cell:
    if row is None:
        return Cell()
    other = "" if same_recipe(protocol, row) else OTHER_RECIPE
    return published_cell(row, plan.notes, pretraining(row), row.note, other)


def _difference(plan: _Plan, protocol: str, c: Configuration | None, metric: str) -> Cell:
    """Ours minus a confirmed number of the same protocol: of the same method, else of MAE."""
    if c is None or not c.first.comparable:
        return Cell()
    for method in (plain(c.first.init), "mae"):
        row = plan.beside.get((protocol, c.first.backbone, method, metric, plan.places[metric][0]))
        if row is not None and row.status != "recalled" and same_recipe(protocol, row):
            return difference_cell(c, metric, row, plan.notes)
    return Cell()
