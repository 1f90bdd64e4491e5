"""Records of runs, published numbers, and the tables that put them side by side.

Stands alone: imports no other package of this repository, and no torch.
"""

from results.comparison import comparison_table
from results.configuration import Configuration, configurations
from results.errors import ResultsError
from results.formats.csv import to_csv
from results.formats.latex import to_latex
from results.formats.markdown import to_markdown, to_markdown_pictures
from results.formats.terminal import to_terminal
from results.paper import PAPER_TABLES, paper_table, paper_tables
from results.predictions import RunScores, read_run_scores
from results.published import Published, headline, published
from results.record import (
    Changed,
    Checkpoint,
    Cost,
    Data,
    Earlier,
    Environment,
    HeldOut,
    Named,
    Record,
    Sweep,
    Tried,
    parse_record,
)
from results.statistics import compare
from results.store import Skipped, read_records, record_folders, write_record
from results.table import Cell, Column, Note, Table

__all__ = [
    "PAPER_TABLES",
    "Cell",
    "Changed",
    "Checkpoint",
    "Column",
    "Configuration",
    "Cost",
    "Data",
    "Earlier",
    "Environment",
    "HeldOut",
    "Named",
    "Note",
    "Published",
    "Record",
    "ResultsError",
    "RunScores",
    "Skipped",
    "Sweep",
    "Table",
    "Tried",
    "compare",
    "comparison_table",
    "configurations",
    "headline",
    "paper_table",
    "paper_tables",
    "parse_record",
    "published",
    "read_records",
    "read_run_scores",
    "record_folders",
    "to_csv",
    "to_latex",
    "to_markdown",
    "to_markdown_pictures",
    "to_terminal",
    "write_record",
]
