"""The figures of a report: which numbers stand in them.

Imports matplotlib, so that `import results` does not.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from matplotlib.figure import Figure

from results.configuration import SIZES, Configuration, configurations
from results.drawing import (
    LABEL_LENGTH,
    TITLE_LENGTH,
    Line,
    Owner,
    Panel,
    Point,
    draw_losses,
    draw_panels,
    linear_axis,
    log_axis,
    method_title,
    root_axis,
    save,
    size_axis,
    size_title,
)
from results.errors import ResultsError
from results.labels import (
    data_title,
    family_of,
    protocol_title,
    shown,
    task_of,
    trained_blocks,
)
from results.logs import Log
from results.origins import Pretrainings, made
from results.protocol import ProtocolId
from results.published import Published, headline
from results.record import Record
from results.text import one_line

KEY_LENGTH = 100
CAPTION_LENGTH = 500
MAX_FIGURES = 40
"""of one kind"""
MAX_CURVES = 8
"""runs in one figure of training curves"""
MAX_BLOCKS = 1000.0
"""no backbone has more; the name of a stranger's protocol may hold any number"""
TOLD = {
    "mask_ratio": {"mask_ratio", "epochs", "norm_pix"},
    "epochs": {"epochs", "norm_pix"},
}
"""Axis -> changed fields of the pre-training recipe that it or the names of the lines tell."""


@dataclass(frozen=True)
class Drawn:
    """A figure, named for a file and described for a reader."""

    key: str
    title: str
    caption: str
    figure: Figure

    @functools.cached_property
    def svg(self) -> bytes:
        """Drawn once for a file and a page."""
        return save(self.figure, "svg")


def figures(
    records: Sequence[Record], published: Sequence[Published], logs: Sequence[Log]
) -> list[Drawn]:
    """Every figure that has something to show; those of the miniature world after the others."""
    drawn: list[Drawn] = []
    for miniature in (False, True):
        these = [record for record in records if record.data.miniature == miniature]
        there = [log for log in logs if log.miniature == miniature]
        drawn += _figures(these, [] if miniature else published, there)
    return drawn


def _figures(
    records: Sequence[Record], published: Sequence[Published], logs: Sequence[Log]
) -> list[Drawn]:
    drawn = []
    where = _where([*records, *logs])

    def add(key: str, title: str, caption: str, figure: Figure | None) -> None:
        if figure is not None:
            key = f"miniature-{key}" if where else key
            key = re.sub(r"[^a-z0-9_-]", "-", key.replace("@", "-v"))[:KEY_LENGTH]
            drawn.append(Drawn(key, one_line(title, TITLE_LENGTH) + where, caption, figure))

    for protocol in _first(_family(record.protocol) for record in records):
        sources = dict.fromkeys(row.citation for _, row in _size_rows(protocol, published))
        caption = " ".join(
            ["Score over the size of the backbone."]
            + [f"Published: {source}." for source in sources]
        )
        figure = size_curve(protocol, records, published)
        add(f"size-{protocol}", _title(protocol), caption, figure)
    for task in _first(record.task for record in records):
        title = f"{data_title(task)}: partial fine-tuning"
        add(f"partial-{task}", title, PARTIAL_CAPTION, partial_curve(task, records, published))
    figure = masking_curve(records, published)
    guess = _guessed(records)
    add("masking-ratio", "Masking ratio of the pre-training", MASKING + guess, figure)
    figure = schedule_curve(records, published)
    add("schedule", "Length of the pre-training", SCHEDULE + guess, figure)
    for protocol in _first(family_of(log.protocol) for log in logs):
        same = [log for log in logs if family_of(log.protocol) == protocol]
        lost = [f"{log.name} ({log.damaged})" for log in same if log.damaged]
        damage = f" Damaged lines of logs are left out: {', '.join(lost)}." if lost else ""
        caption = TRAINING + one_line(damage, CAPTION_LENGTH)
        add(f"training-{protocol.lower()}", _title(protocol), caption, training_curves(same))
    return drawn


def _guessed(records: Iterable[Record]) -> str:
    """What a caption says of runs whose pre-training is known by its recipe alone."""
    files = [record.checkpoint for record in records]
    count = sum(bool(file and file.recipe_hash and not file.is_traced) for file in files)
    return (
        f" The pre-training data of {count} run{'s' if count > 1 else ''} is not recorded and"
        " taken for that of the pre-training by the same recipe."
        if count
        else ""
    )


