"""Which runs of ours stand where in a table of the MAE paper.

A run is placed by what its records say of its weights: the method and the settings of its
pre-training where that is ours and its record is there, else what its weights are called.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from results.configuration import Configuration, configurations
from results.errors import ResultsError
from results.labels import plain
from results.origins import ADDED_SETTINGS, Pretrainings, method_of
from results.paper.layout import (
    ABLATION_DEFAULTS,
    LARGE,
    OF_PRETRAINING,
    Filter,
    PaperTable,
    Row,
    Score,
    Settings,
)
from results.published import HEADLINES, Published
from results.record import Record

SOURCE = "mae2021"
PRETRAINING = "pretrain/mae@1"


@dataclass(frozen=True)
class Spot:
    """Where a row and a column meet."""

    row: Row
    where: Filter
    """of the row and the column together"""
    theirs: Published | None
    lanes: tuple[Sequence[Configuration], ...]
    """our configurations, for each protocol of ours that is like the paper's"""


@dataclass
class Line:
    """One line of a row. The first one has the paper's numbers."""

    is_first: bool
    spots: Sequence[Spot]
    ours: dict[tuple[int, int], Configuration] = field(default_factory=dict)
    """column of the paper and lane -> what stands there"""
    pretrained: dict[str, str] = field(default_factory=dict)
    """backbone -> its pre-training, the same all along a line"""

    def takes(self, at: tuple[int, int], backbone: str, pretrained: str) -> bool:
        return at not in self.ours and self.pretrained.get(backbone, pretrained) == pretrained


class Places:
    """Our runs and the paper's numbers, by their places in one table."""

    def __init__(
        self,
        spec: PaperTable,
        locator: str,
        records: Sequence[Record],
        published: Iterable[Published],
    ) -> None:
        """`records` are all of the miniature world, or none."""
        self.spec, self.locator = spec, locator
        self.runs: dict[str, list[Configuration]] = defaultdict(list)
        for c in configurations(records):
            self.runs[c.first.protocol].append(c)
        self.pretraining = Pretrainings(records)
        self.published: dict[Hashable, list[Published]] = defaultdict(list)
        for row in published:
            if row.source == SOURCE:
                self.published[filed(row.model_dump())].append(row)

    def lines(self, row: Row) -> list[Line]:
        """As many lines as it takes for one cell to hold one configuration of ours."""
        spots = [self.spot(row, score) for score in self.spec.scores]
        lines = [Line(True, spots)]
        for index, spot in enumerate(spots):
            for lane, found in enumerate(spot.lanes):
                for c in found:
                    at, backbone = (index, lane), c.first.backbone
                    before = c.pretrained
                    line = next((each for each in lines if each.takes(at, backbone, before)), None)
                    if line is None:
                        line = Line(False, spots)
                        lines.append(line)
                    line.ours[at] = c
                    line.pretrained[backbone] = before
        return lines

    def spot(self, row: Row, score: Score) -> Spot:
        where = {"locator": self.locator, **row.where, **score.where}
        found = self.published.get(filed(where), [])
        found = [each for each in found if row.note in ("", each.note.split("; ")[0])]
        if len(found) > 1:
            raise ResultsError(f"published.csv has {len(found)} numbers for {where}; expected one")
        lanes = tuple(
            [c for c in self.runs[protocol] if self.fits(c, row, where["method"], backbone)]
            for protocol, backbone in (our_protocols(where) if score.ours and row.ours else ())
        )
        theirs = found[0] if found else None
        if theirs and row.minus:
            theirs = minus(theirs, self.spot(replace(row, note=row.minus, minus=""), score).theirs)
        return Spot(row, where, theirs, lanes)

    def fits(self, c: Configuration, row: Row, method: str, backbone: str) -> bool:
        """Whether a configuration of the right protocol belongs into a row."""
        if not self.spec.any_backbone and c.first.backbone != backbone:
            return False
        if plain(self.method(c)) != plain(method):
            return False
        if not self.spec.settings:
            return True
        before = self.before(c)
        if before is None or row.pretrained is None:
            return False
        return has(before, {**ABLATION_DEFAULTS, **row.pretrained}, row.pretrained)

    def before(self, c: Configuration) -> Record | None:
        """The pre-training of a configuration by us, where its record is there."""
        if c.first.kind == "pretrain":
            return c.first
        return self.pretraining.of(c.first)

    def method(self, c: Configuration) -> str:
        """What its weights were pre-trained by: told by our own record, or by their name."""
        before = self.before(c)
        return c.first.init if before is None else method_of(before)

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
            for method in self.methods(rows[0]):
                if plain(method) not in taken:
                    labels[label] = method
                    where = {**rows[0].where, "method": method}
                    found[method].append(Row(tuple(labels), where))
        return [row for method in sorted(found) for row in found[method]]

    def methods(self, row: Row) -> list[str]:
        """Of our runs that fit a row but for theirs; each method once."""
        names: dict[str, str] = {}
        for score in (each for each in self.spec.scores if each.ours):
            for protocol, backbone in our_protocols({**row.where, **score.where}):
                for c in self.runs[protocol]:
                    if c.first.backbone == backbone:
                        names.setdefault(plain(self.method(c)), self.method(c))
        return list(names.values())

    def reference(self, c: Configuration, score: Score) -> list[Configuration]:
        """The pre-trainings that a ratio is taken to: by the recipe of `c` but for the settings
        that the reference has, on the same images."""
        wanted = {**settings(c.first), **score.ratio_to}
        return [
            each
            for each in self.runs[PRETRAINING]
            if each.first.complete
            and each.first.data.fingerprint == c.first.data.fingerprint
            and all(
                settings(each.first).get(name) == value
                for name, value in wanted.items()
                if name not in NOT_THE_WORK
            )
        ]


NOT_THE_WORK = ("device_batch", "precision")
"""of a recipe: how a device does it"""


def settings(pretraining: Record) -> dict[str, object]:
    """Its recipe, with what older records could not vary."""
    return {**ADDED_SETTINGS, **pretraining.recipe}


def has(pretraining: Record, wanted: Settings, chosen: Settings) -> bool:
    """Whether a pre-training has the settings of a row: those that the row chooses, and the paper's
    elsewhere. The miniature world has numbers of its own there, which a run is not to change."""
    given = settings(pretraining)
    if pretraining.data.miniature:
        changed = {each.field for each in pretraining.changed}
        wanted = {name: value for name, value in wanted.items() if name in {*changed, *chosen}}
    return all(value is None or given.get(name) == value for name, value in wanted.items())


def minus(one: Published, other: Published | None) -> Published | None:
    """The difference of two numbers of one table, as finely as they were printed."""
    if other is None:
        return None
    decimals = max(one.decimals, other.decimals)
    value = round(one.value - other.value, decimals)
    return one.model_copy(update={"value": value, "decimals": decimals})


def filed(where: Mapping[str, object]) -> tuple[object, ...]:
    """What a published number is found by."""
    names = ("locator", "method", "backbone", "task", "protocol", "metric")
    return tuple(where.get(name) for name in names)


def our_protocols(where: Filter) -> list[tuple[str, str]]:
    """Our protocols like the one of a number of the paper, each with our name of the backbone."""
    backbone = where["backbone"]
    if where["metric"] in OF_PRETRAINING:
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
