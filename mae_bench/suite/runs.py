"""What a suite consists of: descriptions of runs, each known by all that determines it.

Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import tasks
from backbones.baselines import name_of
from mae_bench.arguments import SCRATCH, shortened, slug
from mae_bench.execution import Execution, TrainingExecution
from mae_bench.grid import HOLDOUT, Grid, read_grid
from mae_bench.pretraining.methods import METHODS
from mae_bench.recipes import PRETRAIN, override, recipe
from mae_bench.run.files import BACKBONE_FILE
from tasks.recipe import Recipe, TrainingRecipe

Overrides = tuple[tuple[str, Any], ...]
"""recipe field and value, by name"""
TOKENIZER = "tokenizer"
"""method of pre-training that makes one"""
OF_EVALUATION = ("workers", "device", "save_logits")
"""fields of Execution that evaluate takes"""
OF_TRAINING = ("compile", "checkpoint_activations", "shard", "eval_every", "log")
"""fields that are refused where nothing is trained"""


@dataclass(frozen=True)
class SuiteRun:
    """One run of a suite: a pure description, equal to every other that gives the same result."""

    command: Literal["pretrain", "transfer", "evaluate"]
    task: str
    """downstream task, or test set of an evaluation; "pretrain" """
    protocol: str
    backbone: str
    seed: int
    data: str
    """folder, or mini"""
    overrides: Overrides = ()
    """what it changes of its recipe, without what the recipe says anyway"""
    weights: str | None = None
    """a checkpoint: file, timm: or hf: name"""
    init: str | None = None
    """label of the weights; a released baseline's or "scratch" without a checkpoint"""
    needs: "SuiteRun | None" = None
    """the run whose weights it starts from, or that it evaluates"""
    tokenizer: "SuiteRun | str | None" = None
    """of a pre-training that predicts tokens: the run that makes the tokenizer, or its file"""
    sweep: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """fields of its recipe and the values of which a transfer takes the best"""
    holdout: float = HOLDOUT
    """share of the training images by which it chooses"""
    called: str | None = None
    """name of its folder, where a suite gives one"""

    @property
    def before(self) -> "list[SuiteRun]":
        """The runs that have to be finished before it can start."""
        tokenizer = self.tokenizer if isinstance(self.tokenizer, SuiteRun) else None
        return [run for run in (self.needs, tokenizer) if run is not None]

    @cached_property
    def recipe(self) -> Recipe:
        """The effective one."""
        return override(
            recipe(self.recipe_task, self.backbone, self.protocol), dict(self.overrides)
        )

    @property
    def grid(self) -> Grid | None:
        """The candidates of its sweep; None: it has none."""
        if not self.sweep:
            return None
        base = recipe(self.task, self.backbone, self.protocol)
        return read_grid(dict(self.sweep), base, dict(self.overrides), self.holdout)

    @property
    def recipe_task(self) -> str:
        """An evaluation has the recipe of the run that it evaluates."""
        return self.needs.task if self.command == "evaluate" and self.needs else self.task

    @property
    def trains(self) -> bool:
        return self.command != "evaluate" and isinstance(self.recipe, TrainingRecipe)

    @property
    def name(self) -> str:
        """Of its folder: made of all that sets it apart from the other runs of suites."""
        if self.called is not None:
            return self.called
        if self.command == "evaluate" and self.needs:
            return shortened(f"{self.needs.name}-{self.task}")
        changes = "".join(f"-{slug(name)}-{slug(value)}" for name, value in self.overrides)
        if self.command == PRETRAIN:
            method = "" if self.protocol == "mae" else f"-{self.protocol}"
            return shortened(f"{PRETRAIN}{method}-{self.backbone}{changes}-seed{self.seed}")
        parts = [self.task, self.protocol, self.backbone, self.origin]
        changes += "".join(f"-sweep-{slug(k)}-{slug(v)}" for k, v in self.sweep)
        changes += f"-holdout-{self.holdout}" if self.holdout != HOLDOUT else ""
        return shortened(f"{'-'.join(map(slug, parts))}{changes}-seed{self.seed}")

    @property
    def origin(self) -> str:
        """Words for where the weights come from, for the name and for people."""
        if self.needs is not None:
            changes = "".join(f"-{slug(k)}-{slug(v)}" for k, v in self.needs.overrides)
            seed = "" if self.needs.seed == self.seed else f"-pretrained{self.needs.seed}"
            return f"{self.needs.protocol}{changes}{seed}"
        if self.init is not None:
            return self.init
        return name_of(Path(self.weights)) if self.weights else SCRATCH

    def words(self, out: Path, folders: Mapping["SuiteRun", str], how: Execution) -> list[str]:
        """The words of its command after `mae-bench`; `folders`: names of runs that are there."""
        if self.command == "evaluate" and self.needs:
            source = out / folders.get(self.needs, self.needs.name)
            words = ["evaluate", str(source), *flag("on", self.task), *flag("data", self.data)]
            return [
                *words,
                *flag("out", out),
                *flag("name", self.name),
                *changed_flags(how, "evaluate"),
            ]
        words = [self.command]
        if self.command == "transfer":
            words += [*flag("task", self.task), *flag("protocol", self.protocol)]
        elif self.protocol != "mae":
            words += flag("method", self.protocol)
        words += [*flag("backbone", self.backbone), *flag("data", self.data)]
        if self.needs is not None:
            name = folders.get(self.needs, self.needs.name)
            words += flag("checkpoint", out / name / BACKBONE_FILE)
        elif self.weights is not None:
            words += flag("checkpoint", self.weights)
        if self.init is not None and self.protocol != SCRATCH:
            words += flag("init", self.init)
        words += [*flag("out", out), *flag("name", self.name), *flag("seed", self.seed)]
        for name, value in self.overrides:
            words += flag(name, value)
        for name, values in self.sweep:
            words += ["--sweep", f"{name}={','.join(map(str, values))}"]
        words += flag("sweep-holdout", self.holdout) if self.holdout != HOLDOUT else []
        if isinstance(self.tokenizer, SuiteRun):
            words += flag("tokenizer", out / folders.get(self.tokenizer, self.tokenizer.name))
        elif self.tokenizer is not None:
            words += flag("tokenizer", self.tokenizer)
        return [*words, *changed_flags(how, self.command, self.trains)]