def _first(names: Iterable[str]) -> list[str]:
    """Each name once, and no more than a report has room for."""
    return list(dict.fromkeys(names))[:MAX_FIGURES]


def _where(runs: Iterable[Record | Log]) -> str:
    """What to add to a title. Raises ResultsError for a mixture that no figure may show."""
    miniature = {run.data.miniature if isinstance(run, Record) else run.miniature for run in runs}
    if len(miniature) > 1:
        raise ResultsError("runs on miniature data and others never share a figure")
    return ", miniature world" if miniature == {True} else ""


KEY = (
    "Filled markers and solid lines are ours, hollow markers and dashed lines are published;"
    " half-filled markers on dotted lines are ours but not comparable: shortened, changed or on"
    " other data, as the tables say. Bars: ± sample standard deviation over seeds."
)
"""how to read all figures but the training curves"""
PARTIAL_CAPTION = (
    "Score over the number of transformer blocks that train (square-root axis); 0.5 is the MLP of"
    " the last block. Published: MAE paper, Figure 9 and Section 4.3."
)
MASKING = (
    "Score over the share of patches that pre-training removes; pixels not normalised unless said."
    " Published: MAE paper, Figure 5."
)
SCHEDULE = (
    "Score over the epochs of pre-training, each point a whole schedule; pixels not normalised"
    " unless said. Published: MAE paper, Figure 7."
)
TRAINING = (
    "Training loss of each optimiser step (pale) and its running mean over a twenty-fifth of the"
    " run. Losses compare within one protocol only."
)


def masking_curve(records: Sequence[Record], published: Sequence[Published]) -> Figure | None:
    """Transfer scores over the pre-training's masking ratio, beside MAE's Figure 5.

    `records` are all of the miniature world, which then has no `published`, or none; they hold
    the pre-training runs too, which the checkpoints name by their recipes.
    """
    panels = _pretraining_panels(
        records, published, "mask_ratio", 100.0, "Figure 5", r"masking random (\d+)%"
    )
    return draw_panels(panels, "masking ratio (%)", linear_axis)


def schedule_curve(records: Sequence[Record], published: Sequence[Published]) -> Figure | None:
    """Transfer scores over the epochs of pre-training, beside MAE's Figure 7.

    `records` as for `masking_curve`.
    """
    panels = _pretraining_panels(
        records, published, "epochs", 1.0, "Figure 7", r"pre-train (\d+) ep"
    )
    return draw_panels(panels, "pre-training epochs", log_axis)


def partial_curve(
    task: str, records: Sequence[Record], published: Sequence[Published]
) -> Figure | None:
    """Scores of `task` over the number of blocks that train, beside MAE's Figure 9."""
    same = [r for r in records if r.task == task and _blocks(r.protocol) is not None]
    ours = []
    versions = {ProtocolId.read(r.protocol).version for r in same}
    for group in _grouped(
        configurations(same),
        lambda c: repr((c.first.backbone, c.origin, ProtocolId.read(c.first.protocol).version)),
    ):
        first = group[0].first
        points = [_point(c, _blocks(c.first.protocol), "top1") for c in group]
        label = f"{method_title(first.init)}, {size_title(first.backbone)}"
        if len(versions) > 1:
            label += f", protocol version {ProtocolId.read(first.protocol).version}"
        ours.append((first, _our_line(first, label, points)))
    lines = _told_apart(ours)
    theirs = [row for row in published if row.task == task and row.source == "mae2021"]
    there = [row for row in theirs if row.locator in ("Figure 9", "Section 4.3 text")]
    lines += _published_lines(
        (
            row.method,
            f"{method_title(row.method)}, {size_title(row.backbone)}",
            Point(blocks, row.value),
        )
        for row in there
        if (blocks := _blocks(f"{task}/{row.protocol}@1")) is not None and row.metric == "top1"
    )
    panel = Panel(f"{data_title(task)}: partial fine-tuning{_where(same)}", "top1", tuple(lines))
    return draw_panels([panel], "blocks that train", root_axis)


