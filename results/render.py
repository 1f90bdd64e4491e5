"""Tables as GitHub-flavoured Markdown and as rich renderables for a terminal."""

import re
import textwrap
from collections.abc import Iterable
from urllib.parse import quote

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from results.table import Cell, Column, Kind, Table

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

TITLE_WIDTH = 20
"""characters of a column's title in one line of a terminal"""
LABEL_WIDTH = 8
"""characters that a label keeps in a narrow terminal"""


def to_markdown(tables: Iterable[Table]) -> str:
    """A heading, the table and its notes for each; user text cannot break out of its cell."""
    return "\n".join(_markdown(table) for table in tables)


def to_markdown_pictures(pictures: Iterable[tuple[str, str]]) -> str:
    """A section of pictures, each a (title, path relative to the Markdown file), or nothing."""
    lines = [
        f"**{_escape(title)}**\n\n![{_escape(title)}]({quote(path)})" for title, path in pictures
    ]
    return "\n".join(["\n### Pictures\n", *(f"{line}\n" for line in lines)]) if lines else ""


def _markdown(table: Table) -> str:
    header = [_markdown_header(column) for column in table.columns]
    body = [
        [
            _escape(cell_text(column, cell)) + _superscript(cell.marks)
            for column, cell in zip(table.columns, row, strict=True)
        ]
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
    return "\n".join(lines) + "\n"


def _markdown_header(column: Column) -> str:
    owner, source = _owner(column)
    whose = ", ".join(part for part in (owner, source) if part)
    unit = f" ({column.unit})" if column.unit else ""
    text = f"{whose}: {column.title}{unit}" if whose else f"{column.title}{unit}"
    return _escape(text) + _superscript(column.marks)


def _owner(column: Column) -> tuple[str, str]:
    """Whose numbers: ours; published, by whom; or a difference, to whom."""
    to = "to " if column.kind == "difference" and column.source else ""
    return OWNERS[column.kind], to + column.source


def _superscript(marks: Iterable[str]) -> str:
    joined = ",".join(map(_escape, marks))
    return f" <sup>{joined}</sup>" if joined else ""


def _escape(text: str) -> str:
    """User text as literal Markdown on one line, safe inside a table cell."""
    text = re.sub(r"([\\`*\[\]<|~&$])", r"\\\1", _one_line(text))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # vit_b needs no escape, _b_ does


def _escape_line(text: str) -> str:
    """The same at the start of a line, where "> ", "- " or "1. " would open a block."""
    return re.sub(r"^(\d*)([#>+.)=-])", r"\1\\\2", _escape(text))


def _one_line(text: str) -> str:
    """Control characters would break a row, or reach the terminal as commands."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def cell_text(column: Column, cell: Cell) -> str:
    """A cell without its marks: 83.53 ± 0.10 (n=3), +0.1, or an en dash when empty."""
    if cell.value is None:
        return EMPTY
    if isinstance(cell.value, str):
        return _one_line(cell.value)
    sign = "+" if column.kind == "difference" else ""
    text = f"{cell.value:{sign}.{cell.decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    if cell.std is not None:
        text += f" ± {cell.std:.{cell.decimals}f}"
    return f"{text} (n={cell.n})" if cell.n else text


def to_terminal(tables: Iterable[Table]) -> list[RenderableType]:
    """One renderable per table. Bold is ours and italic published, and the headings say so too."""
    return [_terminal(table) for table in tables]


def _terminal(table: Table) -> RenderableType:
    grid = RichTable(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style=""
    )
    for column in table.columns:
        grid.add_column(
            _terminal_header(column),
            justify="left" if column.kind == "label" else "right",
            style=STYLES[column.kind],
            no_wrap=column.kind == "measured",
            min_width=LABEL_WIDTH if column.kind == "label" else None,
        )
    for row in table.rows:
        grid.add_row(
            *(
                Text(cell_text(column, cell) + _bracketed(cell.marks))
                for column, cell in zip(table.columns, row, strict=True)
            )
        )
    notes = RichTable.grid(padding=(0, 1, 0, 0))
    for note in table.notes:
        notes.add_row(Text(_bracketed((note.mark,)).strip() or "·"), Text(_one_line(note.text)))
    return Group(Text(_one_line(table.title), style="bold underline"), grid, Padding(notes, (1, 0)))


def _terminal_header(column: Column) -> Text:
    owner, source = _owner(column)
    title = f"{column.title} {column.unit}{_bracketed(column.marks)}"
    lines = [owner, source, *textwrap.wrap(_one_line(title), TITLE_WIDTH)]
    shown = "\n".join(_one_line(line) for line in lines if line)
    return Text(shown, style=STYLES[column.kind])


def _bracketed(marks: Iterable[str]) -> str:
    joined = ",".join(marks)
    return f" [{joined}]" if joined else ""
