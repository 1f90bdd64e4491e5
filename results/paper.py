"""The tables of the MAE paper with runs of ours beside its numbers.

A run stands beside a number whose protocol is the run's by `HEADLINES`, and in a table of
pre-training settings in the row of its own pre-training.
"""

import difflib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from results.cells import (
    BEST,
    DIFFERENCE,
    INTERVALS,
    ONE_SEED,
    OTHER_RECIPE,
    OURS,
    THEIRS,
    Entry,
    Identities,
    Notes,
    any_best,
    caveats,
    devices,
    difference_cell,
    measured_cell,
    measured_group,
    published_cell,
    single_differences,
    with_best,
)
from results.configuration import Configuration, configurations
from results.errors import ResultsError
from results.labels import better, decimals_of, plain, protocol_title
from results.origins import Pretrainings
from results.paper_tables import (
    ABLATION_DEFAULTS,
    ADDED_SETTINGS,
    LARGE,
    PAPER_TABLES,
    Filter,
    PaperTable,
    Row,
    Score,
)
from results.protocol import ProtocolId
from results.published import HEADLINES, Published, same_recipe
from results.record import Record
from results.table import Cell, Column, Note, Table

SOURCE = "mae2021"
PRETRAINING = "pretrain/mae@1"
NOBODY = "no run of ours stands in this table yet."