def size_curve(
    protocol: str, records: Sequence[Record], published: Sequence[Published]
) -> Figure | None:
    """Scores of `protocol` over the backbone's size, beside the published ones of its table.

    Training from scratch is drawn with the fine-tuning of its task.
    """
    protocols = _with_scratch(protocol)
    same = [r for r in records if r.protocol in protocols and r.backbone in SIZES]
    metric = _metric(same)
    if metric is None or _blocks(protocol) is not None:
        return None
    origins, ours = Pretrainings(records), []
    for group in _grouped(configurations(same), lambda c: _origin(c.first, origins)):
        first, origin = group[0].first, origins.only(group[0].first)
        like = origin is None or not origin.deviations
        points = [_point(c, SIZES.index(c.first.backbone), metric) for c in group]
        label = method_title(first.init)
        ours += [(first, _our_line(first, label, line, like)) for line in _rows(points)]
    theirs = _published_lines(
        (row.method, method_title(row.method), Point(SIZES.index(size), row.value))
        for size, row in _size_rows(protocol, published)
        if row.metric == metric
    )
    lines, title = [*_curves(_told_apart(ours)), *theirs], _title(protocol) + _where(same)
    return draw_panels([Panel(title, metric, tuple(lines))], "backbone", size_axis)


def training_curves(logs: Sequence[Log]) -> Figure | None:
    """Loss over epochs of at most MAX_CURVES runs of one protocol, the last given.

    Those of one partial fine-tuning curve count as one.
    """
    logs = [log for log in logs if len(log.losses) > 1][-MAX_CURVES:]
    if not logs:
        return None
    title = one_line(_title(family_of(logs[0].protocol)), TITLE_LENGTH)
    return draw_losses(logs, title + _where(logs))


def _family(protocol: str) -> str:
    parts = ProtocolId.read(protocol)
    return str(replace(parts, name="finetune") if parts.name == "scratch" else parts)


def _title(protocol: str) -> str:
    data, what = data_title(task_of(protocol)), protocol_title(protocol)
    return f"{data}: {what}" if data else what.capitalize()


def _blocks(protocol: str) -> float | None:
    """Number of blocks that train in a partial fine-tuning."""
    blocks = trained_blocks(protocol)
    return None if blocks is None else min(float(blocks), MAX_BLOCKS)


def _metric(records: Iterable[Record]) -> str | None:
    """The first score, as tables show them, that any run has."""
    present = {name for record in records for name in record.metrics}
    return next(iter(shown(present)), None)


def _as_the_protocol(record: Record) -> bool:
    """Whether a run follows its protocol: on official data, or with others of the miniature."""
    whole = record.complete and not record.deviations
    return whole and (record.data.standard or record.data.miniature)


def _point(c: Configuration, x: float | None, metric: str) -> Point | None:
    cell = c.cell(metric, 2)
    if x is None or not isinstance(cell.value, float):
        return None
    return Point(float(x), cell.value, cell.std)


def _our_line(
    record: Record, label: str, points: Iterable[Point | None], like: bool = True
) -> Line:
    owner: Owner = "ours" if like and _as_the_protocol(record) else "marked"
    there = sorted((p for p in points if p is not None), key=lambda point: point.x)
    return Line(record.init, label, owner, tuple(there))


