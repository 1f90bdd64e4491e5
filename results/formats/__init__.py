"""The formats that a report is written in: one file each, which has one function, `write`.

Another format is another file here and a line in FORMATS. Nothing heavy is imported before it is
asked for.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    "md": "results.formats.markdown",
    "html": "results.formats.html",
    "tex": "results.formats.latex",
    "csv": "results.formats.csv",
    "json": "results.formats.json",
}
"""ending of the file, which is the format's name -> module"""
WITHOUT_FIGURES = frozenset({"csv", "json"})
"""formats for other programs: alone they are no reason to draw figures"""


def write(name: str, content: Content) -> str:
    """The text of a report in a format of FORMATS."""
    text: str = importlib.import_module(FORMATS[name]).write(content)
    return text
