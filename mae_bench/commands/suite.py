"""`mae-bench suite` and `mae-bench plan`."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

import mae_bench
from mae_bench.arguments import check_common
from mae_bench.commands.shared import flag, go_on
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.grid import as_value, read_sweep
from mae_bench.suite.cost import UTILISATION
from mae_bench.suite.slurm import Slurm


@dataclass
class Choice:
    """Which runs: what suite and plan share."""

    what: Annotated[Positional[str | None], arg(metavar="[SUITE]")] = None
    """table-1a to table-1f, table-2 to table-7, table-12, table-13, figure-9, quickstart, or a
    FILE.toml, as --write writes it"""
    backbone: tuple[str, ...] = ()
    """one or more (default: the table's, on the miniature world vit_mini)"""
    checkpoint: tuple[str, ...] = ()
    """weights: files, or what else transfer takes"""
    init: tuple[str, ...] = ()
    """weights: released ones by name (mae, moco_v3, beit, dino, supervised), or scratch"""
    pretrain: tuple[str, ...] = ()
    """weights: pre-train them by these methods"""
    tasks: tuple[str, ...] = ()
    """what to measure, as transfer's --task and evaluate's --on name it"""
    protocols: tuple[str, ...] = ()
    """how (default: the first protocol of each task)"""
    overrides: tuple[str, ...] = ()
    """FIELD=VALUE: what to change of the recipes of transfers; marks the results"""
    sweep: Annotated[tuple[tuple[str, ...], ...], UseAppendAction] = ()
    """FIELD=VALUE,VALUE: values of fields of the recipes of transfers, of which each takes the best
    by held-out training images, as transfer's --sweep does"""
    sweep_holdout: float | None = None
    """with --sweep: share of the training images that is held out to choose by (default: 0.1)"""
    pretrain_overrides: tuple[str, ...] = ()
    """FIELD=VALUE: what to change of the recipes of pre-trainings"""
    seeds: int | None = None
    """how many runs of each that differ in the seed (default: 1, or what the file says)"""
    released: bool = False
    """for a table: take weights that authors released, where there are some, instead of
    pre-training"""
    tokenizer: str | None = None
    """DALL-E's encoder.pkl, for pre-trainings that predict tokens (default: one of our own is made
    before)"""
    data: str | None = None
    """mini: the built-in miniature world, the default"""
    data_root: Path | None = None
    """folder with the data sets, each in its official layout somewhere below"""
    out: Path = Path("runs")
    """folder of all runs"""
    execution: Annotated[Execution, arg(name="")] = field(default_factory=Execution)

    def words(self) -> list[object]:
        """What was given, as `mae-bench suite` takes it."""
        found: list[object] = [self.what] if self.what else []
        given: list[tuple[Any, Any]] = [
            (self, each) for each in fields(Choice) if each.name not in ("what", "execution")
        ]
        given += [(self.execution, each) for each in fields(Execution)]
        return found + given_flags(given)

    def chosen(self) -> dict[str, Any]:
        """As the functions take it."""
        check_common(self.out)
        given = {each.name: getattr(self, each.name) for each in fields(Choice)}
        for name in ("overrides", "pretrain_overrides"):
            given[name] = read_overrides(given[name], name.replace("_", "-"))
        given["sweep"] = read_sweep(self.sweep)
        return given


@dataclass
class Suite(Choice):
    """Do all runs that a table needs, pre-trainings included, and report.

    Give the name of a table or figure of the paper, a FILE.toml, or --tasks with weights. Runs
    that are there are not run again; the same command goes on where it was stopped.
    """

    jobs: int | None = None
    """runs under way at the same time (default: one for each GPU; without GPUs 1); on a cluster:
    of those that are put into its queue together (default: as many as it has room for)"""
    launcher: Literal["local", "slurm"] = "local"
    """slurm: each run is a job of a Slurm cluster, asked for by the flags below"""
    slurm: Annotated[Slurm, arg(name="")] = field(default_factory=Slurm)
    detach: bool = False
    """with --launcher slurm: put the jobs in and end; the same command later shows how they are
    and reports"""
    write: Path | None = None
    """write the suite into this FILE.toml, to be changed, and run nothing"""
    dry_run: bool = False
    """print what would be run and what it would cost, as mae-bench plan does, and run nothing"""

    def run(self) -> None:
        if self.dry_run:
            mae_bench.plan(**self.chosen())
            go_on("suite", *self.words(), *self.launcher_words())
            return
        asked = self.slurm if self.launcher == "slurm" else None
        flags = [f"--{name.replace('_', '-')}" for name in self.slurm.given]
        flags += ["--detach"] * self.detach
        if asked is None and flags:
            raise RunError(f"{', '.join(flags)}: for --launcher slurm alone; give it too")
        mae_bench.suite(
            **self.chosen(), jobs=self.jobs, write=self.write, slurm=asked, detach=self.detach
        )
        if self.write is not None:
            go_on("suite", self.write)
        elif self.detach:
            go_on("suite", *self.words(), *self.launcher_words())
        else:
            go_on("report", *flag("runs", self.out, "runs"))

    def launcher_words(self) -> list[object]:
        """What was given of the launcher, but for --detach."""
        own = [(self, each) for each in fields(Suite) if each.name in ("jobs", "launcher")]
        return given_flags([*own, *((self.slurm, each) for each in fields(Slurm))])


@dataclass
class Plan(Choice):
    """Print what suite would run, and what that would cost: time, memory, disk, FLOPs.

    A few steps of each kind of run are measured on the device at hand and extrapolated; or, with
    --on, the time of another device is reckoned from counted operations.
    """

    on: str | None = None
    """a device that is not at hand: v100-32gb, a100-40gb, a100-80gb, h100-80gb, h200-141gb or
    l40s-48gb"""
    utilisation: float = UTILISATION
    """with --on: share of its most operations that a training reaches"""

    def run(self) -> None:
        mae_bench.plan(**self.chosen(), on=self.on, utilisation=self.utilisation)
        go_on("suite", *self.words())


def given_flags(given: list[tuple[Any, Any]]) -> list[object]:
    """The flags of fields that say something else than by default."""
    found: list[object] = []
    for place, each in given:
        value, name = getattr(place, each.name), each.name.replace("_", "-")
        if isinstance(value, tuple):
            flat = (word for one in value for word in as_tuple(one))
            found += [f"--{name}", *flat] if value else []
        elif isinstance(value, bool):
            found += [f"--{name}"] if value else []
        else:
            found += flag(name, value, each.default)
    return found


def as_tuple(words: str | tuple[str, ...]) -> tuple[str, ...]:
    """The words of one flag, of which there may be several."""
    return words if isinstance(words, tuple) else (words,)


def read_overrides(words: tuple[str, ...], name: str) -> dict[str, Any]:
    """FIELD=VALUE words as values; a recipe gives them their type. `RunError` for other words."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise RunError(f"--{name} {word}: expected FIELD=VALUE, for example epochs=50")
        found[key] = as_value(value)
    return found
