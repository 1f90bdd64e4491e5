"""From records and published rows to the tables of a report. Pure functions."""

import itertools
import string
from collections.abc import Iterable
from dataclasses import dataclass, field

from results.configuration import Configuration, configurations
from results.published import Published, headline, same_recipe
from results.record import Record
from results.table import Cell, Column, Note, Table

METRICS = {
    "top1": ("top-1", "%"),
    "miou": ("mIoU", "%"),
    "ap_box": ("box AP", ""),
    "ap_mask": ("mask AP", ""),
}
"""Scores with title and unit. A table shows these; where runs have none of them, all they have."""

DATA_TITLES = {
    "imagenet1k": "ImageNet-1k",
    "coco": "COCO",
    "ade20k": "ADE20K",
    "inat2017": "iNaturalist 2017",
    "inat2018": "iNaturalist 2018",
    "inat2019": "iNaturalist 2019",
    "places205": "Places205",
    "places365": "Places365",
    "pretrain": "",
}
PROTOCOL_TITLES = {
    "finetune": "fine-tuning",
    "linear": "linear probing",
    "scratch": "training from scratch",
    "upernet-512-160k": "UperNet",
    "upernet-512-100ep": "UperNet (100 epochs)",
    "mask_rcnn-vitdet": "Mask R-CNN (ViTDet)",
    "mask_rcnn-fpn": "Mask R-CNN (four-stage FPN)",
    "mae": "masked autoencoder pre-training",
}

OURS = (
    "ours: measured by mae-bench; mean ± sample standard deviation over n runs that differ only in"
    " the seed (one run has no spread)."
)
THEIRS = "published: as printed by the source named below; not measured here."
DIFFERENCE = (
    "difference: ours − published, in points; only where our runs are complete, follow the whole"
    " protocol and use the official data, and the published number has that protocol too."
)
MINIATURE = "Small images drawn by mae-bench itself: not comparable with any published number."


def comparison_table(records: Iterable[Record], published: Iterable[Published]) -> list[Table]:
    """One table per protocol: ours beside the headline rows of `published`.

    A difference is printed only where our runs are comparable (`Record.comparable`) and the
    published number was scored with the same protocol; everything else is marked, with a note
    that says why. Miniature runs come after the others and never beside published numbers: one
    table per task, a column for each protocol.
    """
    records, rows = list(records), list(published)
    tables = []
    photos = [record for record in records if not record.data.miniature]
    for protocol in sorted({record.protocol for record in photos}):
        same = [record for record in photos if record.protocol == protocol]
        tables.append(_table(protocol, same, rows))
    drawn = [record for record in records if record.data.miniature]
    for task in sorted({record.task for record in drawn}):
        tables.append(_miniature_table([record for record in drawn if record.task == task]))
    return tables


@dataclass
class _Notes:
    """Hands out marks: numbers for what others published, letters for what to know about ours."""

    about_published: dict[str, str] = field(default_factory=dict)
    about_ours: dict[str, str] = field(default_factory=dict)

    def published(self, text: str) -> str:
        return self.about_published.setdefault(text, str(len(self.about_published) + 1))

    def ours(self, text: str) -> str:
        return self.about_ours.setdefault(text, _letters(len(self.about_ours)))

    def listed(self, general: list[str]) -> tuple[Note, ...]:
        marked = itertools.chain(self.about_published.items(), self.about_ours.items())
        return (*map(Note, general), *(Note(text, mark) for text, mark in marked))


def _letters(index: int) -> str:
    """a to z, then aa, ab, ..."""
    higher, lower = divmod(index, 26)
    return (_letters(higher - 1) if higher else "") + string.ascii_lowercase[lower]


@dataclass(frozen=True)
class _Plan:
    """What the rows of one table are filled from."""

    protocol: str
    places: dict[str, list[tuple[str, str]]]
    """metric -> (source, locator) of its published columns, the first being subtracted"""
    beside: dict[tuple[str, str, str, str, str], Published]
    """backbone, plain method, metric, source, locator -> row"""
    notes: _Notes


