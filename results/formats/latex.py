"""A whole LaTeX article, or tables with booktabs for any document class."""

import re
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence

from results.behind import runs_note
from results.formats import Content
from results.formats.texts import NOTE_LIMIT, RUNS_LIMIT, cell_text, owner_of
from results.table import Cell, Column, Table
from results.text import one_line

PREAMBLE = r"\usepackage{booktabs,graphicx,textcomp}"
DOCUMENT = r"""\documentclass{article}
\usepackage[margin=2cm]{geometry}
%s
\begin{document}

%s
\end{document}
"""

CELL_LIMIT, TITLE_LIMIT = 80, 40
"""characters of a label and of a column's title; TeX has a largest width"""
TITLE_WIDTH = 15
"""characters of a column's title in one line"""
PAGE_LINES = 45
"""rows and lines of notes that a float holds; more rows go on in another one"""
NOTE_WIDTH = 120
"""characters of a note in one line, about"""

SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "#": r"\#",
    "$": r"\$",
    "%": r"\%",
    "&": r"\&",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",  # babel's languages give it meanings
    "'": "'{}",
    "`": r"\textasciigrave{}",
    "-": "-{}",  # two in a row would become a dash
    "[": "{[}",  # as the first of a row it would be an argument of the line before, as is *
    "]": "{]}",
    "*": "{*}",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "·": r"$\cdot$",
    "≈": r"$\approx$",
    "√": r"$\surd$",
    "→": r"$\rightarrow$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "‘": r"\textquoteleft{}",
    "’": r"\textquoteright{}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "°": r"\textdegree{}",
    "µ": r"\textmu{}",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
}
ACCENTS = {
    "\u0300": r"\`",
    "\u0301": r"\'",
    "\u0302": r"\^",
    "\u0303": r"\~",
    "\u0304": r"\=",
    "\u0306": r"\u",
    "\u0307": r"\.",
    "\u0308": r"\"",
    "\u030a": r"\r",
    "\u030b": r"\H",
    "\u030c": r"\v",
    "\u0327": r"\c",
}
"""combining characters that every font encoding can set"""


def write(content: Content) -> str:
    return to_latex(content.tables, document=True)


def to_latex(tables: Iterable[Table], *, document: bool = False) -> str:
    r"""A `table` environment for each, with its notes below it and PREAMBLE's packages in use.

    `document` makes a whole article of them; without it the text is for \input. Wide tables are
    shrunk to the line. User text is set literally; characters that LaTeX's own fonts lack appear
    as their code points, such as U+4E2D.
    """
    body = "\n".join(map(_environments, tables))
    return DOCUMENT % (PREAMBLE, body) if document else f"% needs {PREAMBLE}\n\n{body}"


def _with_arrows(text: str) -> str:
    """ "epochs 100 -> 1" with an arrow that no line ends at."""
    return r"~$\rightarrow$~".join(map(escape, text.split(" -> ")))


def _environments(table: Table) -> str:
    """The floats of a table, and its notes: in the last float, or as text where they are long."""
    align = "".join("l" if column.kind == "label" else "r" for column in table.columns)
    title = escape(one_line(table.title, NOTE_LIMIT))
    rows = [
        [_cell(column, cell) for column, cell in zip(table.columns, row, strict=True)]
        for row in table.rows
    ]
    texts = [one_line(note.text, NOTE_LIMIT) for note in table.notes]
    notes = [
        _superscript((note.mark,) if note.mark else ()) + _with_arrows(text) + r"\par"
        for note, text in zip(table.notes, texts, strict=True)
    ]
    if behind := one_line(runs_note(table), RUNS_LIMIT):
        texts.append(behind)
        notes.append(escape(behind) + r"\par")
    small = [r"{\raggedright\footnotesize", *notes, "}"] if notes else []
    lines = []
    for start in range(0, max(1, len(rows)), PAGE_LINES):
        part = rows[start : start + PAGE_LINES]
        lines += [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{title}{' (continued)' if start else ''}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            *map(_row, _header(table.columns)),
            r"\midrule",
            *map(_row, part),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
    height = len(part) + sum(1 + len(text) // NOTE_WIDTH for text in texts)
    if height <= PAGE_LINES:
        return "\n".join([*lines[:-1], r"\par\smallskip", *small, lines[-1], ""])
    return "\n".join([*lines, r"\clearpage", *small, ""])


def _header(columns: Sequence[Column]) -> list[list[str]]:
    """A line for whose numbers, one for the source, then the titles, which end in the last line."""
    owners = [owner_of(column) for column in columns]
    lines = [[escape(owner) for owner, _ in owners], [escape(source) for _, source in owners]]
    titles = []
    for column in columns:
        title = one_line(column.title, TITLE_LIMIT) + (f" ({column.unit})" if column.unit else "")
        parts = [escape(part) for part in textwrap.wrap(title, TITLE_WIDTH)] or [""]
        titles.append([*parts[:-1], parts[-1] + _superscript(column.marks)])
    height = max(map(len, titles))
    padded = [[""] * (height - len(parts)) + parts for parts in titles]
    return [*(line for line in lines if any(line)), *map(list, zip(*padded, strict=True))]


def _row(texts: Iterable[str]) -> str:
    return " & ".join(texts) + r" \\"


def _cell(column: Column, cell: Cell) -> str:
    text = escape(one_line(cell_text(column, cell), CELL_LIMIT))
    if isinstance(cell.value, float):
        text = re.sub(r"(?<!\d)(?:-\{\}|\+)(?=\d)", lambda sign: f"${sign[0][0]}$", text)
    return (rf"\textbf{{{text}}}" if cell.best else text) + _superscript(cell.marks)


def _superscript(marks: Sequence[str]) -> str:
    return rf"\textsuperscript{{{','.join(map(escape, marks))}}}" if marks else ""


def escape(text: str) -> str:
    """User text as LaTeX that sets it literally, on one line."""
    return "".join(map(_character, unicodedata.normalize("NFC", one_line(text))))


def _character(character: str) -> str:
    if character in SPECIAL:
        return SPECIAL[character]
    if character.isascii():
        return character
    parts = unicodedata.normalize("NFD", character)
    if len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in ACCENTS:
        letter = f"\\{parts[0]}" if parts[0] in "ij" else parts[0]  # without their dots
        return f"{ACCENTS[parts[1]]}{{{letter}}}"
    return rf"\texttt{{U+{ord(character):04X}}}"
