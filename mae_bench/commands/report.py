"""`mae-bench report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

import mae_bench
from mae_bench.commands.shared import flag, go_on
from mae_bench.errors import RunError


@dataclass
class Report:
    """Print the tables of all finished runs beside the published numbers; write them with figures.

    The HTML page is one file that needs no network: tables, figures, pictures, and the recipe
    behind each row.
    """

    runs: Path = Path("runs")
    """folder of the runs"""
    output: Path | None = None
    """name of the files, each with the ending of its format, or of one file (default: in the
    folder of the runs report, or report-table-3 and report-compare for other tables)"""
    table: tuple[str, ...] = ()
    """tables of the MAE paper in its own layout: 1a to 1f, 2 to 7, 12, 13, partial or all
    (default: a table for each protocol)"""
    compare: Annotated[tuple[str, str] | None, arg(metavar="ONE OTHER")] = None
    """test the difference between two sets of runs, each a name, a folder of runs or a pattern such
    as 'mae-seed*': over seeds, and over images where predictions were kept"""
    costs: bool = False
    """add columns of what the runs took: device-hours, images/s, peak memory"""
    intervals: bool = False
    """add 95 % bootstrap intervals over the test images to the scores of single runs"""
    formats: tuple[str, ...] = ("md", "html")
    """what to write, of md, html, tex, csv and json; figures are beside it as svg, png and pdf"""
    watch: bool = False
    """write the HTML page again while runs are under way, until Ctrl-C"""

    def run(self) -> None:
        if not self.formats:
            raise RunError("--formats names none; expected some of md, html, tex, csv and json")
        mae_bench.report(
            self.runs,
            self.output,
            table=self.table,
            compare=self.compare,
            costs=self.costs,
            intervals=self.intervals,
            formats=self.formats,
            watch=self.watch,
        )
        go_on("runs", "list", *flag("runs", self.runs, "runs"))
