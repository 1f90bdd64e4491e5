"""The cells and notes that tables of measured beside published numbers are made of."""

import itertools
import math
import string
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from results.configuration import LARGEST, Configuration, mean_cell
from results.labels import is_own
from results.origins import Pretrainings
from results.published import Published
from results.record import Earlier, Environment, Named, Record, Tried
from results.table import Cell, Column, Note
from results.text import one_line

OURS = (
    "ours: measured by mae-bench; mean ± sample standard deviation over n runs that differ only in"
    " the seed (one run has no spread)."
)
THEIRS = "published: as printed by the source named below; not measured here."
DIFFERENCE = (
    "difference: ours − published, in points, to the number of the same method where that has the"
    " same protocol, else to the paper's MAE; only where our runs are complete, follow the whole"
    " protocol and use the official data."
)
INTERVALS = (
    "[low, high]: 95 % bootstrap interval over the test images of a single run; several seeds show"
    " their spread in its place."
)
BEST = (
    "bold: the best of its column among numbers that may be compared:"
    " complete runs of the whole protocol on the same data with the same backbone."
)
COSTS = (
    "cost: means over the runs. device-hours: seconds × processes / 3600, GPU-hours where the"
    " device is a GPU; images/s: of all processes together; peak memory: the largest of one"
    " process."
)
OTHER_RECIPE = "scored with a recipe that may differ from this protocol, so without a difference"
NAME_LENGTH = 80
"""characters of the name of a run"""
MOST_DATA_NOTES = 6
DATA_NOTE_LENGTH = 240
"""characters of each"""
WITHIN_NOISE = "≈"
NOISE = (
    "within noise of our seeds: the published number lies in the 95 % prediction interval of one"
    " further run, mean ± t · s · √(1 + 1/n), being one run itself; widened by half a unit of the"
    " last printed digit."
)
ONE_SEED = (
    "one seed (n=1): no spread over seeds is known, so nothing here says whether its difference is"
    " noise. The bootstrap interval over the test images is another thing: a published number was"
    " scored on the same images, and a repetition lies in it nearly always."
)

COST_COLUMNS = (
    Column("cost hours", "device-hours", "measured"),
    Column("cost speed", "images/s", "measured"),
    Column("cost memory", "peak memory", "measured", "GiB"),
)


@dataclass
class Notes:
    """Hands out marks: numbers for what others published, letters for what to know about ours."""

    about_published: dict[str, str] = field(default_factory=dict)
    about_ours: dict[str, str] = field(default_factory=dict)
    symbols: dict[str, str] = field(default_factory=dict)

    def published(self, text: str) -> str:
        return self.about_published.setdefault(text, str(len(self.about_published) + 1))

    def ours(self, text: str) -> str:
        return self.about_ours.setdefault(text, _letters(len(self.about_ours)))

    def symbol(self, mark: str, text: str) -> str:
        """A mark that means the same in every table."""
        return self.symbols.setdefault(text, mark)

    def listed(self, general: Iterable[str]) -> tuple[Note, ...]:
        marked = itertools.chain(
            self.symbols.items(), self.about_published.items(), self.about_ours.items()
        )
        return (*map(Note, general), *(Note(text, mark) for text, mark in marked))


def _letters(index: int) -> str:
    """a to z, then aa, ab, ..."""
    higher, lower = divmod(index, 26)
    return (_letters(higher - 1) if higher else "") + string.ascii_lowercase[lower]


class Entry(NamedTuple):
    """A cell on its way into a table, and which numbers of its column it competes with."""

    cell: Cell
    group: Hashable = None
    """those that share it; None: with no other"""


def with_best(columns: Sequence[Column], rows: Sequence[Sequence[Entry]]) -> list[tuple[Cell, ...]]:
    """The rows of a table; the best of those numbers that compete are marked, ties included."""
    best: dict[tuple[int, Hashable], float] = {}
    for (index, group), shown in _competing(columns, rows).items():
        if len(set(shown)) > 1:
            best[index, group] = (min if columns[index].better == "lower" else max)(shown)
    return [
        tuple(
            replace(cell, best=True)
            if (index, group) in best and _as_shown(cell) == best[index, group]
            else cell
            for index, (cell, group) in enumerate(row)
        )
        for row in rows
    ]


