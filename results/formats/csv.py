"""Tables as one CSV for other programs: a line for each number, a line for each note."""

import csv
import io
from collections.abc import Iterable, Iterator

from results.formats import Content
from results.formats.texts import LABEL_LIMIT, NOTE_LIMIT
from results.record import Record
from results.table import Cell, Column, Table
from results.text import one_line

FIELDS = (
    "table",
    "row",
    "labels",
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
    "notes",
    "runs",
)
RUNS_LIMIT = 30_000
"""characters of the names of runs; a cell of a spreadsheet holds 32,767"""
FORMULA = ("=", "+", "-", "@")
"""what a spreadsheet takes for the start of a formula, and where"""


def write(content: Content) -> str:
    return to_csv(content.tables)


def to_csv(tables: Iterable[Table]) -> str:
    """FIELDS as the first line, then every number of every table, and the notes about all of one.

    `kind` is measured, published, difference or note. A difference is no finer than the published
    number, the others are whole; `low` and `high` are the ends of a 95 % interval; `notes` are
    those of the number, its column and its labels; `runs` are the names of the runs behind it,
    parted by semicolons, as the record and the folder have them. An apostrophe comes before
    text that a spreadsheet would run as a formula.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, FIELDS, restval="", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        title = _safe(table.title, NOTE_LIMIT)
        writer.writerows({"table": title, **line} for line in _lines(table))
    return stream.getvalue()


def _lines(table: Table) -> Iterator[dict[str, object]]:
    about = {note.mark: note.text for note in table.notes if note.mark}
    for number, row in enumerate(table.rows, start=1):
        pairs = list(zip(table.columns, row, strict=True))
        labels = [(column, cell) for column, cell in pairs if column.kind == "label"]
        named = "; ".join(f"{column.title}={cell.value or ''}" for column, cell in labels)
        shared = [mark for _, cell in labels for mark in cell.marks]
        for column, cell in pairs:
            if isinstance(cell.value, float | int):
                marks = dict.fromkeys([*cell.marks, *column.marks, *shared])
                yield {
                    "row": number,
                    "labels": _safe(named, NOTE_LIMIT),
                    "kind": column.kind,
                    "column": _safe(column.title, LABEL_LIMIT),
                    "unit": column.unit,
                    "publisher": column.source,
                    **_numbers(column, cell),
                    "source": _safe(cell.source or "", NOTE_LIMIT),
                    "notes": _safe(" ".join(about[mark] for mark in marks), NOTE_LIMIT),
                    "runs": _safe("; ".join(_name(record) for record in cell.runs), RUNS_LIMIT),
                }
    for note in table.notes:
        if not note.mark:
            yield {"kind": "note", "notes": _safe(note.text, NOTE_LIMIT)}


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
    """Without what parts it from the next one."""
    return one_line(record.name, LABEL_LIMIT).replace(";", ",")


def _safe(text: str, limit: int) -> str:
    line = one_line(text, limit)
    return f"'{line}" if line.startswith(FORMULA) else line
