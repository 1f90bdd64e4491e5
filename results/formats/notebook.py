"""A table as HTML in a notebook's cell: no script, no style of its own but alignment."""

from collections.abc import Iterable
from html import escape

from results.formats.texts import LABEL_LIMIT, NOTE_LIMIT, cell_text
from results.frames import column_name
from results.table import Cell, Column, Table
from results.text import one_line


def to_notebook(tables: Iterable[Table]) -> str:
    """Each table with its title and notes; what records say cannot become markup."""
    return "\n".join(_table(table) for table in tables)


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(column_name(c))}{_marks(c.marks)}</th>" for c in table.columns)
    rows = "".join(f"<tr>{''.join(map(_cell, table.columns, row))}</tr>" for row in table.rows)
    notes = "".join(
        f"<br>{_marks((note.mark,)) if note.mark else '·'} {_text(note.text, NOTE_LIMIT)}"
        for note in table.notes
    )
    return (
        f"<table><caption><b>{_text(table.title)}</b></caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table><small>{notes}</small>"
    )


def _cell(column: Column, cell: Cell) -> str:
    text = _text(cell_text(column, cell)) + _marks(cell.marks)
    text = f"<b>{text}</b>" if cell.best else text
    side = "left" if column.kind == "label" else "right"
    return f'<td style="text-align: {side}">{text}</td>'


def _marks(marks: tuple[str, ...]) -> str:
    return f"<sup>{_text(' '.join(marks))}</sup>" if marks else ""


def _text(text: str, limit: int = LABEL_LIMIT) -> str:
    return escape(one_line(text, limit))
