"""Plain tables of text on the terminal, whoever wrote the text."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from mae_bench.progress import console, say
from results.text import one_line

NOTHING = "–"
LONGEST = 2000
"""characters of a text that are shown"""


def plain(text: str) -> str:
    """A stranger's text on one line, of a bounded length and without control characters."""
    return one_line(text, LONGEST)


def show_table(rows: Sequence[Sequence[str]], fold: bool = False) -> None:
    """Print a line for each row, of as many cells each; with `fold` no wider than the terminal."""
    cells = [[plain(cell) for cell in row] for row in rows]
    if fold and console.is_terminal:
        grid = Table.grid(padding=(0, 2, 0, 0))
        for _ in cells[0]:
            grid.add_column(overflow="fold")
        for row in cells:
            grid.add_row(*map(Text, row))
        console.print(grid, soft_wrap=False)
        return
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
        )
        say("  ".join(padded).rstrip())
