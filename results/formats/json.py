"""Tables as JSON for other programs: whole numbers as measured, with their runs and sources."""

import json
from typing import Any

from results.formats import Content
from results.table import Cell, Column, Table

VERSION = 1
"""of this layout; it changes whenever a field changes its meaning"""


def write(content: Content) -> str:
    """ "tables": each with "title", "columns", "rows" of cells, and "notes" by their marks.

    A cell has "value" (None: empty) and, where there are such: "std" and "n" of a mean, "interval",
    "marks", "best", "source" of a published number, "runs" behind one of ours.
    """
    found = {"version": VERSION, "tables": [_table(table) for table in content.tables]}
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "columns": [_column(column) for column in table.columns],
        "rows": [[_cell(cell) for cell in row] for row in table.rows],
        "notes": [{"text": note.text, "mark": note.mark} for note in table.notes],
    }


def _column(column: Column) -> dict[str, Any]:
    known = {
        "unit": column.unit,
        "publisher": column.source,
        "marks": list(column.marks),
        "better": column.better,
    }
    return {
        "key": column.key,
        "title": column.title,
        "kind": column.kind,
        **{name: value for name, value in known.items() if value},
    }


def _cell(cell: Cell) -> dict[str, Any]:
    known = {
        "std": cell.std,
        "n": cell.n,
        "interval": cell.interval,
        "marks": list(cell.marks) or None,
        "best": cell.best or None,
        "source": cell.source,
        "runs": [record.name for record in cell.runs] or None,
    }
    return {"value": cell.value, **{k: v for k, v in known.items() if v is not None}}
