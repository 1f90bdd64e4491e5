"""The training log of a run, thinned to what a curve can show."""

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path

from results.files import open_regular

LOG_FILE = "log.jsonl"
MAX_POINTS = 1500
"""about"""
MAX_BYTES = 256 * 1024 * 1024
"""of a log that are read"""
LARGEST = 1e9
"""no loss is larger; a stranger's log may hold anything"""
LINE_BYTES = 80
"""about what one step takes"""
MAX_LINE_BYTES = 1000


@dataclass(frozen=True)
class Log:
    """Loss over epochs; every so many steps of a long run."""

    name: str
    protocol: str
    miniature: bool
    epochs: tuple[float, ...]
    losses: tuple[float, ...]
    damaged: int = 0
    """lines that were looked at and are no step"""


def read_log(file: Path, name: str, protocol: str, miniature: bool) -> Log | None:
    """The log of one run, or None if `file` holds no step. Lines that are no step are counted.

    A last line without its end is one that is being written, or that a crash cut: it counts not.
    """
    epochs, losses, damaged = [], [], 0
    try:
        with io.BufferedReader(open_regular(file)) as stream:
            size = min(os.fstat(stream.fileno()).st_size, MAX_BYTES)
            every = 1 + size // (MAX_POINTS * LINE_BYTES)
            number = 0
            while stream.tell() < size and (line := stream.readline(MAX_LINE_BYTES)):
                number += 1
                if number % every and stream.tell() < size:
                    continue
                values = _values(line)
                if values is not None:
                    epochs.append(values[0])
                    losses.append(values[1])
                else:
                    damaged += line.endswith(b"\n") or len(line) == MAX_LINE_BYTES
    except OSError:
        return None
    if not epochs:
        return None
    return Log(name, protocol, miniature, tuple(epochs), tuple(losses), damaged)


def _values(line: bytes) -> tuple[float, float] | None:
    """Epoch and loss of one line."""
    try:
        entry = json.loads(line)
        values = float(entry["epoch"]), float(entry["loss"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return values if all(abs(value) <= LARGEST for value in values) else None