def _told_apart(ours: Sequence[tuple[Record, Line]]) -> list[Line]:
    """Lines of one name get that of their pre-training data too, or the beginning of the file's
    digest, where they differ in it."""
    lines = [line for _, line in ours]
    for told in (_pretraining_data, _digest):
        alike: dict[str, set[str]] = defaultdict(set)
        for (record, _), line in zip(ours, lines, strict=True):
            alike[line.label].add(told(record))
        lines = [
            replace(line, label=one_line(f"{line.label}{told(record)}", LABEL_LENGTH))
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


def _published_lines(rows: Iterable[tuple[str, str, Point]]) -> list[Line]:
    """One line for each method and label, in the order of the rows."""
    found: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for method, label, point in rows:
        found[method, label].append(point)
    return [
        Line(method, label, "published", tuple(sorted(points, key=lambda point: point.x)))
        for (method, label), points in found.items()
    ]


def _grouped(
    found: Iterable[Configuration], apart: Callable[[Configuration], str]
) -> list[list[Configuration]]:
    """Configurations that one line may join: alike in all but the axis, and in `apart`.

    Recipes are not compared: a protocol fixes them for each point of the axis, and what a run
    changes is among its deviations, which are.
    """
    groups: dict[tuple, list[Configuration]] = defaultdict(list)
    for c in found:
        r = c.first
        key = (r.init, r.data.fingerprint, r.complete, tuple(sorted(r.deviations)), apart(c))
        groups[key].append(c)
    return list(groups.values())


def _origin(record: Record, origins: Pretrainings) -> str:
    """How the weights came about, in the same words for each size."""
    origin, file = origins.only(record), record.checkpoint
    data = file.data.fingerprint if file and file.data else ""
    recipe = origin.recipe if origin else {}
    return repr((data, sorted((k, v) for k, v in recipe.items() if k != "backbone")))


def _rows(points: Iterable[Point | None]) -> list[list[Point]]:
    """Points in as few rows as let no two of one row stand at the same x."""
    rows: list[dict[float, Point]] = []
    for point in points:
        if point is not None:
            row = next((row for row in rows if point.x not in row), None)
            if row is None:
                rows.append(row := {})
            row[point.x] = point
    return [list(row.values()) for row in rows]


def _curves(lines: Sequence[Line]) -> list[Line]:
    """Of each method the lines of several points; else the points that follow the protocol, else
    all: the points of another figure's axis would hide the curve, and stand in the tables."""
    kept = []
    for method in dict.fromkeys(line.method for line in lines):
        same = [line for line in lines if line.method == method]
        several = [line for line in same if len(line.points) > 1]
        kept += several or [line for line in same if line.owner == "ours"] or same
    return kept


def _with_scratch(protocol: str) -> list[str]:
    """A protocol, and for fine-tuning also the training from scratch."""
    parts = ProtocolId.read(protocol)
    return [protocol] + [str(replace(parts, name="scratch"))] * (parts.name == "finetune")


def _size_rows(protocol: str, published: Iterable[Published]) -> list[tuple[str, Published]]:
    """Size and published score, of the one place that the protocol's table names first."""
    pool, found = list(published), []
    for each in _with_scratch(protocol):
        rows = [(size, row) for size in SIZES for row in headline(each, size, pool)]
        found += [
            (size, row)
            for size, row in rows
            if (row.source, row.locator) == (rows[0][1].source, rows[0][1].locator)
        ]
    return found


def _pretraining_panels(
    records: Sequence[Record],
    published: Sequence[Published],
    axis: str,
    scale: float,
    locator: str,
    pattern: str,
) -> list[Panel]:
    """A panel per protocol: scores over a field of the recipe of the pre-training."""
    origins, theirs = Pretrainings(records), "" if axis == "epochs" else ", 800 ep"
    transfers = [r for r in records if r.kind == "transfer" and origins.only(r) is not None]
    panels = []
    for protocol in sorted({r.protocol for r in transfers}):
        same = [r for r in transfers if r.protocol == protocol]
        metric = _metric(same)
        if metric is None:
            continue
        groups: dict[str, list[tuple[Configuration, Record]]] = defaultdict(list)
        for c in configurations(same):
            origin = origins.only(c.first)
            assert origin is not None
            groups[_all_but(axis, c.first, origin)].append((c, origin))
        ours = []
        for group in groups.values():
            first, origin = group[0][0].first, group[0][1]
            points = [
                _point(c, scale * value, metric)
                for c, o in group
                if isinstance(value := o.recipe.get(axis), int | float)
            ]
            told = all(_tells(axis, o) for _, o in group)
            like = told and (origin.data.standard or origin.data.miniature)
            label = _pretraining_label(axis, origin)
            ours.append((first, _our_line(first, label, points, like)))
        rows = [
            (row.method, f"{size_title(row.backbone)}{theirs}", Point(float(found[1]), row.value))
            for row in published
            if (row.source, row.locator, row.metric) == ("mae2021", locator, metric)
            and f"{row.task}/{row.protocol}@1" == protocol
            and (found := re.search(pattern, row.note))
        ]
        lines = [*_curves(_told_apart(ours)), *_published_lines(rows)]
        panels.append(Panel(_title(protocol) + _where(same), metric, tuple(lines)))
    return panels


def _tells(axis: str, origin: Record) -> bool:
    """Whether the axis and the names of the lines tell all that a pre-training did otherwise."""
    return not origin.other_deviations and {e.field for e in origin.changed} <= TOLD[axis]


def _all_but(axis: str, record: Record, origin: Record) -> str:
    """What the points of one line share."""
    rest = {key: value for key, value in origin.recipe.items() if key != axis}
    mine = (record.init, record.recipe_hash, record.data.fingerprint, record.complete)
    before = made(origin)[1:]  # without the recipe, which is told apart from its axis
    return repr((mine, sorted(record.deviations), before, sorted(rest.items())))


def _pretraining_label(axis: str, origin: Record) -> str:
    parts = [size_title(origin.backbone)]
    if axis != "epochs" and isinstance(origin.recipe.get("epochs"), int):
        parts.append(f"{origin.recipe['epochs']} ep")
    if origin.recipe.get("norm_pix"):
        parts.append("norm. pixels")
    return one_line(", ".join(parts), LABEL_LENGTH)
