"""Tables as the page's template wants them."""

from collections.abc import Iterable, Sequence
from typing import Any

from results.behind import run_names
from results.cells import BEST, COSTS, DIFFERENCE, INTERVALS, ONE_SEED, OURS, THEIRS
from results.configuration import Configuration
from results.formats.texts import OWNERS, cell_text, owner_of
from results.table import Cell, Column, Kind, Table

GENERAL = (OURS, THEIRS, DIFFERENCE, ONE_SEED, BEST, INTERVALS, COSTS)
"""notes that say the same about all tables"""
MAX_CONFIGURATIONS = 300
"""described in full"""


def general_notes(tables: Sequence[Table]) -> list[tuple[str, str]]:
    """What any table's notes say about all tables, each once: its first words, the rest."""
    there = {note.text for table in tables for note in table.notes}
    parts = [text.partition(":") for text in GENERAL if text in there]
    return [(first, rest) for first, _, rest in parts]


Links = dict[tuple[int, int, int], int]
"""(table, row, column) -> index of the configuration whose runs were measured there"""


def links_of(tables: Sequence[Table], found: Sequence[Configuration]) -> Links:
    """Which configuration each number of ours was measured by, by the runs that its cell names."""
    by_run = {id(record): index for index, c in enumerate(found) for record in c.records}
    return {
        (t, r, column): by_run[id(cell.runs[0])]
        for t, table in enumerate(tables)
        for r, row in enumerate(table.rows)
        for column, cell in enumerate(row)
        if cell.runs and id(cell.runs[0]) in by_run
    }


def kinds_in(tables: Iterable[Table]) -> list[tuple[Kind, str]]:
    """The kinds of numbers that there are, and what heads their columns."""
    there = {column.kind for table in tables for column in table.columns}
    return [(kind, name) for kind, name in OWNERS.items() if kind in there and name]


def table_for_page(table: Table, number: int, links: Links) -> dict[str, Any]:
    """A table as the template wants it."""
    columns = [
        {
            "kind": column.kind,
            "owner": OWNERS[column.kind],
            "source": owner_of(column)[1],
            "title": column.title,
            "unit": column.unit,
            "marks": column.marks,
        }
        for column in table.columns
    ]
    rows = [
        [
            _cell(column, cell, links.get((number, r, i)))
            for i, (column, cell) in enumerate(zip(table.columns, row, strict=True))
        ]
        for r, row in enumerate(table.rows)
    ]
    notes = [note for note in table.notes if note.text not in GENERAL]
    return {"title": table.title, "columns": columns, "rows": rows, "notes": notes}


def _cell(column: Column, cell: Cell, link: int | None) -> dict[str, Any]:
    value, _, rest = cell_text(column, cell).partition(" ")
    if isinstance(cell.value, str):
        value, rest = cell.value, ""
    return {
        "kind": column.kind,
        "value": value,
        "rest": rest,
        "sort": cell.value if isinstance(cell.value, float) else None,
        "empty": cell.value is None,
        "best": cell.best,
        "source": cell.source or (f"runs: {run_names(cell)}" if cell.runs else ""),
        "marks": cell.marks,
        "what": " ".join(part for part in (*owner_of(column), column.title, column.unit) if part),
        "link": link if link is not None and link < MAX_CONFIGURATIONS else None,
    }
