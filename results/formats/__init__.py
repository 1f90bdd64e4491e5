"""The formats that a report is written in: one file each, with a function `write`.

Another format is another file here and a line in FORMATS. Nothing heavy is imported before it is
asked for.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from results.table import Table


@dataclass(frozen=True)
class Content:
    """What a writer may put into its file."""

    tables: Sequence[Table]
    pictures: Sequence[tuple[str, str]] = ()
    """figures and pictures of runs: title, and path as seen from the file"""
    page: Callable[[], str] = str
    """makes the HTML page, with figures and all that is known of the runs"""


FORMATS = {
    "terminal": "results.formats.terminal",
    "md": "results.formats.markdown",
    "html": "results.formats.html",
    "tex": "results.formats.latex",
    "csv": "results.formats.csv",
    "json": "results.formats.json",
}
"""name, which is the ending of the file -> module"""
SHOWN = frozenset({"terminal"})
"""formats that are printed and have no file"""
WITHOUT_FIGURES = frozenset({"csv", "json"})
"""formats for other programs: alone they are no reason to draw figures"""


def write(name: str, content: Content) -> Any:
    """A report in a format of FORMATS: its text, or what rich prints of those in SHOWN."""
    return importlib.import_module(FORMATS[name]).write(content)
