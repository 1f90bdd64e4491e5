"""Names in CSV files that a spreadsheet may open."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""what a spreadsheet takes for the start of a formula"""


def harmless(text: str) -> str:
    """A name with an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text
