"""The names of lines beside a panel, each near its line and none over another."""

from collections.abc import Sequence

from matplotlib.axes import Axes

NAME_HEIGHT = 11.5
"""points between the names of two lines"""
LOWEST_NAME = 0.02
"""of a panel's height; the axis has its numbers below"""


def name_ends(axes: Axes, ends: Sequence[tuple[tuple[float, float], str, str, str]]) -> None:
    """Names at the right of a panel, each as near to its line's last point as there is room.

    `ends` holds that point, name, colour and weight.
    """
    low, high = axes.get_ylim()
    figure = axes.get_figure(root=True)
    assert figure is not None
    step = NAME_HEIGHT / (axes.get_position().height * figure.get_figheight() * 72)
    width = axes.get_position().width * figure.get_figwidth()
    ends = sorted(ends, key=lambda end: end[0][1])
    wanted = [(y - low) / (high - low) for (_, y), *_ in ends]
    for place, (point, name, colour, weight) in zip(apart(wanted, step), ends, strict=True):
        axes.annotate(
            name,
            point,
            (1 + 0.2 / width, place),
            textcoords="axes fraction",
            color=colour,
            weight=weight,
            fontsize=8,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.6,
                "alpha": 0.6,
                "shrinkA": 1,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
        )


def apart(wanted: Sequence[float], step: float) -> list[float]:
    """Places in rising order, at least `step` apart, as near to the wanted ones as that allows.

    Names that touch move together, to the middle of what they want.
    """
    groups: list[list[float]] = []
    for place in wanted:
        groups.append([place])
        while len(groups) > 1 and _low(groups[-1], step) < _high(groups[-2], step) + step:
            last = groups.pop()
            groups[-1] += last
    places = [_low(group, step) + i * step for group in groups for i in range(len(group))]
    return [max(place, LOWEST_NAME + i * step) for i, place in enumerate(places)]


def _low(group: list[float], step: float) -> float:
    return sum(group) / len(group) - (len(group) - 1) * step / 2


def _high(group: list[float], step: float) -> float:
    return _low(group, step) + (len(group) - 1) * step