def paper_table(
    name: str,
    records: Iterable[Record],
    published: Iterable[Published],
    *,
    intervals: bool = False,
) -> Table:
    """One table of the MAE paper, by its key in PAPER_TABLES, with our runs beside its numbers.

    Measured columns are there where a run of ours fits, difference columns where one is
    comparable. Several configurations that fit one place take a line each. Miniature runs are
    left out, with a note. Raises ResultsError for an unknown name.
    """
    if name not in PAPER_TABLES:
        near = difflib.get_close_matches(name, PAPER_TABLES, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ResultsError(
            f"unknown table {name!r}; {hint}there are {', '.join(PAPER_TABLES)} and all"
        )
    locator = f"Table {name}"
    return _Filling(PAPER_TABLES[name], locator, list(records), published, intervals).table()


def paper_tables(
    name: str,
    records: Iterable[Record],
    published: Iterable[Published],
    *,
    intervals: bool = False,
) -> list[Table]:
    """The table of that name, or every one for "all"."""
    names = list(PAPER_TABLES) if name == "all" else [name]
    records, published = list(records), list(published)
    return [paper_table(each, records, published, intervals=intervals) for each in names]


def settings(pretraining: Record) -> dict[str, object]:
    """Its recipe, with what older records could not vary."""
    return {**ADDED_SETTINGS, **pretraining.recipe}


@dataclass(frozen=True)
class _Spot:
    """Where a row and a column meet."""

    row: Row
    where: Filter
    """of the row and the column together"""
    theirs: Published | None
    lanes: tuple[Sequence[Configuration], ...]
    """our configurations, for each protocol of ours that is like the paper's"""


@dataclass
class _Line:
    """One line of a row. The first one has the paper's numbers."""

    is_first: bool
    spots: Sequence[_Spot]
    ours: dict[tuple[int, int], Configuration] = field(default_factory=dict)
    """column of the paper and lane -> what stands there"""
    pretrained: dict[str, str] = field(default_factory=dict)
    """backbone -> its pre-training, the same all along a line"""

    def takes(self, at: tuple[int, int], backbone: str, pretrained: str) -> bool:
        return at not in self.ours and self.pretrained.get(backbone, pretrained) == pretrained


class _Filling:
    """One table of the paper while it is filled from records and published rows."""

    def __init__(
        self,
        spec: PaperTable,
        locator: str,
        records: Sequence[Record],
        published: Iterable[Published],
        intervals: bool,
    ) -> None:
        self.spec, self.locator, self.intervals = spec, locator, intervals
        self.notes = Notes()
        self.miniature = sum(record.data.miniature for record in records)
        photos = [record for record in records if not record.data.miniature]
        self.runs: dict[str, list[Configuration]] = defaultdict(list)
        for c in configurations(photos):
            self.runs[c.first.protocol].append(c)
        self.pretraining = Pretrainings(records)
        self.published: dict[Hashable, list[Published]] = defaultdict(list)
        for row in published:
            if row.source == SOURCE:
                self.published[_filed(row.model_dump())].append(row)

    def table(self) -> Table:
        rows = [*self.spec.rows, *self.other_methods()]
        lines = [line for row in rows for line in self.lines(row)]
        used = [c for line in lines for c in line.ours.values()]
        self.identities = Identities(used)
        columns = [Column(f"label {text}", text, "label") for text in self.spec.labels]
        entries = [[Entry(Cell(text)) for text in line.spots[0].row.labels] for line in lines]
        for index, score in enumerate(self.spec.scores):
            for column, added in self.columns(index, score, lines):
                columns.append(column)
                for row_entries, entry in zip(entries, added, strict=True):
                    row_entries.append(entry)
        body = with_best(columns, entries)
        return Table(self.spec.title, tuple(columns), tuple(body), self.listed(columns, body, used))

    def lines(self, row: Row) -> list[_Line]:
        """As many lines as it takes for one cell to hold one configuration of ours."""
        spots = [self.spot(row, score) for score in self.spec.scores]
        lines = [_Line(True, spots)]
        for index, spot in enumerate(spots):
            for lane, found in enumerate(spot.lanes):
                for c in found:
                    at, backbone = (index, lane), c.first.backbone
                    before = c.pretrained
                    line = next((each for each in lines if each.takes(at, backbone, before)), None)
                    if line is None:
                        line = _Line(False, spots)
                        lines.append(line)
                    line.ours[at] = c
                    line.pretrained[backbone] = before
        return lines

    def spot(self, row: Row, score: Score) -> _Spot:
        where = {"locator": self.locator, **row.where, **score.where}
        found = self.published.get(_filed(where), [])
        found = [each for each in found if row.note in ("", each.note.split("; ")[0])]
        if len(found) > 1:
            raise ResultsError(f"published.csv has {len(found)} numbers for {where}; expected one")
        lanes = tuple(
            [c for c in self.runs[protocol] if self.fits(c, row, where["method"], backbone)]
            for protocol, backbone in (_our_protocols(where) if score.ours and row.ours else ())
        )
        theirs = found[0] if found else None
        if theirs and row.minus:
            theirs = _minus(theirs, self.spot(replace(row, note=row.minus, minus=""), score).theirs)
        return _Spot(row, where, theirs, lanes)

    def fits(self, c: Configuration, row: Row, method: str, backbone: str) -> bool:
        """Whether a configuration of the right protocol belongs into a row."""
        if not self.spec.any_backbone and c.first.backbone != backbone:
            return False
        if c.first.kind == "transfer" and plain(c.first.init) != plain(method):
            return False
        if not self.spec.settings:
            return True
        before = self.before(c)
        if before is None or row.pretrained is None:
            return False
        wanted = {**ABLATION_DEFAULTS, **row.pretrained}
        given = settings(before)
        return all(given.get(name) == value for name, value in wanted.items())

    def before(self, c: Configuration) -> Record | None:
        """The pre-training of a configuration by us, where its record is there."""
        if c.first.kind == "pretrain":
            return c.first
        return self.pretraining.of(c.first)

    def other_methods(self) -> list[Row]:
        """Rows for our runs whose method stands in none of the paper's rows."""
        label = self.spec.method_label
        if label is None:
            return []
        alike: dict[Hashable, list[Row]] = defaultdict(list)
        for row in (each for each in self.spec.rows if each.ours):
            rest = {key: row.where[key] for key in row.where if key not in ("method", "locator")}
            alike[tuple(sorted(rest.items()))].append(row)
        found: dict[str, list[Row]] = defaultdict(list)
        for rows in alike.values():
            taken = {plain(row.where["method"]) for row in rows}
            columns = zip(*(row.labels for row in rows), strict=True)
            labels = [texts[0] if len(set(texts)) == 1 else "" for texts in columns]
            for init in self.inits(rows[0]):
                if plain(init) not in taken:
                    labels[label] = init
                    where = {**rows[0].where, "method": init}
                    found[init].append(Row(tuple(labels), where))
        return [row for init in sorted(found) for row in found[init]]

    def inits(self, row: Row) -> list[str]:
        """What our runs that fit a row but for its method started from; each method once."""
        names: dict[str, str] = {}
        for score in (each for each in self.spec.scores if each.ours):
            for protocol, backbone in _our_protocols({**row.where, **score.where}):
                for c in self.runs[protocol]:
                    if c.first.backbone == backbone:
                        names.setdefault(plain(c.first.init), c.first.init)
        return list(names.values())

    def columns(
        self, index: int, score: Score, lines: Sequence[_Line]
    ) -> list[tuple[Column, list[Entry]]]:
        """What one column of the paper becomes: ours, published, differences; none if empty."""
        whole = Column(
            f"{score.title} published",
            score.title,
            "published",
            score.unit,
            "MAE paper",
            better=better(score.where.get("metric", "")),
        )
        found, differences = [], []
        width = max(len(line.spots[index].lanes) for line in lines)
        for lane in range(width):
            ours = [(line.spots[index], line.ours.get((index, lane))) for line in lines]
            used = [(spot, c.first.protocol) for spot, c in ours if c is not None]
            if not used:
                continue
            title = f"{score.title}{_told_apart(*used[0])}"
            column = replace(whole, key=f"{score.title} ours {lane}", title=title, source="")
            found.append((replace(column, kind="measured"), [self.measured(*at) for at in ours]))
            gaps = [Entry(self.difference(score, *at)) for at in ours]
            if any(entry.cell.value is not None for entry in gaps):
                key = f"{score.title} difference {lane}"
                gap = Column(key, title, "difference", "points", whole.source)
                differences.append((gap, gaps))
        printed = [line.spots[index].theirs for line in lines]
        citations = dict.fromkeys(f"{row.citation}." for row in printed if row is not None)
        if citations:
            marks = tuple(map(self.notes.published, citations))
            theirs = [
                self.theirs(line.spots[index]) if line.is_first else Entry(Cell()) for line in lines
            ]
            found.append((replace(whole, marks=marks), theirs))
        return found + differences

    def measured(self, spot: _Spot, c: Configuration | None) -> Entry:
        if c is None:
            return Entry(Cell())
        otherwise, metric = self.otherwise(spot, c), spot.where["metric"]
        marks: tuple[str, ...] = ()
        if metric != "hours":
            marks = caveats(c, self.notes) + self.identities.marks(c, self.notes)
        marks += (self.notes.ours(otherwise),) if otherwise else ()
        if metric == "hours":
            marks += (devices(c.records, self.notes),)
            cell = measured_cell(c.records, lambda r: r.cost.seconds, 1, 3600, marks)
        else:
            cell = c.cell(metric, decimals_of(metric), marks)
        fair = self.spec.best and measured_group(c) is not None
        group = (c.first.backbone, c.first.data.fingerprint, otherwise) if fair else None
        return Entry(cell if self.intervals else replace(cell, interval=None), group)

    def theirs(self, spot: _Spot) -> Entry:
        row = spot.theirs
        if row is None:
            return Entry(Cell())
        about = row.note.split("; ")[1 if spot.row.note else 0 :]
        fair = [c.first.protocol for lane in spot.lanes for c in lane if c.first.comparable]
        cell = published_cell(row, self.notes, *about)
        if not self.spec.settings and not all(same_recipe(protocol, row) for protocol in fair):
            cell = replace(cell, marks=(*cell.marks, self.notes.published(f"{OTHER_RECIPE}.")))
        return Entry(cell, "rivals" if self.spec.best and not spot.row.minus else None)

    def difference(self, score: Score, spot: _Spot, c: Configuration | None) -> Cell:
        """Ours minus the paper's, where both come from the same recipes."""
        row = spot.theirs
        if c is None or row is None or row.status == "recalled" or not c.first.comparable:
            return Cell()
        if self.spec.settings:
            same = score.same_recipe and not self.otherwise(spot, c)
        else:
            same = same_recipe(c.first.protocol, row)
        return difference_cell(c, spot.where["metric"], row, self.notes) if same else Cell()

    def otherwise(self, spot: _Spot, c: Configuration) -> str:
        """What our pre-training did otherwise than the paper's, as a note; "" if nothing."""
        if c.first.kind == "transfer" and plain(c.first.init) != "mae":
            return ""
        before = self.before(c)
        if before is None:
            recipe = c.first.checkpoint and c.first.checkpoint.recipe_hash
            return f"pre-trained by recipe {recipe}, whose record is missing." if recipe else ""
        changed = spot.row.pretrained or {}
        paper = {"epochs": self.spec.epochs, "norm_pix": self.spec.norm_pix, **changed}
        given = settings(before)
        parts = [
            f"{name} {given.get(name)} (paper: {value})"
            for name, value in paper.items()
            if given.get(name) != value
        ]
        parts += [str(each) for each in before.changed if each.field not in paper]
        parts += before.other_deviations
        if before.backbone != spot.where["backbone"].removesuffix(LARGE):
            parts.append(f"backbone {before.backbone} (paper: {spot.where['backbone']})")
        if not before.data.standard:
            images = f"{before.data.train_images} images"
            parts.append(f"pre-training data {before.data.name} ({images}; paper: ImageNet-1k)")
        if not before.complete:
            parts.append("its pre-training is incomplete")
        return f"pre-trained otherwise than the paper: {'; '.join(parts)}." if parts else ""

    def listed(
        self,
        columns: Sequence[Column],
        body: Sequence[tuple[Cell, ...]],
        used: Sequence[Configuration],
    ) -> tuple[Note, ...]:
        kinds = {column.kind for column in columns}
        general = [OURS, THEIRS] if "measured" in kinds else [THEIRS, NOBODY]
        general += [DIFFERENCE] if "difference" in kinds else []
        general += self.spec.notes
        if used:
            protocols = dict.fromkeys(sorted(c.first.protocol for c in used))
            general.append(f"protocols of ours: {', '.join(protocols)}.")
        if any(cell.interval is not None for row in body for cell in row):
            general.append(INTERVALS)
        general += [ONE_SEED] if single_differences(body) else []
        general += [BEST] if any_best(body) else []
        if self.miniature:
            general.append(f"runs on the miniature world are left out: {self.miniature}.")
        return self.notes.listed(general)


def _told_apart(spot: _Spot, protocol: str) -> str:
    """What tells a protocol from the others like a number of the paper, if there are any."""
    alike = [each for each, _ in _our_protocols(spot.where)]
    if len({replace(ProtocolId.read(each), version="") for each in alike}) > 1:
        return f", {protocol_title(protocol)}"
    # Of one protocol's versions the newest is first.
    return "" if protocol == alike[0] else f", version {ProtocolId.read(protocol).version}"


def _minus(one: Published, other: Published | None) -> Published | None:
    """The difference of two numbers of one table, as finely as they were printed."""
    if other is None:
        return None
    decimals = max(one.decimals, other.decimals)
    value = round(one.value - other.value, decimals)
    return one.model_copy(update={"value": value, "decimals": decimals})


def _filed(where: Mapping[str, object]) -> tuple[object, ...]:
    """What a published number is found by."""
    names = ("locator", "method", "backbone", "task", "protocol", "metric")
    return tuple(where.get(name) for name in names)


def _our_protocols(where: Filter) -> list[tuple[str, str]]:
    """Our protocols like the one of a number of the paper, each with our name of the backbone."""
    backbone = where["backbone"]
    if where["metric"] == "hours":
        return [(PRETRAINING, backbone)]
    is_large = backbone.endswith(LARGE)
    return [
        (protocol, backbone.removesuffix(LARGE))
        for protocol, places in HEADLINES.items()
        if any(
            (place.source, place.task, place.protocol) == (SOURCE, where["task"], where["protocol"])
            and bool(place.suffix) == is_large
            for place in places
        )
    ]
