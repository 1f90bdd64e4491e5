"""A table of the MAE paper, filled with its numbers and with ours."""

from collections.abc import Sequence
from dataclasses import replace

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
from results.configuration import Configuration
from results.labels import better, decimals_of, plain, protocol_title
from results.origins import changed_settings
from results.paper.layout import LARGE, OF_PRETRAINING, Score
from results.paper.places import Line, Places, Spot, our_protocols, settings
from results.paper.ratios import flops_ratio, speed_up
from results.protocol import ProtocolId
from results.published import same_recipe
from results.table import Cell, Column, Note, Table

NOBODY = "no run of ours stands in this table yet."


class Filling:
    """One table of the paper while it is filled from records and published rows."""

    def __init__(self, places: Places, intervals: bool, left_out: int = 0) -> None:
        """`left_out`: runs of the miniature world that are not among those of `places`."""
        self.places, self.spec = places, places.spec
        self.intervals, self.left_out = intervals, left_out
        self.notes = Notes()

    def table(self) -> Table:
        rows = [*self.spec.rows, *self.places.other_methods()]
        lines = [line for row in rows for line in self.places.lines(row)]
        used = [c for line in lines for c in line.ours.values()]
        self.identities = Identities(used)
        columns = [Column(f"label {text}", text, "label") for text in self.spec.labels]
        entries = [[Entry(Cell(text)) for text in self.labels(line)] for line in lines]
        for index, score in enumerate(self.spec.scores):
            for column, added in self.columns(index, score, lines):
                columns.append(column)
                for row_entries, entry in zip(entries, added, strict=True):
                    row_entries.append(entry)
        body = with_best(columns, entries)
        return Table(self.spec.title, tuple(columns), tuple(body), self.listed(columns, body, used))

    def labels(self, line: Line) -> list[str]:
        """Those of its row. A line without numbers of the paper adds what our pre-training did
        otherwise, where that is the same all along it."""
        labels = list(line.spots[0].row.labels)
        found = {self.told(line.spots[0], c) for c in line.ours.values()}
        printed = line.is_first and any(spot.theirs is not None for spot in line.spots)
        if len(found) == 1 and not printed:
            index = self.spec.method_label or 0
            labels[index] = ", ".join([labels[index], *found.pop()])
        return labels

    def told(self, spot: Spot, c: Configuration) -> tuple[str, ...]:
        """What our pre-training did otherwise than its row and the paper say, or than its protocol
        in the miniature world, in few words."""
        before = self.places.before(c)
        if before is None:
            return ()
        paper = {} if before.data.miniature else self.spec.pretrained
        return tuple(changed_settings(before, but=spot.row.pretrained or {}, than=paper))

    def columns(
        self, index: int, score: Score, lines: Sequence[Line]
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
            cells = [self.measured(score, *at) for at in ours]
            if all(cell == Cell() for cell, _ in cells):
                continue
            found.append((replace(column, kind="measured"), cells))
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

    def measured(self, score: Score, spot: Spot, c: Configuration | None) -> Entry:
        if c is None:
            return Entry(Cell())
        metric = spot.where["metric"]
        if metric in OF_PRETRAINING:
            return Entry(self.taken(score, spot, c))
        otherwise = self.otherwise(spot, c)
        marks = caveats(c, self.notes) + self.identities.marks(c, self.notes)
        marks += (self.notes.ours(otherwise),) if otherwise else ()
        cell = c.cell(metric, decimals_of(metric), marks)
        fair = self.spec.best and measured_group(c) is not None
        group = (c.first.backbone, c.first.data.fingerprint, otherwise) if fair else None
        return Entry(cell if self.intervals else replace(cell, interval=None), group)

    def taken(self, score: Score, spot: Spot, c: Configuration) -> Cell:
        """What a pre-training took, or its ratio to another."""
        metric, otherwise = spot.where["metric"], self.otherwise(spot, c)
        marks: tuple[str, ...] = (self.notes.ours(otherwise),) if otherwise else ()
        if metric == "hours":
            marks += (devices(c.records, self.notes),)
            decimals = 3 if c.first.data.miniature else 1
            return measured_cell(c.records, lambda r: r.cost.seconds, decimals, 3600, marks)
        chosen = spot.row.pretrained or {}
        is_reference = all(chosen.get(name) == value for name, value in score.ratio_to.items())
        if metric == "speedup" and is_reference:
            return Cell()
        of = speed_up if metric == "speedup" else flops_ratio
        references = self.places.reference(c, score)
        what = " and ".join(f"{name} {value}" for name, value in score.ratio_to.items())
        cell = of(c, references, what, self.notes)
        return replace(cell, marks=marks + cell.marks)

    def theirs(self, spot: Spot) -> Entry:
        row = spot.theirs
        if row is None:
            return Entry(Cell())
        about = row.note.split("; ")[1 if spot.row.note else 0 :]
        fair = [c.first.protocol for lane in spot.lanes for c in lane if c.first.comparable]
        cell = published_cell(row, self.notes, *about)
        if not self.spec.settings and not all(same_recipe(protocol, row) for protocol in fair):
            cell = replace(cell, marks=(*cell.marks, self.notes.published(f"{OTHER_RECIPE}.")))
        return Entry(cell, "rivals" if self.spec.best and not spot.row.minus else None)

    def difference(self, score: Score, spot: Spot, c: Configuration | None) -> Cell:
        """Ours minus the paper's, where both come from the same recipes."""
        row = spot.theirs
        if c is None or row is None or row.status == "recalled" or not c.first.comparable:
            return Cell()
        if self.spec.settings:
            same = score.same_recipe and not self.otherwise(spot, c)
        else:
            same = same_recipe(c.first.protocol, row)
        return difference_cell(c, spot.where["metric"], row, self.notes) if same else Cell()

    def otherwise(self, spot: Spot, c: Configuration) -> str:
        """What our pre-training did otherwise than the paper's, as a note; "" if nothing."""
        before = self.places.before(c)
        if before is None:
            recipe = c.first.checkpoint and c.first.checkpoint.recipe_hash
            return f"pre-trained by recipe {recipe}, whose record is missing." if recipe else ""
        if before.data.miniature:
            return ""
        parts, told = [], set[str]()
        if plain(self.places.method(c)) == "mae":
            changed = spot.row.pretrained or {}
            paper = {**self.spec.pretrained, **changed}
            told, given = set(paper), settings(before)
            parts = [
                f"{name} {given.get(name)} (paper: {value})"
                for name, value in paper.items()
                if value is not None and given.get(name) != value
            ]
        parts += [str(each) for each in before.changed if each.field not in told]
        parts += before.other_deviations
        if before.backbone != spot.where["backbone"].removesuffix(LARGE):
            parts.append(f"backbone {before.backbone} (paper: {spot.where['backbone']})")
        if before.checkpoint is not None:
            parts.append(f"begun from {before.init} ({before.checkpoint.file})")
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
        general = [OURS] if "measured" in kinds else [NOBODY]
        general += [THEIRS] if "published" in kinds else []
        general += [DIFFERENCE] if "difference" in kinds else []
        general += self.spec.notes
        if used:
            protocols = dict.fromkeys(sorted(c.first.protocol for c in used))
            general.append(f"protocols of ours: {', '.join(protocols)}.")
        if any(cell.interval is not None for row in body for cell in row):
            general.append(INTERVALS)
        general += [ONE_SEED] if single_differences(body) else []
        general += [BEST] if any_best(body) else []
        if self.left_out:
            general.append(f"runs on the miniature world are left out: {self.left_out}.")
        return self.notes.listed(general)


def _told_apart(spot: Spot, protocol: str) -> str:
    """What tells a protocol from the others like a number of the paper, if there are any."""
    alike = [each for each, _ in our_protocols(spot.where)]
    if len({replace(ProtocolId.read(each), version="") for each in alike}) > 1:
        return f", {protocol_title(protocol)}"
    # Of one protocol's versions the newest is first.
    return "" if protocol == alike[0] else f", version {ProtocolId.read(protocol).version}"
