"""The training log of a run, thinned to what a curve can show."""

import json
from dataclasses import dataclass
from pathlib import Path

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


def read_log(file: Path, name: str, protocol: str, miniature: bool) -> Log | None:
    """The log of one run, or None if `file` holds no step. Lines that are no step are left out."""
    epochs, losses = [], []
    if not file.is_file():  # a pipe would never end
        return None
    try:
        size = min(file.stat().st_size, MAX_BYTES)
        every = 1 + size // (MAX_POINTS * LINE_BYTES)
        with file.open("rb") as stream:
            number = 0
            while stream.tell() < size and (line := stream.readline(MAX_LINE_BYTES)):
                number += 1
                if number % every and stream.tell() < size:
                    continue
                values = _values(line)
                if values is not None:
                    epochs.append(values[0])
                    losses.append(values[1])
    except OSError:
        return None
    return Log(name, protocol, miniature, tuple(epochs), tuple(losses)) if epochs else None


def _values(line: bytes) -> tuple[float, float] | None:
    """Epoch and loss of one line."""
    try:
        entry = json.loads(line)
        values = float(entry["epoch"]), float(entry["loss"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return values if all(abs(value) <= LARGEST for value in values) else None