def _competing(
    columns: Sequence[Column], rows: Sequence[Sequence[Entry]]
) -> dict[tuple[int, Hashable], list[float]]:
    """The numbers of each column and group, rounded as they are shown."""
    found: dict[tuple[int, Hashable], list[float]] = defaultdict(list)
    for row in rows:
        for index, (cell, group) in enumerate(row):
            value = _as_shown(cell)
            if columns[index].better and group is not None and value is not None:
                found[index, group].append(value)
    return found


def _as_shown(cell: Cell) -> float | None:
    if cell.value is None or isinstance(cell.value, str):
        return None
    return round(cell.value, cell.decimals)


def any_best(rows: Iterable[Sequence[Cell]]) -> bool:
    return any(cell.best for row in rows for cell in row)


def measured_group(configuration: Configuration) -> Hashable:
    """What its scores compete within; None for runs that are no fair match for others."""
    this = configuration.first
    fair = this.complete and not this.deviations
    return (this.protocol, this.backbone, this.data.fingerprint) if fair else None


def published_cell(row: Published, notes: Notes, *about: str) -> Cell:
    """A published number; what is to be known about it becomes one note."""
    parts = [*about, "recalled, not confirmed in the source" * (row.status == "recalled")]
    said = "; ".join(part for part in parts if part)
    marks = (notes.published(f"{said}."),) if said else ()
    return Cell(row.value, min(row.decimals, 2), marks=marks, source=row.citation)


def pretraining(row: Published) -> str:
    """The weights that a published number started from."""
    data = row.pretrain_data.replace("IN1K", "ImageNet-1k")
    return "no pre-training" if data == "none" else f"{row.method} pre-trained on {data}"


def difference_cell(
    configuration: Configuration, metric: str, row: Published, notes: Notes
) -> Cell:
    """Our mean minus a published number, no finer than that was printed, marked within noise."""
    ours = configuration.cell(metric, 2).value
    if not isinstance(ours, float):
        return Cell()
    near = within_noise(configuration, metric, row)
    marks = (notes.symbol(WITHIN_NOISE, NOISE),) if near else ()
    runs = configuration.scored(metric)
    return Cell(ours - row.value, min(row.decimals, 2), marks=marks, runs=runs)


def within_noise(configuration: Configuration, metric: str, row: Published) -> bool:
    """Whether a published number may be one more run of ours: see NOISE. Never with one seed.

    The interval for one further observation of a normal variable is
    mean ± t(n - 1) s sqrt(1 + 1/n) (Hahn and Meeker, Statistical Intervals, 1991, section 4.7).
    """
    cell = configuration.cell(metric, 2)
    if cell.std is None or cell.n is None or not isinstance(cell.value, float):
        return False
    from scipy.special import stdtrit  # takes a moment to import

    half = float(stdtrit(cell.n - 1, 0.975)) * cell.std * math.sqrt(1 + 1 / cell.n)
    return abs(cell.value - row.value) <= half + 0.5 * 10.0**-row.decimals


def single_differences(rows: Iterable[Sequence[Cell]]) -> bool:
    """Whether a difference in a table is that of a single run."""
    cells = (cell for row in rows for cell in row)
    return any(cell.value is not None and not cell.n and len(cell.runs) == 1 for cell in cells)


