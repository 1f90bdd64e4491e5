"""Configurations and published numbers as the points and lines of a figure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from results.configuration import Configuration
from results.drawing import LABEL_LENGTH, Line, Owner, Point, method_title
from results.errors import ResultsError
from results.labels import (
    as_title,
    data_title,
    is_own,
    protocol_title,
    shown,
    task_of,
    trained_blocks,
)
from results.logs import Log
from results.origins import Pretrainings, changed_settings
from results.record import Record
from results.text import middle_cut

MAX_BLOCKS = 1000.0
"""no backbone has more; the name of a stranger's protocol may hold any number"""


def place_of(runs: Iterable[Record | Log]) -> str:
    """What to add to a title. Raises ResultsError for a mixture that no figure may show."""
    runs = list(runs)
    miniature = {run.data.miniature if isinstance(run, Record) else run.miniature for run in runs}
    if len(miniature) > 1:
        raise ResultsError("runs on miniature data and others never share a figure")
    if miniature == {True}:
        return ", miniature world"
    own = {run.data.name for run in runs if isinstance(run, Record) and is_own(run)}
    return f", own data {', '.join(sorted(own))}" if own else ""


def title_of(protocol: str) -> str:
    data, what = data_title(task_of(protocol)), protocol_title(protocol)
    return as_title(f"{data}: {what}" if data else what)


def blocks_of(protocol: str) -> float | None:
    """Number of blocks that train in a partial fine-tuning."""
    blocks = trained_blocks(protocol)
    return None if blocks is None else min(float(blocks), MAX_BLOCKS)


def headline_metric(records: Iterable[Record]) -> str | None:
    """The first score, as tables show them, that any run has."""
    present = {name for record in records for name in record.metrics}
    return next(iter(shown(present)), None)


def _as_the_protocol(record: Record) -> bool:
    """Whether a run follows its protocol: on official data, or in a figure without published
    numbers on the miniature's or one's own."""
    whole = record.complete and not record.deviations
    return whole and (record.data.standard or record.data.miniature or is_own(record))


def point_of(c: Configuration, x: float | None, metric: str) -> Point | None:
    cell = c.cell(metric, 2)
    if x is None or not isinstance(cell.value, float):
        return None
    return Point(float(x), cell.value, cell.std)


def our_label(record: Record, before: Pretrainings, *more: str) -> str:
    """ "MAE, ViT-L, decoder depth 4": a run's method, `more`, and what its pre-training did
    otherwise than its protocol."""
    parts = [method_title(record.init), *more, *changed_settings(record, before)]
    return middle_cut(", ".join(parts), LABEL_LENGTH)


def our_line(record: Record, label: str, points: Iterable[Point | None], like: bool = True) -> Line:
    owner: Owner = "ours" if like and _as_the_protocol(record) else "marked"
    there = sorted((p for p in points if p is not None), key=lambda point: point.x)
    return Line(record.init, label, owner, tuple(there))


def told_apart(ours: Sequence[tuple[Record, Line]]) -> list[Line]:
    """Lines of one name get that of their pre-training data too, or the beginning of the file's
    digest, where they differ in it."""
    lines = [line for _, line in ours]
    for told in (_pretraining_data, _digest):
        alike: dict[str, set[str]] = defaultdict(set)
        for (record, _), line in zip(ours, lines, strict=True):
            alike[line.label].add(told(record))
        lines = [
            replace(line, label=middle_cut(f"{line.label}{told(record)}", LABEL_LENGTH))
            if len(alike[line.label]) > 1
            else line
            for (record, _), line in zip(ours, lines, strict=True)
        ]
    return lines


def _pretraining_data(record: Record) -> str:
    data = record.checkpoint and record.checkpoint.data
    return f", {data.name}" if data else ""


def _digest(record: Record) -> str:
    file = record.checkpoint
    if file is None:
        return ""
    return f", {(file.data.fingerprint if file.data else file.sha256)[:6]}"


def published_lines(rows: Iterable[tuple[str, str, Point]]) -> list[Line]:
    """One line for each method and label, in the order of the rows."""
    found: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for method, label, point in rows:
        found[method, label].append(point)
    return [
        Line(method, label, "published", tuple(sorted(points, key=lambda point: point.x)))
        for (method, label), points in found.items()
    ]


def in_rows(points: Iterable[Point | None]) -> list[list[Point]]:
    """Points in as few rows as let no two of one row stand at the same x."""
    rows: list[dict[float, Point]] = []
    for point in points:
        if point is not None:
            row = next((row for row in rows if point.x not in row), None)
            if row is None:
                rows.append(row := {})
            row[point.x] = point
    return [list(row.values()) for row in rows]


def joined(lines: Sequence[Line]) -> list[Line]:
    """Of each method the lines of several points; else the points that follow the protocol, else
    all: the points of another figure's axis would hide the curve, and stand in the tables."""
    kept = []
    for method in dict.fromkeys(line.method for line in lines):
        same = [line for line in lines if line.method == method]
        several = [line for line in same if len(line.points) > 1]
        kept += several or [line for line in same if line.owner == "ours"] or same
    return kept
