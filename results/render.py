"""Tables as GitHub-flavoured Markdown and as rich renderables for a terminal."""

import itertools
import os
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from results.behind import runs_note
from results.table import Cell, Column, Kind, Table
from results.text import one_line

EMPTY = "–"
OWNERS: dict[Kind, str] = {
    "label": "",
    "measured": "ours",
    "published": "published",
    "difference": "difference",
}
"""The word that heads a column, so that no colour is needed to tell ours from theirs."""

STYLES: dict[Kind, str] = {
    "label": "",
    "measured": "bold",
    "published": "italic",
    "difference": "",
}

TITLE_WIDTH = 16
"""characters of a column's title in one line of a terminal"""

LABEL_LIMIT = 120
RUNS_LIMIT = 20_000
"""characters of the names of the runs behind a table"""
NOTE_LIMIT = 2000
"""characters of a label or title, and of a note, that are shown; strangers' may be endless"""


def to_markdown(tables: Iterable[Table]) -> str:
    """A heading, the table and its notes for each; user text cannot break out of its cell."""
    return "\n".join(_markdown(table) for table in tables)


def to_markdown_pictures(pictures: Iterable[tuple[str, str]]) -> str:
    """A section of pictures, each a (title, path relative to the Markdown file), or nothing."""
    lines = [
        f"**{_escape(title)}**\n\n![{_escape(title)}]({quote(os.fsencode(path))})"
        for title, path in pictures
    ]
    return "\n".join(["\n### Pictures\n", *(f"{line}\n" for line in lines)]) if lines else ""


def _markdown(table: Table) -> str:
    header = [_markdown_header(column) for column in table.columns]
    body = [
        [_markdown_cell(column, cell) for column, cell in zip(table.columns, row, strict=True)]
        for row in table.rows
    ]
    widths = [max(3, *map(len, texts)) for texts in zip(header, *body, strict=True)]
    left = [column.kind == "label" for column in table.columns]
    rule = [
        "-" * width if is_left else "-" * (width - 1) + ":"
        for width, is_left in zip(widths, left, strict=True)
    ]
    lines = [f"### {_escape(table.title)}", ""]
    for texts in (header, rule, *body):
        padded = [
            text.ljust(width) if is_left else text.rjust(width)
            for text, width, is_left in zip(texts, widths, left, strict=True)
        ]
        lines.append(f"| {' | '.join(padded)} |")
    lines.append("")
    for note in table.notes:
        mark = _superscript((note.mark,)).strip() + " " if note.mark else ""
        lines.append(f"- {mark}{_escape_line(note.text)}")
    if behind := runs_note(table):
        lines.append(f"- {_escape_line(behind, RUNS_LIMIT)}")
    return "\n".join(lines) + "\n"


def _markdown_cell(column: Column, cell: Cell) -> str:
    text = _escape(cell_text(column, cell))
    return (f"**{text}**" if cell.best else text) + _superscript(cell.marks)


def _markdown_header(column: Column) -> str:
    owner, source = owner_of(column)
    whose = ", ".join(part for part in (owner, source) if part)
    unit = f" ({column.unit})" if column.unit else ""
    title = one_line(column.title, LABEL_LIMIT) + unit
    return _escape(f"{whose}: {title}" if whose else title) + _superscript(column.marks)


def owner_of(column: Column) -> tuple[str, str]:
    """Whose numbers: ours; published, by whom; or a difference, to whom."""
    to = "to " if column.kind == "difference" and column.source else ""
    return OWNERS[column.kind], to + column.source


def _superscript(marks: Iterable[str]) -> str:
    joined = ",".join(map(_escape, marks))
    return f" <sup>{joined}</sup>" if joined else ""


def _escape(text: str, limit: int = NOTE_LIMIT) -> str:
    """User text as literal Markdown on one line, safe inside a table cell."""
    text = re.sub(r"([\\`*\[\]<|~&$])", r"\\\1", one_line(text, limit))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # vit_b needs no escape, _b_ does


def _escape_line(text: str, limit: int = NOTE_LIMIT) -> str:
    """The same at the start of a line, where "> ", "- " or "1. " would open a block."""
    return re.sub(r"^(\d*)([#>+.)=-])", r"\1\\\2", _escape(text, limit))


def cell_text(column: Column, cell: Cell) -> str:
    """A cell without its marks: 83.53 ± 0.10 (n=3), 83.5 [83.2, 83.8] (n=1), +0.1, or an en dash
    when empty."""
    if cell.value is None:
        return EMPTY
    if isinstance(cell.value, str):
        return one_line(cell.value, LABEL_LIMIT)
    sign = "+" if column.kind == "difference" else ""
    text = _number(cell.value, cell.decimals, sign)
    if cell.std is not None:
        text += f" ± {cell.std:.{cell.decimals}f}"
    if cell.interval is not None:
        text += f" [{', '.join(_number(end, cell.decimals, sign) for end in cell.interval)}]"
    return f"{text} (n={cell.n})" if cell.n else text


def _number(value: float, decimals: int, sign: str) -> str:
    text = f"{value:{sign}.{decimals}f}"
    return text.lstrip("+-") if float(text) == 0 else text


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
            notes.add_row(mark, Text(one_line(note.text, NOTE_LIMIT)))
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
