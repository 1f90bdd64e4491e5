"""The tables and figures of the MAE paper as suites: what its rows and columns ask to be run.

Data-driven: places come from `results.paper_tables`, the protocols like the paper's from
`results.published`, the settings from the recipes. Imports no torch.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import backbones
import tasks
from backbones.baselines import BASELINES, release_of
from backbones.sizes import SIZES, BackboneError
from mae_bench.arguments import SCRATCH, slug
from mae_bench.errors import RunError
from mae_bench.pretraining.methods import METHODS
from mae_bench.recipes import PRETRAIN, recipe
from mae_bench.suite.expansion import trained_task
from mae_bench.suite.runs import effective_changes
from mae_bench.suite.spec import PRETRAIN_BY, RELEASED, Block, SuiteSpec, WeightsSpec
from results.labels import plain
from results.paper.layout import (
    ABLATION_DEFAULTS,
    LARGE,
    OF_PRETRAINING,
    PaperTable,
    Row,
    Score,
)
from results.paper.places import our_protocols
from results.paper.tables import PAPER_TABLES
from results.protocol import ProtocolId

MINIATURE = "vit_mini"


def names() -> dict[str, str]:
    """Suite -> title of the table or figure of the paper that it fills."""
    found = {}
    for key, table in PAPER_TABLES.items():
        figure = re.search(r"Figure (\d+)", table.title)
        found[f"figure-{figure[1]}" if figure else f"table-{key}"] = table.title
    return found


def key_of(name: str) -> str:
    """The key in PAPER_TABLES of a suite's name."""
    return dict(zip(names(), PAPER_TABLES, strict=True))[name]