class Identities:
    """Tells which rows of a table need a note to be told apart."""

    def __init__(self, found: Iterable[Configuration], before: Pretrainings | None = None) -> None:
        """`before`: our pre-trainings, where what they did otherwise is to be told too."""
        self.before = before or Pretrainings()
        firsts = [c.first for c in found]
        self.datasets = {record.data.fingerprint for record in firsts}
        self.recipes: dict[Hashable, set[str]] = defaultdict(set)
        for record in firsts:
            self.recipes[_looks(record)].add(record.recipe_hash)

    def marks(self, configuration: Configuration, notes: Notes) -> tuple[str, ...]:
        """The mark that names the checkpoint, the data where rows differ in it, and the recipe
        where nothing else tells two rows apart."""
        this = configuration.first
        parts = []
        files = {r.checkpoint.sha256: r.checkpoint for r in configuration.records if r.checkpoint}
        if len(files) == 1:
            (only,) = files.values()
            parts.append(f"weights {only.file}, sha256 {only.sha256[:12]}")
            if only.read_as:
                parts.append(f"read as {', '.join(only.read_as)}")
            if only.data is not None:
                seed = "" if only.seed is None else f", seed {only.seed}"
                parts.append(f"pre-trained on {named(only.data)}{seed}")
        elif files:
            one = next(iter(files.values()))
            images = f", on {named(one.data)}" if one.data else ""
            parts.append(
                f"{len(files)} weights, pre-trained with a seed each by recipe "
                f"{one.recipe_hash}{images}"
            )
        parts += self.pretrained_otherwise(this)
        if this.trained_on is not None:
            parts.append(f"trained on {named(this.trained_on)}")
        if len(self.datasets) > 1:
            parts.append(f"data {this.data.name}, fingerprint {this.data.fingerprint[:12]}")
        if len(self.recipes[_looks(this)]) > 1:
            parts.append(f"recipe {this.recipe_hash[:12]}")
        return (notes.ours("; ".join(parts) + "."),) if parts else ()

    def pretrained_otherwise(self, record: Record) -> list[str]:
        before = self.before.of(record)
        if before is None:
            return []
        reasons = [*before.deviations]
        if not before.data.standard and not record.data.miniature:
            reasons.append(f"data {before.data.name} ({before.data.train_images} images)")
        if not before.complete:
            reasons.append("incomplete")
        return [f"pre-trained otherwise than {before.protocol}: {', '.join(reasons)}"] * any(
            reasons
        )


def named(data: Named) -> str:
    """A data set so that nobody takes it for another of its name."""
    return f"{data.name}, fingerprint {data.fingerprint[:12]}"


def _looks(record: Record) -> Hashable:
    """What labels and notes tell about a row besides its recipe."""
    return (
        record.protocol,
        record.backbone,
        record.init,
        record.checkpoint,
        record.data,
        tuple(sorted(record.deviations)),
        record.complete,
    )


def caveats(configuration: Configuration, notes: Notes) -> tuple[str, ...]:
    """Marks that say why a number is not comparable, and what else a reader should know."""
    this, records = configuration.first, configuration.records
    reasons = list(this.deviations)
    if not this.complete:
        reasons.append("the run is incomplete")
    apart = this.data.miniature or is_own(this)  # from all that is published, as its table says
    if not this.data.standard and not apart:
        counts = f"{this.data.train_images} training and {this.data.val_images} validation images"
        reasons.append(f"data {this.data.name} ({counts}) is not the official set")
    verdict = "differs from the protocol" if apart else "not comparable"
    marks = [notes.ours(f"{verdict}: {'; '.join(reasons)}.")] if reasons else []
    assumed = this.checkpoint.assumed if this.checkpoint else ()
    if assumed:
        marks.append(notes.ours(f"of the weights it is assumed: {'; '.join(assumed)}."))
    skipped = sum(record.skipped_images for record in records)
    if skipped:
        lines = (line for record in records for line in record.unreadable)
        why = _some(lines, MOST_DATA_NOTES, DATA_NOTE_LENGTH, "; ")
        marks.append(notes.ours(f"unreadable images: {skipped}{f' ({why})' if why else ''}."))
    if this.data_notes and not this.data.standard and not this.data.miniature:
        told = _some(this.data_notes, MOST_DATA_NOTES, DATA_NOTE_LENGTH, "; ")
        marks.append(notes.ours(f"of data {this.data.name}: {told}."))
    if this.sweep is not None:
        marks.append(notes.ours(chosen_values(configuration)))
    if configuration.repeats:
        marks.append(notes.ours(repeated(configuration)))
    if configuration.untraced:
        marks.append(notes.ours(untraced(configuration)))
    if len({record.environment.commit for record in records}) > 1:
        marks.append(notes.ours("the seeds ran under different versions of mae-bench."))
    if any(abs(value) > LARGEST for record in records for value in record.metrics.values()):
        marks.append(notes.ours(f"a score beyond {LARGEST:.0e} is left out."))
    return tuple(marks)


