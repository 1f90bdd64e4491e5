"""How figures are drawn: ours filled and solid, published hollow and dashed.

Keeps no state of pyplot.
"""

import itertools
import math
import textwrap
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from results.configuration import SIZES
from results.labels import metric_title, plain
from results.line_names import name_ends
from results.logs import Log
from results.text import middle_cut, one_line

Owner = Literal["ours", "marked", "published"]
Format = Literal["svg", "png", "pdf"]
INK, MUTED, RULE, PAPER = "#1f2328", "#59636e", "#d8dee4", "#ffffff"
STYLES = {
    "mae": ("#0a66b7", "o"),
    "beit": ("#a2408f", "D"),
    "mocov3": ("#00795a", "^"),
    "dino": ("#b05c00", "v"),
    "supervised": ("#66707b", "s"),
    "scratch": ("#7d4b32", "P"),
}
"""Method -> colour and marker, each method the same in all figures. The colours keep apart for the
common kinds of colour blindness (after Okabe and Ito), and their lightness for a printer."""
OTHERS = (("#c0392b", "X"), ("#3d348b", "h"), ("#0f8b8d", "p"), ("#7a7200", "*"))
METHODS = {"mae": "MAE", "beit": "BEiT", "mocov3": "MoCo v3", "dino": "DINO"}
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.parse_math": False,  # a dollar in a user's text opens no formula
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "mae-bench",
    "pdf.fonttype": 42,
}
WIDTH, PANEL_HEIGHT = 5.8, 3.3
LEFT, RIGHT, BOTTOM, TOP, TITLE = 0.62, 0.08, 0.5, 0.56, 0.34
"""around a panel and the names of its lines; above it a title with a key, or a title; in inches"""
EDGE = 0.04
"""around a text that reaches over the edge of a figure; in inches"""
LABEL_GAP, LETTER = 0.24, 0.071
"""from a panel to the names, and about what a letter of them takes; in inches"""
LABEL_LENGTH = 34
TITLE_LENGTH, TITLE_LINES, TITLE_LINE = 60, 4, 0.17
"""letters of a line of a title, how many lines it may have, and how high each is in inches"""
MAX_LINES = 12
"""of ours in one panel; more could not be told apart"""
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))


@dataclass(frozen=True)
class Point:
    """A score; `spread` is the sample standard deviation over seeds, if there are several."""

    x: float
    y: float
    spread: float | None = None


@dataclass(frozen=True)
class Line:
    """Points of one method. `label` is what to call it besides whose it is."""

    method: str
    label: str
    owner: Owner
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Panel:
    """Lines over one pair of axes."""

    title: str
    metric: str
    lines: tuple[Line, ...]
    x_title: str = ""
    """of its own, where the figure's is not that of all panels"""

    @property
    def drawable(self) -> bool:
        """A measured point, and something to compare it with along the axis."""
        xs = {point.x for line in self.lines for point in line.points}
        ours = any(line.owner != "published" and line.points for line in self.lines)
        return ours and len(xs) > 1


def draw_panels(
    panels: Iterable[Panel], x_title: str, arrange: Callable[[Axes, list[float]], None]
) -> Figure | None:
    """The panels that have something to show, one below the other; None if none has."""
    panels = [panel for panel in panels if panel.drawable]
    if not panels:
        return None
    rows, more = len(panels), max(_further_lines(panel.title) for panel in panels)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, (PANEL_HEIGHT + more) * rows))
        names = [_name(line) for panel in panels for line in panel.lines]
        for number, panel in enumerate(panels, start=1):
            _draw(_add_axes(figure, rows - number, names, TOP, more), panel, x_title, arrange)
    return figure


