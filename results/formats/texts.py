"""Cells and heads of columns as plain text, the same in every format."""

from results.table import Cell, Column, Kind
from results.text import one_line

EMPTY = "–"
OWNERS: dict[Kind, str] = {
    "label": "",
    "measured": "ours",
    "published": "published",
    "difference": "difference",
}
"""The word that heads a column, so that no colour is needed to tell ours from theirs."""

LABEL_LIMIT = 120
RUNS_LIMIT = 20_000
"""characters of the names of the runs behind a table"""
NOTE_LIMIT = 2000
"""characters of a label or title, and of a note, that are shown; strangers' may be endless"""


def owner_of(column: Column) -> tuple[str, str]:
    """Whose numbers: ours; published, by whom; or a difference, to whom."""
    to = "to " if column.kind == "difference" and column.source else ""
    return OWNERS[column.kind], to + column.source


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


def with_arrows(text: str) -> str:
    """ "epochs 100 -> 1" with an arrow that no line ends at."""
    return text.replace(" -> ", "\u00a0→\u00a0")


def _number(value: float, decimals: int, sign: str) -> str:
    text = f"{value:{sign}.{decimals}f}"
    return text.lstrip("+-") if float(text) == 0 else text
