"""Tables as rich renderables for a terminal of any width."""

import itertools
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from results.behind import runs_note
from results.cells import BEST
from results.formats import Content
from results.formats.texts import LABEL_LIMIT, NOTE_LIMIT, RUNS_LIMIT, cell_text, owner_of
from results.table import Cell, Column, Kind, Table
from results.text import one_line

STYLES: dict[Kind, str] = {
    "label": "",
    "measured": "bold",
    "published": "italic",
    "difference": "",
}

BEST_HERE = BEST.replace("bold", "underlined", 1)
"""bold is what is ours"""
TITLE_WIDTH = 16
"""characters of a column's title in one line of a terminal"""


def write(content: Content) -> list[RenderableType]:
    return to_terminal(content.tables)


def to_terminal(tables: Iterable[Table]) -> list[RenderableType]:
    """One renderable per table. Bold is ours, italic published, as the headings say too; the best
    of a column is underlined. What is too wide goes on below, with the first labels again."""
    return [_Terminal(table) for table in tables]


@dataclass(frozen=True)
class _Terminal:
    """A table in as many parts, side by side in the data, as the terminal's width asks for."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self.table
        yield Text(one_line(table.title, NOTE_LIMIT), style="bold underline")
        kinds = [column.kind for column in table.columns]
        labels = list(range(len([*itertools.takewhile(lambda kind: kind == "label", kinds)])))
        part, unbounded = list(labels), options.update(width=10_000)
        for index in range(len(labels), len(kinds)):
            grid = _grid(table, [*part, index])
            wide = console.measure(grid, options=unbounded).maximum > options.max_width
            if wide and part != labels:
                yield _grid(table, part)
                yield Text()
                part = list(labels)
            part.append(index)
        yield _grid(table, part)
        notes = RichTable.grid(padding=(0, 1, 0, 0))
        for note in table.notes:
            mark = Text(_bracketed((note.mark,)).strip() or "·")
            text = BEST_HERE if note.text == BEST else note.text
            notes.add_row(mark, Text(one_line(text, NOTE_LIMIT)))
        if behind := runs_note(table):
            notes.add_row(Text("·"), Text(one_line(behind, RUNS_LIMIT)))
        yield Padding(notes, (1, 0))


def _grid(table: Table, indices: Sequence[int]) -> RichTable:
    """Some columns of a table."""
    grid = RichTable(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style=""
    )
    columns = [table.columns[index] for index in indices]
    for column in columns:
        grid.add_column(
            _terminal_header(column),
            justify="left" if column.kind == "label" else "right",
            style=STYLES[column.kind],
            no_wrap=column.kind == "measured",
            overflow="fold",
        )
    for row in table.rows:
        cells = [row[index] for index in indices]
        grid.add_row(*map(_terminal_cell, columns, cells))
    return grid


def _terminal_cell(column: Column, cell: Cell) -> Text:
    text = Text(cell_text(column, cell), style="underline" if cell.best else "")
    return text.append(_bracketed(cell.marks), style="not underline")


def _terminal_header(column: Column) -> Text:
    owner, source = owner_of(column)
    title = f"{column.title} {column.unit}{_bracketed(column.marks)}"
    lines = [owner, source, *textwrap.wrap(one_line(title, LABEL_LIMIT), TITLE_WIDTH)]
    shown = "\n".join(one_line(line) for line in lines if line)
    return Text(shown, style=STYLES[column.kind])


def _bracketed(marks: Iterable[str]) -> str:
    joined = ",".join(marks)
    return f" [{joined}]" if joined else ""
