"""Figures of quality against what it costs: of our runs alone, for nobody publishes costs."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from matplotlib.figure import Figure

from results.axes import amount_axis
from results.cells import device_hours, device_names
from results.configuration import Configuration, configurations
from results.drawing import LABEL_LENGTH, Line, Panel, draw_panels
from results.figures.lines import headline_metric, our_label, our_line, place_of, point_of, title_of
from results.gains import finetuning_family
from results.labels import trained_blocks
from results.origins import Pretrainings, changed_settings
from results.record import Record
from results.text import one_line


@dataclass(frozen=True)
class Price:
    """Something that a run or its backbone costs."""

    title: str
    of: Callable[[Record], float | None]
    of_device: bool
    """measured: only runs on the same device compare"""


PRICES = (
    Price("training, device-hours", device_hours, True),
    Price("weights of the backbone, millions", lambda r: _scaled(r.cost.parameters, 1e6), False),
    Price("GFLOPs of an image, forward", lambda r: _scaled(r.cost.forward_flops, 1e9), False),
    Price("latency of an image, ms", lambda r: _scaled(r.cost.latency_seconds, 1e-3), True),
)
HOURS, *_, LATENCY = PRICES
SHORTER = ((60.0, "minutes"), (3600.0, "seconds"))
"""of an hour, for runs that take a small part of one"""
SAME = 1.01
"""times the smallest amount, up to which all count as the same and have no panel"""


def cost_curve(protocol: str, records: Sequence[Record]) -> tuple[Figure | None, str]:
    """Scores of `protocol`, and of training from scratch, over each price that is recorded, and
    what its caption is to say.

    Where several devices ran, prices that depend on it are those of the one that ran most often.
    """
    same = [
        r
        for r in records
        if finetuning_family(r.protocol) == protocol and trained_blocks(protocol) is None
    ]
    metric = headline_metric(same)
    if metric is None:
        return None, ""
    used = Counter(" and ".join(device_names([r])) for r in same)
    device, _ = used.most_common(1)[0]
    panels: list[Panel] = []
    origins = Pretrainings(records)
    for price in PRICES:
        if price == LATENCY and _one_network(same):
            continue  # then its differences are noise of the clock
        found = [
            c
            for c in configurations(same)
            if not price.of_device or device_names(c.records) == [device]
        ]
        price = _in_its_unit(price, found)
        title = f"{title_of(protocol)}{place_of(same)}"
        panel = Panel(title, metric, tuple(_lines(found, price, metric, origins)), price.title)
        if panel.drawable and _differ(p.x for line in panel.lines for p in line.points):
            # one below the other, under one title
            panels.append(replace(panel, title="" if panels else title))
    others = len(same) - used[device]
    caption = f"Times on {one_line(device, LABEL_LENGTH)}"
    caption += f"; without {others} on other devices" if others else ""
    return draw_panels(panels, "", amount_axis), f" {caption}."


def _one_network(records: Sequence[Record]) -> bool:
    """Whether all latencies are in effect of one network."""
    costs = [(r.cost.parameters, r.cost.forward_flops) for r in records]
    known = [[value for value in values if value] for values in zip(*costs, strict=True)]
    return len({r.backbone for r in records}) == 1 and not any(map(_differ, known))


def _differ(amounts: Iterable[float]) -> bool:
    """Whether some amounts above zero are not all the same, but for hundredths."""
    there = list(amounts)
    return bool(there) and max(there) > SAME * min(there)


def _in_its_unit(price: Price, found: Sequence[Configuration]) -> Price:
    """Hours as minutes or seconds, where no run takes as many as one."""
    if price != HOURS:
        return price
    most = max((value for c in found if (value := _mean(c, price)) is not None), default=0.0)
    if most >= 1 or not most:
        return price
    parts, name = next((each for each in SHORTER if most * each[0] >= 1), SHORTER[-1])
    title = price.title.replace("hours", name)
    return replace(price, title=title, of=lambda r: _scaled(device_hours(r), 1 / parts))


def _lines(
    found: Sequence[Configuration], price: Price, metric: str, before: Pretrainings
) -> list[Line]:
    """A line for each method and what its pre-training changed, over its backbones, and another
    for what a backbone did again."""
    groups: dict[tuple[str, str, bool, int], list[Configuration]] = defaultdict(list)
    times: Counter[tuple[str, str, bool, str]] = Counter()
    # Where there are too many lines, those of the protocols as they are stay.
    for c in sorted(found, key=lambda c: len(changed_settings(c.first, before))):
        label = our_label(c.first, before)
        this = c.first.init, label, c.first.comparable, c.first.backbone
        groups[*this[:3], times[this]].append(c)
        times[this] += 1
    lines = []
    for (_, label, *_), group in groups.items():
        points = [point_of(c, _mean(c, price), metric) for c in group]
        lines.append(our_line(group[0].first, label, points))
    return lines


def _mean(c: Configuration, price: Price) -> float | None:
    values = [value for value in map(price.of, c.records) if value is not None and value < MOST]
    mean = sum(values) / len(values) if values else 0.0
    return mean or None


MOST = 1e12
"""nothing costs more; a stranger's record may hold anything"""


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit
