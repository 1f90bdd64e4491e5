"""Tables of JSON objects, as annotation files have them, read and checked column by column."""

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from backbones.files import open_regular
from tasks.errors import TaskError
from tasks.stores import find

MOST_BYTES = 8 * 2**30
"""of a JSON file; the largest known annotation files have a quarter of it"""


def read_json(path: Path, shape: Any = Any) -> Any:
    """The content of a JSON file, in UTF-8, UTF-16 or UTF-32, with or without byte order mark.

    It may be given a `shape`, a type of msgspec's, which spares what is not in it. A file that is
    not of that shape is read without one.
    """
    try:
        with without_collecting():
            return decoded(read_bytes(path), shape)
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error.strerror}; check the path") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise TaskError(f"{path} is not valid JSON ({reason}); get or write it again") from error
    except MemoryError:
        size = path.stat().st_size / 1e6
        raise TaskError(
            f"{path} ({size:,.0f} MB) takes more memory to read than there is; leave out what is "
            "not needed"
        ) from None


@contextmanager
def without_collecting() -> Iterator[None]:
    """A million small objects, none of them garbage: looking for some takes a third of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def read_bytes(path: Path) -> bytes:
    """A file, or a member of an archive. OSError, or ValueError for a hole."""
    member = find(path)
    if member is not None:
        return member.read(MOST_BYTES)
    with open_regular(path, MOST_BYTES) as file:
        start = file.read(64)
        if start and not start.strip(b"\0"):  # a hole, which would be read to its end
            raise ValueError("it begins with zeros")
        file.seek(0)
        return file.readall()


def decoded(data: bytes, shape: Any) -> Any:
    """What JSON says: by msgspec, which takes a fifth of the time; where that refuses, by json.

    json takes more (NaN, other encodings, half a surrogate pair), and says what is wrong as it
    always did. What both take they read alike.
    """
    try:
        if not data.isascii():
            data.decode()  # msgspec does not look into what it skips
        return msgspec.json.decode(data, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return json.loads(data)


def integers(path: Path, table: str, rows: Sequence[dict[str, Any]], key: str) -> np.ndarray:
    """A column of whole numbers, int64."""
    values = [row.get(key) for row in rows]
    with suppress(OverflowError):
        if {*map(type, values)} <= {int}:
            return np.array(values, dtype=np.int64)
    row = next(i for i, value in enumerate(values) if not is_int64(value))
    wanted = "a whole number" + " of 64 bits" * (type(values[row]) is int)
    raise TaskError(bad_value(path, table, rows, row, key, wanted))


def is_int64(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def bad_value(
    path: Path, table: str, rows: Sequence[dict[str, Any]], row: int, key: str, wanted: str
) -> str:
    value = f"{key} {rows[row][key]!r:.40}" if key in rows[row] else f"no {key}"
    return f"{path}: {table}[{row}] has {value}; expected {wanted}: correct the file"


def strings(path: Path, table: str, rows: Sequence[dict[str, Any]], key: str) -> list[str]:
    """A column of texts that are not empty."""
    values = [row.get(key) for row in rows]
    for row, value in enumerate(values):
        if not isinstance(value, str) or not value:
            raise TaskError(bad_value(path, table, rows, row, key, "a text"))
    return values  # type: ignore[return-value] # each has just been looked at


def file_names(path: Path, images: Sequence[dict[str, Any]]) -> list[str]:
    """File names of the images, which a file system can take."""
    names = strings(path, "images", images, "file_name")
    for row, name in enumerate(names):
        if "\0" in name:
            raise TaskError(bad_value(path, "images", images, row, "file_name", "a file name"))
    return names


def refuse_duplicates(path: Path, table: str, numbers: np.ndarray) -> None:
    unique, counts = np.unique(numbers, return_counts=True)
    twice = unique[counts > 1]
    if len(twice):
        raise TaskError(
            f"{path}: {len(twice)} ids in {table} are there more than once ({first(twice)}); "
            "expected each once: give them different ids"
        )


def rank(
    path: Path, numbers: np.ndarray, known: np.ndarray, ids: np.ndarray, key: str
) -> np.ndarray:
    """Position of each of `numbers` in the ascending `known`; refuses those that are not there."""
    rows = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
    wrong = np.flatnonzero(known[rows] != numbers)
    if len(wrong):
        table = "images" if key == "image_id" else "categories"
        raise TaskError(
            f"{path}: {len(wrong)} annotations have a {key} that is not in {table}, for example "
            f"annotation {ids[wrong[0]]} with {key} {numbers[wrong[0]]}; remove them or add it"
        )
    return rows


def first(items: Sequence[object] | np.ndarray, most: int = 3) -> str:
    """The first few items, and dots if there are more."""
    return ", ".join(str(item) for item in items[:most]) + ", ..." * (len(items) > most)
