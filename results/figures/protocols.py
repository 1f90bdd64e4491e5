"""Figures of a protocol: scores over the size of the backbone, and over the trained blocks."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from results.axes import root_axis, size_axis
from results.configuration import SIZES, Configuration, configurations
from results.drawing import Panel, Point, draw_panels, method_title, size_title
from results.figures.lines import (
    blocks_of,
    headline_metric,
    in_rows,
    joined,
    our_label,
    our_line,
    place_of,
    point_of,
    published_lines,
    title_of,
    told_apart,
)
from results.labels import data_title
from results.origins import Pretrainings
from results.protocol import ProtocolId
from results.published import Published, headline
from results.record import Record


def partial_curve(
    task: str, records: Sequence[Record], published: Sequence[Published]
) -> Figure | None:
    """Scores of `task` over the number of blocks that train, beside MAE's Figure 9."""
    same = [r for r in records if r.task == task and blocks_of(r.protocol) is not None]
    origins, ours = Pretrainings(records), []
    versions = {ProtocolId.read(r.protocol).version for r in same}
    for group in _grouped(
        configurations(same),
        lambda c: repr((c.first.backbone, c.origin, ProtocolId.read(c.first.protocol).version)),
    ):
        first = group[0].first
        points = [point_of(c, blocks_of(c.first.protocol), "top1") for c in group]
        more = [size_title(first.backbone)]
        if len(versions) > 1:
            more.append(f"protocol version {ProtocolId.read(first.protocol).version}")
        label = our_label(first, origins, *more)
        ours.append((first, our_line(first, label, points)))
    lines = told_apart(ours)
    theirs = [row for row in published if row.task == task and row.source == "mae2021"]
    there = [row for row in theirs if row.locator in ("Figure 9", "Section 4.3 text")]
    lines += published_lines(
        (
            row.method,
            f"{method_title(row.method)}, {size_title(row.backbone)}",
            Point(blocks, row.value),
        )
        for row in there
        if (blocks := blocks_of(f"{task}/{row.protocol}@1")) is not None and row.metric == "top1"
    )
    panel = Panel(f"{data_title(task)}: partial fine-tuning{place_of(same)}", "top1", tuple(lines))
    return draw_panels([panel], "blocks that train", root_axis)


def size_curve(
    protocol: str, records: Sequence[Record], published: Sequence[Published]
) -> Figure | None:
    """Scores of `protocol` over the backbone's size, beside the published ones of its table.

    Training from scratch is drawn with the fine-tuning of its task.
    """
    protocols = _with_scratch(protocol)
    same = [r for r in records if r.protocol in protocols and r.backbone in SIZES]
    metric = headline_metric(same)
    if metric is None or blocks_of(protocol) is not None:
        return None
    origins, ours = Pretrainings(records), []
    for group in _grouped(configurations(same), lambda c: _origin(c.first, origins)):
        first, origin = group[0].first, origins.only(group[0].first)
        like = origin is None or not origin.deviations
        points = [point_of(c, SIZES.index(c.first.backbone), metric) for c in group]
        label = our_label(first, origins)
        ours += [(first, our_line(first, label, line, like)) for line in in_rows(points)]
    theirs = published_lines(
        (row.method, method_title(row.method), Point(SIZES.index(size), row.value))
        for size, row in size_rows(protocol, published)
        if row.metric == metric
    )
    lines, title = [*joined(told_apart(ours)), *theirs], title_of(protocol) + place_of(same)
    return draw_panels([Panel(title, metric, tuple(lines))], "backbone", size_axis)


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


def _with_scratch(protocol: str) -> list[str]:
    """A protocol, and for fine-tuning also the training from scratch."""
    parts = ProtocolId.read(protocol)
    return [protocol] + [str(replace(parts, name="scratch"))] * (parts.name == "finetune")


def size_rows(protocol: str, published: Iterable[Published]) -> list[tuple[str, Published]]:
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
