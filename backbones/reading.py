"""How a checkpoint is to be read, where the file alone does not tell. Imports no torch."""

from dataclasses import dataclass
from typing import TypedDict

from backbones.sizes import BackboneError

MOST_TOKENS = 1024
"""along a side of a grid of patches"""


class ReadingOptions(TypedDict, total=False):
    """The fields of `Reading`, as `backbones.load` and its like take them."""

    format: str | None
    allow_pickle: bool
    key: str | None
    prefix: str | None
    heads: int | None
    grid: str | tuple[int, int] | None


@dataclass(frozen=True)
class Reading:
    """What a user says of a file. Raises `BackboneError` for values that no file can have."""

    format: str | None = None
    """name in `formats.FORMATS`"""
    allow_pickle: bool = False
    """whether a torch file may run code"""
    key: str | None = None
    """where in a torch file the weights are, parts separated by dots: "model_ema" """
    prefix: str | None = None
    """what the names of the network's tensors begin with: "teacher.backbone." """
    heads: int | None = None
    """of attention"""
    grid: str | tuple[int, int] | None = None
    """rows and columns of patches that the positions belong to: (2, 8), or "2x8" """

    def __post_init__(self) -> None:
        if self.heads is not None and not 1 <= self.heads <= MOST_TOKENS:
            raise BackboneError(f"--heads is {self.heads}; expected 1 to {MOST_TOKENS}")
        if self.key == "":
            raise BackboneError("--key is empty; expected a name, such as model_ema")
        _ = self.rows_and_columns

    @property
    def rows_and_columns(self) -> tuple[int, int] | None:
        """The grid as two numbers."""
        if self.grid is None:
            return None
        given = self.grid.lower().split("x") if isinstance(self.grid, str) else self.grid
        try:
            rows, columns = (int(each) for each in given)
        except (ValueError, TypeError):
            rows = columns = 0
        if not (1 <= rows <= MOST_TOKENS and 1 <= columns <= MOST_TOKENS):
            raise BackboneError(
                f"--grid is {self.grid!r}; expected rows x columns of patches, such as 2x8"
            )
        return rows, columns
