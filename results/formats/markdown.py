"""GitHub-flavoured Markdown, with pictures beside it."""

import os
import re
from collections.abc import Iterable
from urllib.parse import quote

from results.behind import runs_note
from results.formats import Content
from results.formats.texts import LABEL_LIMIT, NOTE_LIMIT, RUNS_LIMIT, cell_text, owner_of
from results.table import Cell, Column, Table
from results.text import one_line


def write(content: Content) -> str:
    return to_markdown(content.tables) + to_markdown_pictures(content.pictures)


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
