"""From records and published rows to the tables of a report. Pure functions."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from results.cells import (
    BEST,
    COST_COLUMNS,
    COSTS,
    DIFFERENCE,
    INTERVALS,
    ONE_SEED,
    OTHER_RECIPE,
    OURS,
    THEIRS,
    Entry,
    Identities,
    Notes,
    any_best,
    caveats,
    cost_cells,
    difference_cell,
    measured_group,
    pretraining,
    published_cell,
    single_differences,
    with_best,
)
from results.configuration import Configuration, configurations
from results.labels import (
    better,
    data_title,
    decimals_of,
    family_of,
    metric_title,
    plain,
    protocol_order,
    protocol_title,
    shown,
    table_title,
    task_order,
    trained_blocks,
)
from results.origins import Pretrainings
from results.published import Published, headline, same_recipe
from results.record import Record
from results.table import Cell, Column, Note, Table

MINIATURE = "Small images drawn by mae-bench itself: not comparable with any published number."
PARTIAL_NOTE = "trained blocks: the last ones of the backbone; 0.5 is the MLP half of the last."

MOST_METRICS = 12
"""of a task that is not known here"""

BACKBONE = Column("backbone", "backbone", "label")
INIT = Column("init", "weights", "label")
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
    that says why. The protocols of partial fine-tuning share a table. Miniature runs come after
    the others and never beside published numbers: one table per task, a column for each protocol.
    Where the record of our own pre-training is there, a note tells what it did otherwise.
    `costs` adds columns of what the runs took, `intervals` the bootstrap interval of single runs.
    """
    records, rows = list(records), list(published)
    show = _Show(costs, intervals, Pretrainings(records))
    photos: dict[str, list[Record]] = defaultdict(list)
    drawn: dict[tuple[str, bool], list[Record]] = defaultdict(list)
    for record in records:
        if record.data.miniature:
            partial = trained_blocks(record.protocol) is not None
            drawn[record.task, partial].append(record)
        else:
            photos[family_of(record.protocol)].append(record)
    families = sorted(photos, key=protocol_order)
    tables = [_table(family, photos[family], rows, show) for family in families]
    for task, partial in sorted(drawn, key=lambda each: (task_order(each[0]), each[1])):
        same = drawn[task, partial]
        tables.append(_miniature_curve(same, show) if partial else _miniature_table(same, show))
    return tables


@dataclass(frozen=True)
class _Show:
    """What a table shows on request."""

    costs: bool
    intervals: bool
    before: Pretrainings

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


@dataclass(frozen=True)
class _Plan:
    """What the rows of one table are filled from."""

    show: _Show
    places: dict[str, list[tuple[str, str]]]
    """metric -> places of its published columns, the first being subtracted"""
    beside: dict[tuple[str, str, str, str, tuple[str, str]], Published]
    """protocol, backbone, plain method, metric, place -> row"""
    notes: Notes = field(default_factory=Notes)


def _table(family: str, records: list[Record], published: list[Published], show: _Show) -> Table:
    """The table of runs of one protocol, or of one partial fine-tuning, none of them miniature."""
    found, is_curve = _ordered(records)
    pairs = dict.fromkeys((c.first.protocol, c.first.backbone) for c in found)
    rows = [(pair[0], row) for pair in pairs for row in headline(*pair, published)]
    plan = _plan(_metrics(records), rows, show, is_curve)
    columns = _columns(plan, is_curve)
    identities = Identities(found, show.before)

    lines = []
    for backbone in dict.fromkeys(c.first.backbone for c in found):
        ours = [c for c in found if c.first.backbone == backbone]
        for c in ours:
            labels = _labels(c.first.protocol, backbone, c.first.init, is_curve)
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
    return Table(
        table_title(family), columns, tuple(body), plan.notes.listed(general + show.notes(body))
    )


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


def _labels(protocol: str, backbone: str, init: str, is_curve: bool) -> list[Entry]:
    texts = [backbone, init, trained_blocks(protocol)] if is_curve else [backbone, init]
    return [Entry(Cell(text)) for text in texts]


def _metrics(records: Iterable[Record]) -> list[str]:
    """The scores that tables show; if there are none, metrics by name, as many as a table holds."""
    present = {name for record in records for name in record.metrics}
    return shown(present) or sorted(present)[:MOST_METRICS]


