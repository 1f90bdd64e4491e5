"""Records of runs, published numbers, and the tables that put them side by side.

Stands alone: imports no other package of this repository, and no torch.
"""

from results.comparison import comparison_table
from results.configuration import Configuration, configurations
from results.errors import ResultsError
from results.published import Published, headline, published
from results.record import Checkpoint, Cost, Data, Environment, Record, parse_record
from results.render import to_markdown, to_markdown_pictures, to_terminal
from results.store import Skipped, read_records, record_folders, write_record
from results.table import Cell, Column, Note, Table

__all__ = [
    "Cell",
    "Checkpoint",
    "Column",
    "Configuration",
    "Cost",
    "Data",
    "Environment",
    "Note",
    "Published",
    "Record",
    "ResultsError",
    "Skipped",
    "Table",
    "comparison_table",
    "configurations",
    "headline",
    "parse_record",
    "published",
    "read_records",
    "record_folders",
    "to_markdown",
    "to_markdown_pictures",
    "to_terminal",
    "write_record",
]
