"""The runs behind the numbers of a table, named for readers of any format."""

from collections.abc import Iterable, Iterator

from results.table import Cell, Table
from results.text import one_line

NAME_LIMIT = 100
"""characters of the name of a run, or of a row's label"""
MOST_NAMES = 20
"""of one number"""
MOST_ROWS = 40
"""of one table whose runs stand below it"""


def runs_note(table: Table) -> str:
    """ "runs: vit_b mae [a]: one, two; vit_l mae: three." or nothing: the rows of a table with the
    runs that each measured number is the mean of. A CSV names them all."""
    rows = [line for line in map(_row, table.rows, [table] * len(table.rows)) if line]
    left = len(rows) - MOST_ROWS
    more = f"; and {left} more rows, whose runs the CSV and the page name" if left > 0 else ""
    return f"runs: {'; '.join(rows[:MOST_ROWS])}{more}." if rows else ""


def run_names(cell: Cell, most: int = MOST_NAMES) -> str:
    """Names of the runs of a number, and how many more there are."""
    names = [one_line(record.name, NAME_LIMIT) for record in cell.runs[:most]]
    left = len(cell.runs) - most
    return ", ".join(names) + (f" and {left} more" if left > 0 else "")


def _row(row: tuple[Cell, ...], table: Table) -> str:
    """The labels of a row and its runs; which numbers each stand behind, if not behind all."""
    columns: dict[str, list[str]] = {}
    for column, cell in zip(table.columns, row, strict=True):
        if column.kind == "measured" and cell.runs:
            columns.setdefault(run_names(cell), []).append(one_line(column.title, NAME_LIMIT))
    if not columns:
        return ""
    parts = [
        names if len(columns) == 1 else f"{', '.join(titles)} {names}"
        for names, titles in columns.items()
    ]
    return f"{' '.join(_labels(row, table))}: {' / '.join(parts)}"


def _labels(row: Iterable[Cell], table: Table) -> Iterator[str]:
    for column, cell in zip(table.columns, row, strict=True):
        if column.kind == "label" and cell.value not in (None, ""):
            marks = f" [{','.join(cell.marks)}]" if cell.marks else ""
            yield one_line(str(cell.value), NAME_LIMIT) + marks
