"""JSON of strangers: one object, of bounded size, depth and numbers."""

import errno
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from results.errors import ResultsError
from results.files import read_regular
from results.text import one_line

LARGEST = 1e300
"""no number of a run is larger; one of thousands of digits is more than arithmetic takes"""
MAX_REASON = 300
"""characters of the reason why a file is none of ours"""


def read_bounded(path: Path, most: int) -> bytes:
    """The bytes of a regular file. Raises ResultsError, one line without the path."""
    try:
        return read_regular(path, most)
    except OSError as error:
        reason = error.strerror or "unknown error"
        if error.errno == errno.EFBIG:
            reason = f"larger than {most // 1024**2} MB; not a file of mae-bench"
        elif error.errno != errno.EINVAL:
            reason = f"cannot be opened: {reason}"
        raise ResultsError(reason) from None


def read_json(path: Path, most: int) -> Any:
    """What a regular file of at most `most` bytes of JSON holds.

    Its parser refuses deep nesting, lone surrogates and NaN; numbers beyond LARGEST are refused
    here. Raises ResultsError, one line without the path.
    """
    try:
        content = from_json(read_bounded(path, most), allow_inf_nan=False)
    except ValueError as error:
        if isinstance(error, ResultsError):
            raise
        deep = "recursion limit" in str(error)
        reason = "nested deeper than any file of mae-bench" if deep else str(error)
        raise ResultsError(one_line(reason, MAX_REASON)) from None
    refuse_absurd(content)
    return content


def read_object(path: Path, most: int) -> dict[str, Any]:
    """The same of a file that holds a JSON object."""
    content = read_json(path, most)
    if not isinstance(content, dict):
        raise ResultsError("expected a JSON object")
    return content


def refuse_absurd(value: Any) -> None:
    """Raise ResultsError for a number in a parsed JSON that arithmetic would trip over."""
    if isinstance(value, dict):
        for each in value.values():
            refuse_absurd(each)
    elif isinstance(value, list):
        for each in value:
            refuse_absurd(each)
    elif isinstance(value, int | float) and not abs(value) <= LARGEST:  # NaN neither
        raise ResultsError(f"holds a number beyond {LARGEST:g}; expected those of a run")
