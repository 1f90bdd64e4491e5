"""Tables of runs beside which nothing published can stand: the miniature world, one's own data.

A table for each task and data set: weights down, protocols across.
"""

from collections import Counter, defaultdict
from dataclasses import replace

from results.cells import COST_COLUMNS, OURS, Entry, Identities, Notes, with_best
from results.configuration import Configuration, configurations
from results.gains import GAIN, finetuning_family, gain_column
from results.labels import data_title, protocol_order, protocol_title
from results.origins import Pretrainings
from results.record import Record
from results.showing import (
    BACKBONE,
    Show,
    init_column,
    measured_column,
    metrics_of,
    weights_title,
)
from results.table import Cell, Column, Note, Table

MINIATURE = "Small images drawn by mae-bench itself: not comparable with any published number."
OWN = (
    "Own data, {} training and {} validation images of {} classes: no published number is about"
    " them."
)

Row = dict[str, Configuration]
"""family of protocols -> what stands there"""


def wide_table(records: list[Record], show: Show) -> Table:
    """Runs of one task on data of one kind: weights down, protocols across.

    Training from scratch stands in the column of fine-tuning. Runs of one protocol that start from
    the same weights but differ otherwise take a row each.
    """
    found, notes = configurations(records), Notes()
    identities = Identities(found, show.before)
    families: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        families[finetuning_family(record.protocol)].append(record)
    rows = _rows(found, show.before)
    columns = [BACKBONE, init_column(records)]
    cells = [[*_labels(row, identities, notes)] for row in rows]
    for family in sorted(families, key=protocol_order):
        taken = [row.get(family) for row in rows]
        for column, entries in _family(family, families[family], taken, show, notes):
            columns.append(column)
            for line, entry in zip(cells, entries, strict=True):
                line.append(entry)
    body = with_best(columns, cells)
    first = records[0]
    names = sorted({record.protocol for record in records}, key=protocol_order)
    general = [_about(first), f"protocols: {', '.join(names)}.", OURS]
    general += [GAIN] if any(column.kind == "difference" for column in columns) else []
    general += show.notes(body)
    return Table(wide_title(first), tuple(columns), tuple(body), notes.listed(general))


def wide_title(record: Record) -> str:
    about = data_title(record.task) or "pre-training"
    if record.data.miniature:
        return f"Miniature world: {about}"
    return f"Own data {record.data.name}: {about}"


def _about(record: Record) -> str:
    data = record.data
    if data.miniature:
        return MINIATURE
    return OWN.format(data.train_images, data.val_images, data.classes)


def as_wide(table: Table, records: list[Record]) -> Table:
    """A table of partial fine-tuning, told to be of such data."""
    first = records[0]
    names = sorted({record.protocol for record in records}, key=protocol_order)
    title = f"{wide_title(first)}, partial fine-tuning"
    protocols = Note(f"protocols: {', '.join(names)}.")
    return replace(table, title=title, notes=(Note(_about(first)), protocols, *table.notes))


def _rows(found: list[Configuration], before: Pretrainings) -> list[Row]:
    """As many rows for each backbone and its weights as it takes; other weights of the same name
    never share one."""
    rows: dict[tuple[str, str, str], list[Row]] = {}
    taken: Counter[tuple[str, str, str, str]] = Counter()
    for c in found:
        key = (c.first.backbone, weights_title(c.first, before), c.origin)
        family = finetuning_family(c.first.protocol)
        place = taken[*key, family]
        taken[*key, family] += 1
        group = rows.setdefault(key, [])
        if place == len(group):
            group.append({})
        group[place][family] = c
    return [row for group in rows.values() for row in group]


def _labels(row: Row, identities: Identities, notes: Notes) -> list[Entry]:
    any_run = next(iter(row.values()))
    marks = dict.fromkeys(mark for c in row.values() for mark in identities.marks(c, notes))
    name = weights_title(any_run.first, identities.before)
    return [Entry(Cell(any_run.first.backbone)), Entry(Cell(name, marks=tuple(marks)))]


def _family(
    family: str,
    records: list[Record],
    taken: list[Configuration | None],
    show: Show,
    notes: Notes,
) -> list[tuple[Column, list[Entry]]]:
    """The columns of a protocol: scores, gains where there are any, and costs on request."""
    protocols = {record.protocol for record in records}
    usual = family if family in protocols else min(protocols)
    doing, found = protocol_title(usual), []
    for name in metrics_of(records):
        column = measured_column(name)
        column = replace(column, key=f"{family} {name}", title=f"{doing} {column.title}")
        found.append((column, [_score(c, name, usual, show, notes) for c in taken]))
        gains = [Entry(show.random.gain(c, name, notes)) for c in taken]
        if any(entry.cell.value is not None for entry in gains):
            found.append((gain_column(column, name), gains))
    if show.costs:
        costs = zip(*(show.cost(c, notes) for c in taken), strict=True)
        for column, entries in zip(COST_COLUMNS, costs, strict=True):
            key, title = f"{family} {column.key}", f"{doing} {column.title}"
            found.append((replace(column, key=key, title=title), list(entries)))
    return found


def _score(c: Configuration | None, metric: str, usual: str, show: Show, notes: Notes) -> Entry:
    """A score, marked where its protocol is not that of its column."""
    entry = show.score(c, metric, notes)
    if c is None or c.first.protocol == usual:
        return entry
    mark = notes.ours(f"{protocol_title(c.first.protocol)}: {c.first.protocol}.")
    return entry._replace(cell=replace(entry.cell, marks=(*entry.cell.marks, mark)))
