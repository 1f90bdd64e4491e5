"""Horizontal axes of figures: each takes axes and the places of all points."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from results.configuration import SIZES
from results.drawing import size_title

WIDE = 5
"""times the smallest amount, from which on the axis is logarithmic"""


def linear_axis(axes: Axes, xs: list[float]) -> None:
    axes.set_xlim(0, 100)
    axes.xaxis.set_major_locator(FixedLocator(range(0, 101, 10)))


def log_axis(axes: Axes, xs: list[float]) -> None:
    axes.set_xscale("log", base=2)
    _ticks(axes, xs, [f"{x:g}" for x in xs])
    axes.set_xlim(xs[0] / 1.15, xs[-1] * 1.15)


def amount_axis(axes: Axes, xs: list[float]) -> None:
    """Amounts above zero, on a scale of factors where they differ by several."""
    if xs[-1] < WIDE * xs[0]:
        axes.margins(x=0.08)
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(xs[0] / 1.25, xs[-1] * 1.25)


def root_axis(axes: Axes, xs: list[float]) -> None:
    axes.set_xscale("function", functions=(_root, np.square))
    _ticks(axes, xs, [f"{x:g}" for x in xs])
    axes.set_xlim(-0.01, xs[-1] * 1.04)


def _root(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.sqrt(np.abs(values))


def size_axis(axes: Axes, xs: list[float]) -> None:
    _ticks(axes, xs, [size_title(SIZES[int(x)]) for x in xs])
    axes.set_xlim(xs[0] - 0.25, xs[-1] + 0.25)


def _ticks(axes: Axes, xs: list[float], names: list[str]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(xs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(xs, names)