def _plan(
    metrics: list[str], rows: list[tuple[str, Published]], show: _Show, is_curve: bool
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
    return _Plan(show, places, beside)


def _columns(plan: _Plan, is_curve: bool) -> tuple[Column, ...]:
    columns = [BACKBONE, INIT, BLOCKS] if is_curve else [BACKBONE, INIT]
    for metric, places in plan.places.items():
        ours = _ours(metric)
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
    return (*columns, *COST_COLUMNS) if plan.show.costs else tuple(columns)


def _ours(metric: str) -> Column:
    title, unit = metric_title(metric)
    return Column(f"{metric} ours", title, "measured", unit, better=better(metric))


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
            entries.append(Entry(_difference(plan, protocol, configuration, metric, rows[0])))
    return entries + plan.show.cost(configuration, plan.notes)


def _theirs(plan: _Plan, protocol: str, row: Published | None) -> Cell:
    if row is None:
        return Cell()
    other = "" if same_recipe(protocol, row) else OTHER_RECIPE
    return published_cell(row, plan.notes, pretraining(row), row.note, other)


def _difference(
    plan: _Plan, protocol: str, c: Configuration | None, metric: str, row: Published | None
) -> Cell:
    """Ours minus a confirmed number of the same protocol."""
    if c is None or row is None or not c.first.comparable:
        return Cell()
    if row.status == "recalled" or not same_recipe(protocol, row):
        return Cell()
    return difference_cell(c, metric, row, plan.notes)


def _miniature_curve(records: list[Record], show: _Show) -> Table:
    """Miniature runs of partial fine-tuning: the usual table, with nothing published in it."""
    table = _table(family_of(records[0].protocol), records, [], show)
    protocols = (
        f"protocols: {', '.join(sorted({r.protocol for r in records}, key=protocol_order))}."
    )
    title = f"{_miniature_title(records[0].task)}, partial fine-tuning"
    return replace(table, title=title, notes=(Note(MINIATURE), Note(protocols), *table.notes))


def _miniature_table(records: list[Record], show: _Show) -> Table:
    """Miniature runs of one task: weights down, protocols across.

    Runs of one protocol that start from the same weights but differ otherwise take a row each.
    """
    found, notes = configurations(records), Notes()
    identities = Identities(found, show.before)
    rows: dict[tuple[str, str], list[dict[str, Configuration]]] = {}
    taken: Counter[tuple[str, str, str]] = Counter()
    for c in found:
        key = (c.first.backbone, c.first.init)
        place = taken[*key, c.first.protocol]
        taken[*key, c.first.protocol] += 1
        group = rows.setdefault(key, [])
        if place == len(group):
            group.append({})
        group[place][c.first.protocol] = c
    by_protocol: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_protocol[record.protocol].append(record)
    metrics = {
        protocol: _metrics(by_protocol[protocol])
        for protocol in sorted(by_protocol, key=protocol_order)
    }

    columns = [BACKBONE, INIT]
    for protocol, names in metrics.items():
        doing = protocol_title(protocol)
        for name in names:
            column = _ours(name)
            title = f"{doing} {column.title}"
            columns.append(replace(column, key=f"{protocol} {name}", title=title))
        if show.costs:
            columns += [
                replace(column, key=f"{protocol} {column.key}", title=f"{doing} {column.title}")
                for column in COST_COLUMNS
            ]

    lines = []
    for (backbone, init), group in rows.items():
        for row in group:
            marks = dict.fromkeys(m for c in row.values() for m in identities.marks(c, notes))
            entries = [Entry(Cell(backbone)), Entry(Cell(init, marks=tuple(marks)))]
            for protocol, names in metrics.items():
                entries += [show.score(row.get(protocol), name, notes) for name in names]
                entries += show.cost(row.get(protocol), notes)
            lines.append(entries)
    body = with_best(columns, lines)
    protocols = f"protocols: {', '.join(metrics)}."
    general = [MINIATURE, protocols, OURS, *show.notes(body)]
    return Table(
        _miniature_title(records[0].task), tuple(columns), tuple(body), notes.listed(general)
    )


def _miniature_title(task: str) -> str:
    return f"Miniature world: {data_title(task) or 'pre-training'}"
