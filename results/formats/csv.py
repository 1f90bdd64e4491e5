"""A line for each number, for spreadsheets."""

from results.csv_text import to_csv
from results.formats import Content


def write(content: Content) -> str:
    return to_csv(content.tables)
