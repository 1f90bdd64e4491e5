"""A table as data, for any renderer: Markdown, terminal, LaTeX, HTML, CSV."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from results.errors import ResultsError
from results.record import Record

if TYPE_CHECKING:
    import pandas

Kind = Literal["label", "measured", "published", "difference"]


@dataclass(frozen=True)
class Column:
    """A column holds one kind of thing. Measured and published numbers never share one."""

    key: str
    title: str
    kind: Kind
    unit: str = ""
    source: str = ""
    """short name of who published the numbers, or of whose numbers are subtracted"""
    marks: tuple[str, ...] = ()
    """notes that concern the whole column"""
    better: Literal["higher", "lower"] | None = None
    """which of the column's numbers is the best; None: none is, as in a label or a cost"""


@dataclass(frozen=True)
class Cell:
    """A number or a text; None is an empty cell."""

    value: float | str | None = None
    decimals: int = 2
    std: float | None = None
    """sample standard deviation over n runs; None when n is 1, never 0 in its place"""
    n: int | None = None
    """number of runs behind a measured value"""
    marks: tuple[str, ...] = ()
    source: str | None = None
    """where a published value is printed; None for everything else"""
    interval: tuple[float, float] | None = None
    """ends of the 95 % confidence interval of the value, where a table shows it"""
    best: bool = False
    """the best of the values that it may be compared with in its column"""
    runs: tuple[Record, ...] = field(default=(), compare=False, repr=False)
    """the runs that a measured value is the mean of, or that a difference is taken of"""


@dataclass(frozen=True)
class Note:
    """A line below the table, tied to cells by its mark, or about the table when it has none."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells in the order of the columns. Raises ResultsError when they break a rule."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[Note, ...] = ()

    def to_pandas(self) -> "pandas.DataFrame":
        """Its numbers as a data frame; see `results.frames.table_frame`."""
        from results.frames import table_frame

        return table_frame(self)

    def _repr_html_(self) -> str:
        """What a notebook shows of it."""
        from results.formats.notebook import to_notebook

        return to_notebook([self])

    def __post_init__(self) -> None:
        keys = [column.key for column in self.columns]
        if len(set(keys)) != len(keys):
            raise ResultsError(f"table {self.title!r} has two columns of one key: {keys}")
        explained = {note.mark for note in self.notes}
        marked: list[Column | Cell] = [*self.columns]
        for row in self.rows:
            if len(row) != len(keys):
                raise ResultsError(
                    f"table {self.title!r} has a row of {len(row)} cells; expected {len(keys)}"
                )
            for column, cell in zip(self.columns, row, strict=True):
                problem = _problem(column, cell)
                if problem:
                    raise ResultsError(f"table {self.title!r}, column {column.key!r}: {problem}")
                marked.append(cell)
        unexplained = {mark for item in marked for mark in item.marks} - explained
        if unexplained:
            raise ResultsError(f"table {self.title!r} explains no mark {sorted(unexplained)}")


class Tables(list[Table]):
    """Tables that a notebook shows below each other."""

    def _repr_html_(self) -> str:
        from results.formats.notebook import to_notebook

        return to_notebook(self)


def _problem(column: Column, cell: Cell) -> str | None:
    """What a cell may not be in its column, or None."""
    if cell.value is None:
        return None
    if column.kind == "label":
        return None if isinstance(cell.value, str) else "a label is a text"
    if isinstance(cell.value, str) or not math.isfinite(cell.value):
        return f"{cell.value!r} is not a finite number"
    if column.kind == "published" and cell.source is None:
        return "a number without a source; measured and published numbers never share a column"
    if column.kind != "published" and cell.source is not None:
        return "a published number; measured and published numbers never share a column"
    if column.kind == "measured" and not cell.n:
        return "a measured number needs the count of its runs"
    if column.kind == "measured" and cell.runs and len(cell.runs) != cell.n:
        return f"{cell.n} runs by its count, and {len(cell.runs)} behind it"
    if cell.std is not None and (cell.n is None or cell.n < 2):
        return "a spread needs at least two runs"
    low, high = cell.interval or (0.0, 0.0)
    if not -math.inf < low <= high < math.inf:
        return f"({low}, {high}) are no ends of an interval"
    return None