def chosen_values(configuration: Configuration) -> str:
    """What a sweep chose, with each seed where that differs."""
    seeds: dict[str, list[str]] = defaultdict(list)
    for record in configuration.records:
        if record.sweep is not None:
            seeds[str(Tried(values=record.sweep.chosen, score=None))].append(str(record.seed))
    if len(seeds) == 1:
        return f"of a sweep: {_some(seeds)}."
    told = (f"{one_line(v, NAME_LENGTH)} (seed {', '.join(s)})" for v, s in seeds.items())
    return f"of a sweep with each seed: {_some(told, length=2 * NAME_LENGTH, between='; ')}."


def repeated(configuration: Configuration) -> str:
    """Which runs are no further seed."""
    names = _some(record.name for record in configuration.repeats)
    before = " (equal pre-trainings are one)" if configuration.first.checkpoint else ""
    return f"the same seed{before} ran more than once; the latest run counts, without {names}."


def untraced(configuration: Configuration) -> str:
    """Which runs may belong together, or not: no one can tell."""
    count = len(configuration.untraced)
    return (
        f"the pre-training data of {count} run{'s' if count > 1 else ''} is not recorded "
        f"({_some(record.name for record in configuration.untraced)}): no mean over seeds of the "
        "pre-training."
    )


def _some(
    texts: Iterable[str], most: int = 5, length: int = NAME_LENGTH, between: str = ", "
) -> str:
    """The first texts, and how many more there are."""
    each = list(dict.fromkeys(one_line(text, length) for text in texts))
    more = f" and {len(each) - most} more" if len(each) > most else ""
    return between.join(each[:most]) + more


def cost_cells(configuration: Configuration, notes: Notes) -> list[Cell]:
    """Cells for COST_COLUMNS, with a mark that names the devices."""
    records = configuration.records
    costs = [
        measured_cell(records, device_hours, 2),
        measured_cell(records, lambda r: r.cost.images_per_second, 0),
        measured_cell(records, lambda r: r.cost.peak_memory_bytes, 1, 1024**3),
    ]
    marks = (devices(records, notes),) if any(cell.n for cell in costs) else ()
    return [replace(cell, marks=marks if cell.n else ()) for cell in costs]


def measured_cell(
    records: Iterable[Record],
    measure: Callable[[Record], float | None],
    decimals: int,
    unit: int = 1,
    marks: tuple[str, ...] = (),
) -> Cell:
    """The mean of what was measured, in the unit; without what was not, or is absurd."""
    found = [(record, measure(record)) for record in records]
    there = [(r, value) for r, value in found if value is not None and value <= LARGEST * unit]
    values, runs = [value / unit for _, value in there], tuple(record for record, _ in there)
    return mean_cell(values, decimals, marks, runs)


def device_hours(record: Record) -> float | None:
    """Hours that a run took, times its processes, where they were measured."""
    seconds, last = record.cost.seconds, record.environment
    if seconds is None or max(last.processes, *(e.processes for e in last.earlier), 0) > LARGEST:
        return None
    before = sum(each.seconds for each in last.earlier)
    total = max(0.0, seconds - before) * last.processes
    return (total + sum(each.seconds * each.processes for each in last.earlier)) / 3600


def devices(records: Iterable[Record], notes: Notes) -> str:
    """The mark that names where some runs happened."""
    return notes.ours(f"cost measured on {' and on '.join(device_names(records))}.")


def device_names(records: Iterable[Record]) -> list[str]:
    """ "8 × NVIDIA H100", or "8 × NVIDIA H100 (sharded)", each kind once.

    "8 × NVIDIA A100, then 8 × NVIDIA H100" of a run that went on elsewhere.
    """
    return list(dict.fromkeys(_places(record.environment) for record in records))


def _places(last: Environment) -> str:
    return ", then ".join([*map(_place, last.earlier), _place(last)])


def _place(part: Environment | Earlier) -> str:
    device = part.device.replace(", 1 threads", ", 1 thread")
    return f"{part.processes} × {device}" + " (sharded)" * part.sharded
