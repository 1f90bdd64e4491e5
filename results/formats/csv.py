"""Tables as one CSV for other programs: one value in a field."""

import csv
import io
from collections.abc import Iterable, Iterator

from results.formats import Content
from results.formats.texts import LABEL_LIMIT, NOTE_LIMIT
from results.record import Record
from results.table import Cell, Column, Table
from results.text import one_line

BEFORE = ("table", "row")
AFTER = (
    "kind",
    "column",
    "unit",
    "publisher",
    "value",
    "std",
    "n",
    "low",
    "high",
    "best",
    "source",
    "text",
)
"""fields before and after the labels of a row, which have a field each"""
FORMULA = ("=", "+", "-", "@")
"""what a spreadsheet takes for the start of a formula, and where"""


def write(content: Content) -> str:
    return to_csv(content.tables)


def to_csv(tables: Iterable[Table]) -> str:
    """A line for each number of every table, one for each run behind it and for each note on it.

    A field holds one value. `kind` is measured, published or difference, in lines of numbers; run
    in a line that names one of the runs behind the number of its row and column; note in a line
    about these, or about a label, a column or, without either, the whole table. Run and note are in
    `text`. A difference is no finer than the published number, the others are whole; `low` and
    `high` are the ends of a 95 % interval. An apostrophe comes before text that a spreadsheet would
    run as a formula.
    """
    tables = list(tables)
    labels = dict.fromkeys(
        _label(column) for table in tables for column in table.columns if column.kind == "label"
    )
    stream = io.StringIO()
    fields = (*BEFORE, *labels, *AFTER)
    writer = csv.DictWriter(stream, fields, restval="", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        title = _safe(table.title, NOTE_LIMIT)
        writer.writerows({"table": title, **line} for line in _lines(table))
    return stream.getvalue()


def _label(column: Column) -> str:
    """The field of a label."""
    name = _safe(column.title, LABEL_LIMIT) or "label"
    return f"label {name}" if name in (*BEFORE, *AFTER) else name


def _lines(table: Table) -> Iterator[dict[str, object]]:
    about = {note.mark: _safe(note.text, NOTE_LIMIT) for note in table.notes if note.mark}
    for number, row in enumerate(table.rows, start=1):
        pairs = list(zip(table.columns, row, strict=True))
        place: dict[str, object] = {"row": number} | {
            _label(column): _safe(str(cell.value or ""), NOTE_LIMIT)
            for column, cell in pairs
            if column.kind == "label"
        }
        for column, cell in pairs:
            here = place | {"column": _safe(column.title, LABEL_LIMIT)}
            if isinstance(cell.value, float | int):
                here |= {"unit": column.unit, "publisher": column.source}
                yield here | {
                    "kind": column.kind,
                    **_numbers(column, cell),
                    "source": _safe(cell.source or "", NOTE_LIMIT),
                }
            yield from (here | {"kind": "run", "text": _name(run)} for run in cell.runs)
            yield from (here | {"kind": "note", "text": about[mark]} for mark in cell.marks)
    for column in table.columns:
        here = {"column": _safe(column.title, LABEL_LIMIT), "kind": "note"}
        here |= {"unit": column.unit, "publisher": column.source}
        yield from (here | {"text": about[mark]} for mark in column.marks)
    for note in table.notes:
        if not note.mark:
            yield {"kind": "note", "text": _safe(note.text, NOTE_LIMIT)}


def _numbers(column: Column, cell: Cell) -> dict[str, object]:
    assert isinstance(cell.value, float | int)
    whole = column.kind != "difference"
    low, high = cell.interval or ("", "")
    return {
        "value": repr(float(cell.value)) if whole else f"{cell.value:.{cell.decimals}f}",
        "std": "" if cell.std is None else cell.std,
        "n": "" if cell.n is None else cell.n,
        "low": low,
        "high": high,
        "best": "yes" if cell.best else "",
    }


def _name(record: Record) -> str:
    return _safe(record.name, LABEL_LIMIT)


def _safe(text: str, limit: int) -> str:
    line = one_line(text, limit)
    return f"'{line}" if line.startswith(FORMULA) else line