def draw_losses(logs: Sequence[Log], title: str) -> Figure:
    """Loss over epochs, raw behind and smoothed before: one run at least.

    A point of the smoothed curve is the mean over the 25th part of the run around it.
    """
    with matplotlib.rc_context(RC):
        more = _further_lines(title)
        figure = Figure(figsize=(WIDTH, PANEL_HEIGHT + more))
        names = told_in_short([log.name for log in logs])
        axes = _add_axes(figure, 0, names, TITLE, more)
        ends = []
        colours = [colour for colour, _ in (*STYLES.values(), *OTHERS)]
        for number, log in enumerate(logs):
            colour, losses = colours[number % len(colours)], np.asarray(log.losses)
            smooth = running_mean(losses, max(1, len(losses) // 25))
            axes.plot(log.epochs, losses, color=colour, alpha=0.22, linewidth=0.6, gid="raw")
            dash = DASHES[number % len(DASHES)]
            axes.plot(log.epochs, smooth, color=colour, linewidth=1.6, linestyle=dash)
            end = (log.epochs[-1], float(smooth[-1]))
            ends.append((end, names[number], colour, "normal"))
        smoothed = np.concatenate([line.get_ydata() for line in axes.lines[1::2]])
        raw = np.concatenate([line.get_ydata() for line in axes.lines[::2]])
        low, high = np.quantile(raw, (0.001, 0.995))
        _limits(axes, min(low, smoothed.min()), max(high, smoothed.max()))
        axes.margins(x=0)
        axes.set_xlabel("epoch")
        axes.set_ylabel("training loss")
        axes.set_title(_in_lines(title))
        name_ends(axes, ends)
    return figure


def told_in_short(names: Sequence[str]) -> list[str]:
    """Names of runs as labels; long ones without the words that all begin with."""
    if max(map(len, names)) > LABEL_LENGTH and len(set(names)) > 1:
        words = [name.split("-") for name in names]
        same = itertools.takewhile(lambda each: len(set(each)) == 1, zip(*words, strict=False))
        start = min(len(list(same)), min(map(len, words)) - 1)
        names = ["-".join(["…"] * bool(start) + each[start:]) for each in words]
    return [middle_cut(name, LABEL_LENGTH) for name in names]


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Mean over `width` values around each one of (N,); fewer at the ends."""
    ones = np.ones(min(width, len(values)))
    counts = np.convolve(np.ones(len(values)), ones, mode="same")
    return np.convolve(values, ones, mode="same") / counts


def save(figure: Figure, kind: Format) -> bytes:
    """The bytes of a figure's file: the same for the same figure.

    It is as large as the figure, or larger where a text would otherwise be cut by the edge.
    """
    stream = BytesIO()
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    with matplotlib.rc_context(RC), warnings.catch_warnings():
        # The name of a run may be in a script that the font lacks; boxes are shown for it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.draw_without_rendering()
        inside = figure.get_tightbbox().padded(EDGE)
        whole = Bbox.union([figure.bbox_inches, inside])
        figure.savefig(stream, format=kind, metadata=metadata[kind], bbox_inches=whole)
    return stream.getvalue()


def method_title(method: str) -> str:
    """As papers write it: "MoCo v3" for moco_v3; unknown names stay as they are."""
    return METHODS.get(plain(method), one_line(method, LABEL_LENGTH))


def size_title(backbone: str) -> str:
    """ViT-B for vit_b; unknown names stay as they are."""
    if backbone in SIZES:
        return f"ViT-{backbone.removeprefix('vit_').capitalize()}"
    return one_line(backbone, 20)


def _in_lines(title: str) -> str:
    """A title in as many lines as it takes."""
    lines = textwrap.wrap(
        middle_cut(title, TITLE_LINES * TITLE_LENGTH),
        TITLE_LENGTH,
        max_lines=TITLE_LINES,
        placeholder="…",
    )
    return "\n".join(lines)


def _further_lines(title: str) -> float:
    """What the lines of a title take besides the first, in inches."""
    return TITLE_LINE * _in_lines(title).count("\n")


def _add_axes(figure: Figure, row: int, names: Iterable[str], top: float, more: float) -> Axes:
    """Axes of one panel, counted from below, with room for names at the right.

    `more`: inches that each panel is higher, for the lines of titles.
    """
    longest = max((min(len(name), LABEL_LENGTH) for name in names), default=0)
    width = WIDTH - LEFT - RIGHT - LABEL_GAP - LETTER * longest
    height = figure.get_figheight()
    return figure.add_axes(
        (
            LEFT / WIDTH,
            ((PANEL_HEIGHT + more) * row + BOTTOM) / height,
            width / WIDTH,
            (PANEL_HEIGHT - BOTTOM - top) / height,
        )
    )


def _draw(
    axes: Axes, panel: Panel, x_title: str, arrange: Callable[[Axes, list[float]], None]
) -> None:
    ours = [line for line in panel.lines if line.owner != "published" and line.points]
    ours.sort(key=lambda line: line.owner == "marked")
    theirs = [line for line in panel.lines if line.owner == "published" and line.points]
    lines = [*theirs, *ours[:MAX_LINES]]
    styles = _styles([line.method for line in lines])
    ends = []
    for line in lines:
        colour, _ = styles[plain(line.method)]
        _plot(axes, line, *styles[plain(line.method)])
        end = (line.points[-1].x, line.points[-1].y)
        weight = "normal" if line.owner == "published" else "bold"
        ends.append((end, _name(line), colour, weight))
    lows = [p.y - (p.spread or 0) for line in lines for p in line.points]
    highs = [p.y + (p.spread or 0) for line in lines for p in line.points]
    _limits(axes, min(lows), max(highs))
    _keep_to_percent(axes, [p.y for line in lines for p in line.points])
    arrange(axes, sorted({point.x for line in lines for point in line.points}))
    title, unit = metric_title(panel.metric)
    axes.set_title(_in_lines(panel.title), pad=22)
    more = len(ours) - MAX_LINES
    x_title = panel.x_title or x_title
    axes.set_xlabel(f"{x_title} ({more} more lines of ours left out)" if more > 0 else x_title)
    axes.set_ylabel(f"{title} ({unit})" if unit else title)
    _key(axes, {line.owner for line in lines})
    name_ends(axes, ends)


def _plot(axes: Axes, line: Line, colour: str, marker: str) -> None:
    spreads = [math.nan if p.spread is None else p.spread for p in line.points]
    axes.errorbar(
        [point.x for point in line.points],
        [point.y for point in line.points],
        yerr=None if all(map(math.isnan, spreads)) else spreads,
        **_look(line.owner, colour, marker),
        elinewidth=1.2,
        capsize=3,
        zorder=2 if line.owner == "published" else 3,
        clip_on=False,  # a marker at 0 is a whole one
        label=_name(line),
    )


def _look(owner: Owner, colour: str, marker: str) -> dict[str, Any]:
    """Who measured shows in the filling of the markers and in the dashes."""
    dashes = {"ours": "-", "marked": (0, (1, 1.5)), "published": (0, (4, 2))}
    return {
        "color": colour,
        "linestyle": dashes[owner],
        "linewidth": 1.1 if owner == "published" else 1.8,
        "marker": marker,
        "markersize": 5.5 if owner == "published" else 6.5,
        "markerfacecolor": PAPER if owner == "published" else colour,
        "markerfacecoloralt": PAPER,
        "fillstyle": "bottom" if owner == "marked" else "full",
        "markeredgecolor": colour,
        "markeredgewidth": 1.1,
    }


def _name(line: Line) -> str:
    return f"{line.label} · {'published' if line.owner == 'published' else 'ours'}"


def _styles(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method; those without their own take the next of OTHERS."""
    others = [method for method in dict.fromkeys(map(plain, methods)) if method not in STYLES]
    return STYLES | dict(zip(others, itertools.cycle(OTHERS), strict=False))


def _limits(axes: Axes, low: float, high: float) -> None:
    room = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low - room, high + room)


def _keep_to_percent(axes: Axes, scores: Sequence[float]) -> None:
    """End the axis at scores that none can pass, where all are parts of 100."""
    if min(scores) < 0 or max(scores) > 100:
        return
    low, high = max(axes.get_ylim()[0], 0.0), axes.get_ylim()[1]
    axes.set_ylim(low, high)
    if high > 100:  # room for the markers alone
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= 100])
        axes.spines["left"].set_bounds(low, 100)


def _key(axes: Axes, owners: set[Owner]) -> None:
    """Whose numbers are which, above the panel."""
    names: dict[Owner, str] = {
        "ours": "ours",
        "marked": "ours, not comparable",
        "published": "published",
    }
    handles = [
        Line2D([], [], **_look(owner, MUTED, "o"), label=name)
        for owner, name in names.items()
        if owner in owners
    ]
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=3,
        frameon=False,
        borderaxespad=0,
        borderpad=0.2,
        handlelength=3,
        columnspacing=1.4,
        labelcolor=MUTED,
        fontsize=8,
    )
