"""Which suite is meant: a table of the paper, a file, or what the flags say. Imports no torch."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from backbones.baselines import BASELINES
from mae_bench.arguments import SCRATCH, slug
from mae_bench.data import MINI
from mae_bench.errors import RunError
from mae_bench.pretraining.methods import METHODS
from mae_bench.suite import tables
from mae_bench.suite.spec import (
    PRETRAIN_BY,
    RELEASED,
    Block,
    SuiteSpec,
    WeightsSpec,
    read_spec,
)
from tasks import check_known

QUICKSTART = "quickstart"


class Choice(TypedDict, total=False):
    """What makes up a suite: the arguments of `suite` and `plan` besides how it is carried out.

    Without a name the suite is every combination of these lists.
    """

    backbone: Sequence[str]
    checkpoint: Sequence[str]
    """weights: files, or what else transfer takes"""
    init: Sequence[str]
    """weights: released ones by name, or scratch"""
    pretrain: Sequence[str]
    """weights: methods of pre-training"""
    tasks: Sequence[str]
    protocols: Sequence[str]
    """none: the first of each task"""
    overrides: Mapping[str, Any] | None
    """fields of the recipes of transfers"""
    pretrain_overrides: Mapping[str, Any] | None
    """fields of the recipes of pre-trainings"""
    sweep: Mapping[str, Sequence[Any]] | None
    """fields of the recipes of transfers, and the values of which the best is taken, see
    `transfer`"""
    sweep_holdout: float | None
    """share of the training images that is held out for that"""
    seeds: int | Sequence[int] | None
    """a number of them, or which"""
    released: bool
    """for a table: take released weights where there are some"""
    tokenizer: str | None
    """DALL-E's encoder.pkl for pre-trainings that predict tokens; None: one of our own is made"""
    data: str | None
    """mini, the default"""
    data_root: str | Path | None
    """or a folder with the data sets"""


LISTS = ("backbone", "checkpoint", "init", "pretrain", "tasks", "protocols")
OF_RECIPES = ("overrides", "pretrain_overrides", "sweep")


def chosen_spec(
    what: str | Path | None = None, **choice: Unpack[Choice]
) -> tuple[SuiteSpec, list[str]]:
    """The suite that is meant, and a line for each thing of it that cannot be run.

    Raises `RunError` with near matches for an unknown name, and for flags that do not go with it.
    """
    unknown = sorted(set(choice) - set(Choice.__annotations__))
    if unknown:
        raise TypeError(f"a suite has no argument {', '.join(unknown)}")
    data, data_root = choice.get("data"), choice.get("data_root")
    seeds, tokenizer = choice.get("seeds"), choice.get("tokenizer")
    if data not in (None, MINI):
        raise RunError(f"--data {data}: expected {MINI}; folders are found below --data-root")
    if data is not None and data_root is not None:
        raise RunError("--data and --data-root contradict each other; leave one out")
    flags: dict[str, Any] = {name: choice.get(name, ()) for name in LISTS}
    flags |= {name: choice.get(name) or {} for name in OF_RECIPES}
    flags |= {name: choice.get(name) for name in ("released", "sweep_holdout")}
    root = None if data_root is None else str(data_root)
    spec, left_out = named_suite(what, root, flags) if what else (by_flags(flags), [])
    changes: dict[str, Any] = {} if tokenizer is None else {"tokenizer": str(tokenizer)}
    if seeds is not None:
        changes["seeds"] = seeds if isinstance(seeds, int) else list(seeds)
    if data is not None or root is not None:
        changes |= {"data": data, "data_root": root}
    spec = spec.model_copy(update=changes)
    if spec.report:
        from results import paper_tables, published

        for name in spec.report:
            paper_tables(name, [], published())  # one that there is none of is said at once
    return spec, left_out


def named_suite(
    what: str | Path, root: str | None, flags: Mapping[str, Any]
) -> tuple[SuiteSpec, list[str]]:
    """A built-in suite, or the one in a file."""
    name = str(what)
    if name in tables.names():
        own = ("checkpoint", "init", "pretrain", "tasks", "overrides", "sweep", "sweep_holdout")
        refuse(name, flags, own)
        if flags["pretrain_overrides"]:
            raise RunError(f"--pretrain-overrides: {name} says its own; write it with --write")
        return tables.table_suite(
            name, flags["backbone"], flags["protocols"], bool(flags["released"]), root is None
        )
    given = [each for each in flags if flags[each]]
    if name == QUICKSTART:
        refuse(name, flags, given)
        from mae_bench.quickstart import SPEC

        return SPEC, []
    if name.endswith(".toml"):
        refuse(name, flags, given)
        return read_spec(Path(name)), []
    known = [QUICKSTART, *tables.names()]
    near = difflib.get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise RunError(f"unknown suite {name!r}; {hint}there are {', '.join(known)}, or a FILE.toml")


def refuse(name: str, flags: Mapping[str, Any], unfit: Sequence[str]) -> None:
    """Raise `RunError` if flags are given that a suite says itself."""
    given = [f"--{each.replace('_', '-')}" for each in unfit if flags[each]]
    if given:
        raise RunError(f"{', '.join(given)}: suite {name} says that itself; leave it out")


def by_flags(flags: Mapping[str, Any]) -> SuiteSpec:
    """Every combination of what the flags list."""
    backbones, names = list(flags["backbone"]), list(flags["tasks"])
    if not names:
        raise RunError("a suite needs --tasks, or the name of one: table-4, or a FILE.toml")
    if flags["released"]:
        raise RunError("--released is for tables of the paper; here --init mae names released ones")
    weights: dict[str, WeightsSpec] = {}
    chosen: list[str] = []
    for file in flags["checkpoint"]:
        label = unique(slug(Path(file).stem or file), weights)
        weights[label] = WeightsSpec(checkpoint=str(file))
        chosen.append(label)
    for init in flags["init"]:
        if init != SCRATCH:
            check_known("released weights", init, [*BASELINES, SCRATCH])
        chosen.append(init if init == SCRATCH else f"{RELEASED}{init}")
    for method in flags["pretrain"]:
        check_known("method", method, list(METHODS))
        if flags["pretrain_overrides"]:
            label = unique(f"{method}-changed", weights)
            changes = {"method": method, **flags["pretrain_overrides"]}
            weights[label] = WeightsSpec(pretrain=changes)
            chosen.append(label)
        else:
            chosen.append(f"{PRETRAIN_BY}{method}")
    if flags["pretrain_overrides"] and not flags["pretrain"]:
        raise RunError("--pretrain-overrides: nothing is pre-trained; give --pretrain mae too")
    if not chosen:
        raise RunError(
            "which weights? Give --checkpoint FILE, --init mae (released) or scratch, or "
            f"--pretrain {' or '.join(METHODS)}"
        )
    if flags["sweep_holdout"] is not None and not flags["sweep"]:
        raise RunError("--sweep-holdout: nothing is swept; give --sweep too, or leave it out")
    block = Block(
        backbones=backbones or [tables.MINIATURE],
        weights=chosen,
        tasks=names,
        protocols=list(flags["protocols"]),
        overrides=[dict(flags["overrides"])],
        sweep={name: list(values) for name, values in flags["sweep"].items()},
        **({} if flags["sweep_holdout"] is None else {"sweep_holdout": flags["sweep_holdout"]}),
    )
    return SuiteSpec(weights=weights, measure=[block])


def unique(label: str, taken: Mapping[str, object]) -> str:
    number = 2
    while label in taken:
        label, number = f"{label.rstrip('0123456789')}{number}", number + 1
    return label
