"""The one error of this package."""


class ResultsError(ValueError):
    """Bad input to the results. The message is one line: what, expected, what to do."""