def _table(protocol: str, records: list[Record], published: list[Published]) -> Table:
    """The table of runs that share a protocol, none of them miniature."""
    found = configurations(records)
    backbones = list(dict.fromkeys(c.first.backbone for c in found))
    rows = [row for backbone in backbones for row in headline(protocol, backbone, published)]
    plan = _plan(protocol, _metrics(records), rows)
    columns = _columns(plan)

    body = []
    for backbone in backbones:
        ours = [c for c in found if c.first.backbone == backbone]
        for c in ours:
            label = Cell(c.first.init, marks=_identity(c, found, plan.notes))
            body.append((Cell(backbone), label, *_scores(plan, backbone, c.first.init, c)))
        shown = {_plain(c.first.init) for c in ours}
        methods = dict.fromkeys(row.method for row in rows if row.backbone == backbone)
        for method in (m for m in methods if _plain(m) not in shown):
            body.append((Cell(backbone), Cell(method), *_scores(plan, backbone, method, None)))

    general = [OURS, THEIRS, DIFFERENCE] if any(plan.places.values()) else [OURS]
    return Table(_title(records[0]), columns, tuple(body), plan.notes.listed(general))


def _miniature_table(records: list[Record]) -> Table:
    """Miniature runs of one task: weights down, protocols across.

    Runs of one protocol that start from the same weights but differ otherwise take a row each.
    """
    found, notes = configurations(records), _Notes()
    rows: list[dict[str, Configuration]] = []
    for c in found:
        for row in rows:
            other = next(iter(row.values())).first
            same = (other.backbone, other.init) == (c.first.backbone, c.first.init)
            if same and c.first.protocol not in row:
                row[c.first.protocol] = c
                break
        else:
            rows.append({c.first.protocol: c})
    metrics = {
        protocol: _metrics([r for r in records if r.protocol == protocol])
        for protocol in sorted({record.protocol for record in records})
    }
    columns = [Column("backbone", "backbone", "label"), Column("init", "weights", "label")]
    for protocol, names in metrics.items():
        for name in names:
            title, unit = METRICS.get(name, (name, ""))
            columns.append(
                Column(
                    f"{protocol} {name}", f"{_protocol_title(protocol)} {title}", "measured", unit
                )
            )
    body = []
    for row in rows:
        first = next(iter(row.values()))
        marks = dict.fromkeys(mark for c in row.values() for mark in _identity(c, found, notes))
        cells = [Cell(first.first.backbone), Cell(first.first.init, marks=tuple(marks))]
        for protocol, names in metrics.items():
            for name in names:
                ours, decimals = row.get(protocol), 2 if name in METRICS else 4
                cells.append(ours.cell(name, decimals, _caveats(ours, notes)) if ours else Cell())
        body.append(tuple(cells))
    task = records[0].task
    title = f"Miniature world: {DATA_TITLES.get(task) or 'pre-training'}"
    protocols = f"protocols: {', '.join(metrics)}."
    return Table(title, tuple(columns), tuple(body), notes.listed([MINIATURE, protocols, OURS]))


def _metrics(records: list[Record]) -> list[str]:
    """The scores of METRICS that any run has; else every metric, by name."""
    present = {name for record in records for name in record.metrics}
    return [name for name in METRICS if name in present] or sorted(present)


def _plan(protocol: str, metrics: list[str], rows: list[Published]) -> _Plan:
    places = {
        metric: list(dict.fromkeys((r.source, r.locator) for r in rows if r.metric == metric))
        for metric in metrics
    }
    beside = {(r.backbone, _plain(r.method), r.metric, r.source, r.locator): r for r in rows}
    return _Plan(protocol, places, beside, _Notes())


def _columns(plan: _Plan) -> tuple[Column, ...]:
    columns = [Column("backbone", "backbone", "label"), Column("init", "weights", "label")]
    for metric, places in plan.places.items():
        title, unit = METRICS.get(metric, (metric, ""))
        columns.append(Column(f"{metric} ours", title, "measured", unit))
        rows = [
            next(row for row in plan.beside.values() if (row.source, row.locator) == place)
            for place in places
        ]
        for row in rows:
            key = f"{metric} {row.source} {row.locator}"
            mark = plan.notes.published(f"{row.citation}.")
            columns.append(Column(key, title, "published", unit, row.title, (mark,)))
        if rows:
            key, source = f"{metric} difference", rows[0].title
            columns.append(Column(key, title, "difference", "points", source))
    return tuple(columns)


def _scores(
    plan: _Plan, backbone: str, method: str, configuration: Configuration | None
) -> list[Cell]:
    """The cells of one row after its labels; no configuration: only published numbers."""
    caveats = _caveats(configuration, plan.notes) if configuration else ()
    cells = []
    for metric, places in plan.places.items():
        decimals = 2 if metric in METRICS else 4
        ours = configuration.cell(metric, decimals, caveats) if configuration else Cell()
        cells.append(ours)
        rows = [plan.beside.get((backbone, _plain(method), metric, *place)) for place in places]
        cells += [_published_cell(plan, row) for row in rows]
        if rows:
            comparable = configuration is not None and configuration.first.comparable
            cells.append(_difference(plan.protocol, ours, rows[0]) if comparable else Cell())
    return cells