def pretraining_run(
    method: str,
    backbone: str,
    seed: int,
    data: str,
    changes: Mapping[str, Any],
    tokenizer: str | None = None,
) -> SuiteRun:
    """A pre-training; `RunError` for a change that its recipe does not take.

    One that predicts tokens takes those of the file `tokenizer`, or else of one that is made before
    on the same images, with seed 0 for all.
    """
    kept = effective_changes(PRETRAIN, backbone, method, changes)
    run = SuiteRun("pretrain", PRETRAIN, method, backbone, seed, data, kept)
    if METHODS[method].codebook(run.recipe) is None:
        return run
    own = SuiteRun("pretrain", PRETRAIN, TOKENIZER, backbone, 0, data)
    return replace(run, tokenizer=tokenizer or own)


def effective_changes(
    task: str, backbone: str, protocol: str, changes: Mapping[str, Any]
) -> Overrides:
    """What of some changes changes the recipe; `RunError` for an unknown field or a bad value."""
    base = recipe(task, backbone, protocol)
    changed = override(base, dict(changes))
    found = {each.name: getattr(changed, each.name) for each in fields(base)}
    differing = {k: v for k, v in found.items() if v != getattr(base, k)}
    return tuple(sorted(differing.items()))


def flag(name: str, value: object) -> list[str]:
    """--name with its value, as the command line takes it."""
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{dashed}" if value else f"--no-{dashed}"]
    if isinstance(value, tuple | list):
        return [f"--{dashed}", *map(str, value)]
    text = str(value)  # one that begins with a dash would be read as a flag
    return [f"--{dashed}={text}"] if text.startswith("-") else [f"--{dashed}", text]


def changed_flags(how: Execution, command: str, trains: bool = True) -> list[str]:
    """The flags of what `how` says otherwise than by default, as far as a command takes them."""
    usual, words = Execution(), []
    training = [each.name for each in fields(TrainingExecution)]
    for each in fields(Execution):
        value = getattr(how, each.name)
        if command == "evaluate" and each.name not in OF_EVALUATION:
            continue
        if command == PRETRAIN and each.name not in training:
            continue
        if not trains and each.name in OF_TRAINING:
            continue
        if value != getattr(usual, each.name):
            words += flag(each.name, value)
    return words


def title(run: SuiteRun) -> str:
    """A line for people: what is measured, of what, from which weights."""
    if run.command == PRETRAIN:
        changes = ", ".join(f"{k} {v}" for k, v in run.overrides)
        return f"pre-training {run.protocol} of {run.backbone}" + f" ({changes})" * bool(changes)
    if run.command == "evaluate":
        return f"{run.task} with {run.needs.name if run.needs else ''}"
    swept = f", swept over {run.grid}" if run.sweep else ""
    return f"{run.task}, {run.protocol}, {run.backbone} from {run.origin}{swept}"


def in_order(runs: list[SuiteRun]) -> list[SuiteRun]:
    """Each once, with what it needs before it."""
    found: dict[SuiteRun, None] = {}

    def add(run: SuiteRun) -> None:
        for each in run.before:
            add(each)
        found.setdefault(run)

    for run in runs:
        add(run)
    return list(found)


def check_task(task: str) -> None:
    """Raise `TaskError` with near matches unless it is a task or a data set that only tests."""
    known = [*tasks.known(), *(name for face in tasks.faces() for name in face.only_test)]
    tasks.check_known("task", task, known)