@dataclass
class Needs:
    """What the places of a table ask for."""

    weights: dict[str, WeightsSpec] = field(default_factory=dict)
    places: dict[tuple[str, str, str], dict[str, None]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    """task, protocol, weights -> backbones"""
    left_out: dict[str, None] = field(default_factory=dict)


def table_suite(
    name: str,
    sizes: Collection[str] = (),
    protocols: Collection[str] = (),
    released: bool = False,
    miniature: bool = False,
) -> tuple[SuiteSpec, list[str]]:
    """The suite that fills a table of the paper, and a line for each place that it leaves empty.

    `sizes` are backbones in place of the paper's, or some of them; on the miniature world it is
    its own. `protocols` choose where several of ours are like the paper's (default: the first).
    With `released` the weights that authors released are taken where there are some, instead of
    pre-training by their method. On the miniature world epochs and decoder are its own recipe's,
    but for what a row varies.
    """
    key = key_of(name)
    table, needs = PAPER_TABLES[key], Needs()
    chosen = list(sizes) or ([MINIATURE] if miniature else [])
    for size in chosen:
        backbones.size_of(size)
    for row in table.rows:
        for score in table.scores:
            if row.ours and score.ours and not row.minus:
                ask(needs, table, row, score, chosen, protocols, released, miniature)
    blocks = [
        Block(backbones=list(sizes), weights=[weights], tasks=[task], protocols=[protocol])
        if protocol
        else Block(backbones=list(sizes), weights=[weights], tasks=[task])
        for (task, protocol, weights), sizes in needs.places.items()
    ]
    if not blocks:
        raise RunError(f"{name}: nothing of it can be run; {'; '.join(needs.left_out)}")
    report = [] if miniature else [key]  # where miniature runs have no place
    return SuiteSpec(weights=needs.weights, measure=merged(blocks), report=report), [
        *needs.left_out
    ]


def ask(
    needs: Needs,
    table: PaperTable,
    row: Row,
    score: Score,
    chosen: Collection[str],
    protocols: Collection[str],
    released: bool,
    miniature: bool,
) -> None:
    """Note what has to be run for one place of a table."""
    where = {**row.where, **score.where}
    if where["backbone"].removesuffix(LARGE) not in SIZES:
        needs.left_out[f"{where['method']}, {where['backbone']}: no backbone of ours"] = None
        return
    if miniature and where["backbone"].endswith(LARGE):
        return  # the same backbone stands in the column beside
    lanes = chosen_lanes(our_protocols(where), protocols)
    sizes = chosen or [where["backbone"].removesuffix(LARGE)]
    if not table.any_backbone and not miniature:
        sizes = [size for size in sizes if size == where["backbone"].removesuffix(LARGE)]
    for protocol in lanes:
        for size in sizes:
            try:
                weights = weights_for(needs, table, row, where["method"], size, released, miniature)
            except BackboneError as error:
                needs.left_out[str(error)] = None
                continue
            itself = where["metric"] in OF_PRETRAINING
            task = PRETRAIN if itself else protocol.task
            asked = "" if itself else protocol.asked
            if miniature and protocol.blocks and float(protocol.blocks) > SIZES[size].depth:
                continue
            needs.places[task, asked, weights].setdefault(size)


def chosen_lanes(
    alike: Collection[tuple[str, str]], protocols: Collection[str]
) -> list[ProtocolId]:
    """Of protocols of ours like the paper's: those asked for by name, else the first;
    each in the version that there is now."""
    ids = [ProtocolId.read(each) for each, _ in alike]
    current = [each for each in ids if is_current(each)]
    asked = [each for each in current if each.asked in protocols]
    return asked if protocols else current[:1]


def is_current(protocol: ProtocolId) -> bool:
    """Whether the protocol of that id is the one that a run would follow now."""
    if protocol.task not in (PRETRAIN, *tasks.checked()):
        return False
    task = protocol.task if protocol.task == PRETRAIN else trained_task(protocol.task)
    version = ProtocolId.read(recipe(task, "vit_l", protocol.asked).protocol).version
    return version == protocol.version


def weights_for(
    needs: Needs,
    table: PaperTable,
    row: Row,
    method: str,
    size: str,
    released: bool,
    miniature: bool,
) -> str:
    """The weights of a row for a backbone, by the name that the suite has for them.

    Raises `BackboneError` with the reason if there is no way to them.
    """
    if plain(method) == SCRATCH:
        return SCRATCH
    label = next((each for each in (*METHODS, *BASELINES) if plain(each) == plain(method)), None)
    if table.settings:
        if row.pretrained is None:
            what = ", ".join(row.labels)
            raise BackboneError(f"{table.title}, {what}: a setting that mae-bench cannot vary")
        return pretraining_of(needs, table, row.pretrained, size, miniature)
    if label in METHODS and not (released and label in BASELINES and size in BASELINES[label]):
        if label == "mae":
            return pretraining_of(needs, table, {}, size, miniature)
        return f"{PRETRAIN_BY}{label}"
    release_of(label or method, size)
    return f"{RELEASED}{label}"


def pretraining_of(
    needs: Needs, table: PaperTable, changes: Mapping[str, Any], size: str, miniature: bool
) -> str:
    """The pre-training by MAE that a row asks for, which differs from the recipe as it has to."""
    wanted: dict[str, Any] = dict(changes)
    if not miniature:
        paper = {"epochs": table.epochs, "norm_pix": table.norm_pix}
        defaults = dict(ABLATION_DEFAULTS) if table.settings else {}
        wanted = {**defaults, **paper, **wanted}
    elif table.settings and "target" not in changes:
        wanted = {"norm_pix": table.norm_pix, **wanted}
    if wanted.get("target", "pixels") != "pixels":
        wanted.pop("norm_pix", None)  # of no use then
    base = recipe(PRETRAIN, size, "mae")
    kept = {k: v for k, v in sorted(wanted.items()) if v is not None and getattr(base, k) != v}
    if not kept:
        return f"{PRETRAIN_BY}mae"
    try:
        effective_changes(PRETRAIN, size, "mae", kept)
    except RunError as error:
        raise BackboneError(f"{table.title}: {error}") from None
    name = "-".join(["mae", *(f"{slug(k)}-{slug(v)}" for k, v in kept.items())])
    needs.weights[name] = WeightsSpec(pretrain=kept)
    return name


def merged(blocks: Collection[Block]) -> list[Block]:
    """Blocks that differ in one of their lists alone, taken together."""
    found = list(blocks)
    for name in ("weights", "protocols", "backbones"):
        groups: dict[str, Block] = {}
        for block in found:
            rest = block.model_dump_json(exclude={name})
            before = groups.setdefault(rest, block)
            if before is not block:
                both = [*getattr(before, name), *getattr(block, name)]
                groups[rest] = before.model_copy(update={name: list(dict.fromkeys(both))})
        found = list(groups.values())
    return found
