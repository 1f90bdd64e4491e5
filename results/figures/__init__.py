"""The figures of a report: which numbers stand in them.

Imports matplotlib, so that `import results` does not.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from results.drawing import draw_losses, save
from results.figures.cost import cost_curve
from results.figures.lines import place_of, title_of
from results.figures.pretraining import masking_curve, schedule_curve
from results.figures.protocols import partial_curve, size_curve, size_rows
from results.gains import finetuning_family
from results.labels import data_title, family_of, is_own
from results.logs import Log
from results.published import Published
from results.record import Record
from results.text import middle_cut, one_line

KEY_LENGTH = 100
NAME_LENGTH, CAPTION_LENGTH = 240, 500
"""most letters of a title and of what a caption adds"""
MAX_FIGURES = 40
"""of one kind"""
MAX_CURVES = 8
"""runs in one figure of training curves"""


@dataclass(frozen=True)
class Drawn:
    """A figure, named for a file and described for a reader."""

    key: str
    title: str
    caption: str
    figure: Figure
    of_training: bool = False
    """a curve of the loss, not a result"""

    @functools.cached_property
    def svg(self) -> bytes:
        """Drawn once for a file and a page."""
        return save(self.figure, "svg")


def figures(
    records: Sequence[Record], published: Sequence[Published], logs: Sequence[Log]
) -> list[Drawn]:
    """Every figure that has something to show; those of one's own data and of the miniature world
    after the others, and curves of training last."""
    drawn: list[Drawn] = []
    groups: dict[str, list[Record]] = {"": [], **_own(records), "miniature": []}
    for record in records:
        if not is_own(record):
            groups["miniature" if record.data.miniature else ""].append(record)
    for name, these in groups.items():
        there = [] if name.startswith("own-") else _of_world(logs, name == "miniature")
        drawn += _figures(name, these, [] if name else published, there)
    return sorted(drawn, key=lambda each: each.of_training)


def _own(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Runs on data of one's own, apart by these; never in one figure with published numbers."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if is_own(record):
            found[f"own-{record.data.fingerprint[:8]}"].append(record)
    return dict(list(found.items())[:MAX_FIGURES])


def _of_world(logs: Iterable[Log], miniature: bool) -> list[Log]:
    return [log for log in logs if log.miniature == miniature]


def _figures(
    group: str, records: Sequence[Record], published: Sequence[Published], logs: Sequence[Log]
) -> list[Drawn]:
    drawn = []
    where = place_of([*records, *logs])

    def add(
        key: str, title: str, caption: str, figure: Figure | None, of_training: bool = False
    ) -> None:
        if figure is not None:
            key = f"{group}-{key}" if group else key
            key = re.sub(r"[^a-z0-9_-]", "-", key.replace("@", "-v"))[:KEY_LENGTH]
            title = middle_cut(title + where, NAME_LENGTH)
            drawn.append(Drawn(key, title, caption, figure, of_training))

    for protocol in _first(finetuning_family(record.protocol) for record in records):
        sources = dict.fromkeys(row.citation for _, row in size_rows(protocol, published))
        caption = " ".join(
            ["Score over the size of the backbone."]
            + [f"Published: {source}." for source in sources]
        )
        figure = size_curve(protocol, records, published)
        add(f"size-{protocol}", title_of(protocol), caption, figure)
    for protocol in _first(finetuning_family(record.protocol) for record in records):
        figure, measured = cost_curve(protocol, records)
        add(f"cost-{protocol}", f"{title_of(protocol)}, against cost", COST + measured, figure)
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
        add(
            f"training-{protocol.lower()}", title_of(protocol), caption, training_curves(same), True
        )
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
COST = "Score over what a run and its backbone cost; both axes of our own runs."
SCHEDULE = (
    "Score over the epochs of pre-training, each point a whole schedule; pixels not normalised"
    " unless said. Published: MAE paper, Figure 7."
)
TRAINING = (
    "Training loss of each optimiser step (pale) and its running mean over a twenty-fifth of the"
    " run. Losses compare within one protocol only."
)


def training_curves(logs: Sequence[Log]) -> Figure | None:
    """Loss over epochs of at most MAX_CURVES runs of one protocol, the last given.

    Those of one partial fine-tuning curve count as one.
    """
    logs = [log for log in logs if len(log.losses) > 1][-MAX_CURVES:]
    if not logs:
        return None
    return draw_losses(logs, title_of(family_of(logs[0].protocol)) + place_of(logs))
