"""The images that a run could not read, each with its reason: in its folder, and by reason."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from backbones.files import atomic_text
from tasks.images.unreadable import Unreadable, by_reason
from tasks.spreadsheet import harmless

UNREADABLE_FILE = "unreadable.csv"
COLUMNS = ("split", "image", "reason")
MOST_REASONS = 20
"""lines that a record keeps of each split"""


def write_unreadable(folder: Path, train: Iterable[Unreadable], test: Iterable[Unreadable]) -> None:
    """Write `unreadable.csv`, one row for each image; without any there is no such file."""
    items = [("train", each) for each in train] + [("test", each) for each in test]
    rows = [(split, harmless(each.name), each.reason) for split, each in items]
    file = folder / UNREADABLE_FILE
    if not rows:
        file.unlink(missing_ok=True)
        return
    with atomic_text(file) as stream:
        writer = csv.writer(stream)
        writer.writerows([COLUMNS, *rows])


def reasons(train: Sequence[Unreadable], test: Sequence[Unreadable]) -> list[str]:
    """ "train: 12 images: truncated (a.jpg, b.jpg, ...)": a line for each split and reason."""
    lines = []
    for split, items in (("train", train), ("test", test)):
        found = by_reason(items)
        lines += [f"{split}: {line}" for line in found[:MOST_REASONS]]
        if found[MOST_REASONS:]:
            lines.append(f"{split}: {len(found) - MOST_REASONS} more reasons")
    return lines