def _published_cell(plan: _Plan, row: Published | None) -> Cell:
    if row is None:
        return Cell()
    data = row.pretrain_data.replace("IN1K", "ImageNet-1k")
    weights = "no pre-training" if data == "none" else f"{row.method} pre-trained on {data}"
    parts = [weights, row.note]
    if row.status == "recalled":
        parts.append("recalled, not confirmed in the source")
    if not same_recipe(plan.protocol, row):
        parts.append(
            "scored with a recipe that may differ from this protocol, so without a difference"
        )
    mark = plan.notes.published("; ".join(part for part in parts if part) + ".")
    return Cell(row.value, min(row.decimals, 2), marks=(mark,), source=row.citation)


def _difference(protocol: str, ours: Cell, row: Published | None) -> Cell:
    """Ours minus a confirmed number of the same protocol, no finer than that was printed."""
    if row is None or not isinstance(ours.value, float):
        return Cell()
    if row.status == "recalled" or not same_recipe(protocol, row):
        return Cell()
    return Cell(ours.value - row.value, min(row.decimals, 2))


def _identity(
    configuration: Configuration, found: list[Configuration], notes: _Notes
) -> tuple[str, ...]:
    """The mark that names the checkpoint, the data where rows differ in it, and the recipe where
    nothing else tells two rows apart."""
    this = configuration.first
    parts = []
    weights = {r.checkpoint.sha256: r.checkpoint for r in configuration.records if r.checkpoint}
    if len(weights) == 1:
        (only,) = weights.values()
        parts.append(f"weights {only.file}, sha256 {only.sha256[:12]}")
    elif weights:
        (recipe,) = {each.recipe_hash for each in weights.values()}
        parts.append(f"{len(weights)} weights, pre-trained with a seed each by recipe {recipe}")
    if len({c.first.data.fingerprint for c in found}) > 1:
        parts.append(f"data {this.data.name}, fingerprint {this.data.fingerprint[:12]}")
    if len({c.first.recipe_hash for c in found if _looks(c.first) == _looks(this)}) > 1:
        parts.append(f"recipe {this.recipe_hash[:12]}")
    return (notes.ours("; ".join(parts) + "."),) if parts else ()


def _looks(record: Record) -> tuple:
    """What labels and notes tell about a row besides its recipe."""
    return (
        record.protocol,
        record.backbone,
        record.init,
        record.checkpoint,
        record.data,
        sorted(record.deviations),
        record.complete,
    )


def _caveats(configuration: Configuration, notes: _Notes) -> tuple[str, ...]:
    """Marks that say why a number is not comparable, and what else a reader should know."""
    this, records = configuration.first, configuration.records
    reasons = list(this.deviations)
    if not this.complete:
        reasons.append("the run is incomplete")
    if not this.data.standard and not this.data.miniature:
        counts = f"{this.data.train_images} training and {this.data.val_images} validation images"
        reasons.append(f"data {this.data.name} ({counts}) is not the official set")
    verdict = "differs from the protocol" if this.data.miniature else "not comparable"
    marks = [notes.ours(f"{verdict}: {'; '.join(reasons)}.")] if reasons else []
    skipped = sum(record.skipped_images for record in records)
    if skipped:
        marks.append(notes.ours(f"unreadable images left out: {skipped}."))
    if configuration.repeats:
        marks.append(notes.ours("a seed ran more than once; its latest run counts."))
    if len({record.environment.commit for record in records}) > 1:
        marks.append(notes.ours("the seeds ran under different versions of mae-bench."))
    return tuple(marks)


def _protocol_title(protocol: str) -> str:
    rest = protocol.partition("/")[2]
    return PROTOCOL_TITLES.get(rest.partition("@")[0], rest)


def _title(record: Record) -> str:
    task = record.protocol.partition("/")[0]
    protocol, data = _protocol_title(record.protocol), DATA_TITLES.get(task, task)
    title = f"{data}: {protocol}" if data else protocol.capitalize()
    return f"{title} (protocol {record.protocol})"


def _plain(label: str) -> str:
    """So that the label mocov3 of a run meets the method "MoCo v3" of a paper."""
    return "".join(character for character in label.lower() if character.isalnum())
