"""Figures of the pre-training: scores over its masking ratio, and over its epochs."""

import re
from collections import defaultdict
from collections.abc import Sequence

from matplotlib.figure import Figure

from results.axes import linear_axis, log_axis
from results.configuration import Configuration, configurations
from results.drawing import LABEL_LENGTH, Panel, Point, draw_panels, method_title, size_title
from results.figures.lines import (
    headline_metric,
    joined,
    our_line,
    place_of,
    point_of,
    published_lines,
    title_of,
    told_apart,
)
from results.origins import Pretrainings, changed_settings, following, made, method_of
from results.published import Published
from results.record import Record
from results.text import middle_cut

TOLD = {
    "mask_ratio": {"mask_ratio", "epochs", "norm_pix"},
    "epochs": {"epochs", "norm_pix"},
}
"""Axis -> changed fields of the pre-training recipe that it or the names of the lines tell."""


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
        metric = headline_metric(same)
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
                point_of(c, scale * value, metric)
                for c, o in group
                if isinstance(value := o.recipe.get(axis), int | float)
            ]
            told = all(_tells(axis, o) for _, o in group)
            like = told and (origin.data.standard or origin.data.miniature)
            label = _pretraining_label(axis, origin)
            ours.append((first, our_line(first, label, points, like)))
        rows = [
            (row.method, f"{size_title(row.backbone)}{theirs}", Point(float(found[1]), row.value))
            for row in published
            if (row.source, row.locator, row.metric) == ("mae2021", locator, metric)
            and f"{row.task}/{row.protocol}@1" == protocol
            and (found := re.search(pattern, row.note))
        ]
        lines = [*joined(told_apart(ours)), *published_lines(rows)]
        panels.append(Panel(title_of(protocol) + place_of(same), metric, tuple(lines)))
    return panels


def _tells(axis: str, origin: Record) -> bool:
    """Whether the axis and the names of the lines tell all that a pre-training did otherwise."""
    changed = {each.field for each in origin.changed} - _with_epochs(axis, origin)
    return not origin.other_deviations and changed <= TOLD[axis]


def _with_epochs(axis: str, origin: Record) -> set[str]:
    """What an axis of epochs tells beside these: a warmup that is the same part of them."""
    return following(origin) & {"warmup_epochs"} if axis == "epochs" else set()


def _all_but(axis: str, record: Record, origin: Record) -> str:
    """What the points of one line share."""
    standard = {each.field: each.standard for each in origin.changed}
    same = {key: standard[key] for key in _with_epochs(axis, origin)}
    rest = {key: value for key, value in (origin.recipe | same).items() if key != axis}
    mine = (record.init, record.recipe_hash, record.data.fingerprint, record.complete)
    before = made(origin)[1:]  # without the recipe, which is told apart from its axis
    return repr((mine, sorted(record.deviations), before, sorted(rest.items())))


def _pretraining_label(axis: str, origin: Record) -> str:
    method = method_of(origin)
    parts = [method_title(method)] if method != "mae" else []
    parts.append(size_title(origin.backbone))
    if axis != "epochs" and isinstance(origin.recipe.get("epochs"), int):
        parts.append(f"{origin.recipe['epochs']} ep")
    if origin.recipe.get("norm_pix"):
        parts.append("norm. pixels")
    parts += changed_settings(origin, but={axis, "epochs", "norm_pix"})
    return middle_cut(", ".join(parts), LABEL_LENGTH)
