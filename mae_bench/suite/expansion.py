"""From what a suite says to its runs, each judged before any of them starts. Imports no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import tasks
from backbones.baselines import BASELINES, release_of
from backbones.sizes import BackboneError
from mae_bench.arguments import SCRATCH, check_seed, transferring
from mae_bench.errors import RunError
from mae_bench.grid import as_words, read_grid
from mae_bench.pretraining.methods import METHODS
from mae_bench.recipes import PRETRAIN, recipe
from mae_bench.suite.folders import find_data
from mae_bench.suite.runs import (
    SuiteRun,
    check_task,
    effective_changes,
    in_order,
    pretraining_run,
)
from mae_bench.suite.spec import PRETRAIN_BY, RELEASED, Block, SuiteSpec, WeightsSpec, numbers
from tasks.face import CURVE, PARTIAL, Face
from tasks.recipe import TrainingRecipe

PRETRAINING_DATA = "imagenet1k"
"""whose training images pre-trainings take, as the paper's do"""


@dataclass
class Expanded:
    """The runs of a suite, and what cannot be run."""

    runs: list[SuiteRun] = field(default_factory=list)
    """each once, with what it needs before it"""
    left_out: list[str] = field(default_factory=list)
    """a line each"""


def expand(spec: SuiteSpec) -> Expanded:
    """All runs of a suite; `RunError` or another one-line error for what cannot be meant.

    Combinations of lists that do not go together, as linear probing of random weights, are left
    out by name.
    """
    folders = find_data(data_sets(spec), spec.data_root, spec.folders)
    found = Expanded()
    for block in spec.measure:
        for run in runs_of(block, spec, folders, found.left_out):
            found.runs.append(run)
    found.runs = in_order(found.runs)
    found.left_out = list(dict.fromkeys(found.left_out))
    unused = spec.tokenizer is not None and all(run.tokenizer is None for run in found.runs)
    if unused:
        raise RunError(
            f"tokenizer {spec.tokenizer}: no pre-training of this suite predicts tokens; "
            "leave it out"
        )
    if not found.runs:
        raise RunError(f"a suite without runs; left out: {'; '.join(found.left_out)}")
    names: dict[str, SuiteRun] = {}
    for run in found.runs:
        if names.setdefault(run.name, run) != run:
            raise RunError(
                f"two different runs would be called {run.name}; give weights that differ "
                "different labels (init)"
            )
    return found


def data_sets(spec: SuiteSpec) -> list[str]:
    """Those whose folders the suite needs; a `TaskError` for an unknown task."""
    found: dict[str, None] = {}
    for block in spec.measure:
        for task in block.tasks:
            if task != PRETRAIN:
                check_task(task)
                found.setdefault(task)
                found.setdefault(trained_task(task))
        for name in block.weights:
            if name.startswith(PRETRAIN_BY) or is_pretrained(spec.weights.get(name)):
                found.setdefault(PRETRAINING_DATA)
    return list(found)


def is_pretrained(weights: WeightsSpec | None) -> bool:
    return weights is not None and weights.pretrain is not None


def trained_task(task: str) -> str:
    """The task whose runs a data set tests; a task is its own."""
    face: Face = tasks.face_of(task)
    return next(iter(face.tasks)) if task in face.only_test else task


def runs_of(
    block: Block, spec: SuiteSpec, folders: Mapping[str, str], left_out: list[str]
) -> Iterator[SuiteRun]:
    """The combinations of one block."""
    seeds = numbers(spec.seeds if block.seeds is None else block.seeds)
    for seed in seeds:
        check_seed(seed)
    for backbone, name, task in product(block.backbones, block.weights, block.tasks):
        weights = weights_called(name, spec)
        try:
            starts = [start_of(weights, backbone, seed, folders, spec) for seed in seeds]
        except BackboneError as error:
            if not name.startswith(RELEASED):
                raise
            left_out.append(str(error))
            continue
        for start in starts:
            if task == PRETRAIN:
                if block.sweep:
                    raise RunError(
                        "sweep: a pre-training has no score to choose by; sweep transfers"
                    )
                if start.needs is None:
                    raise RunError(f"task {PRETRAIN}: weights {name} are not pre-trained here")
                yield start.needs
                continue
            for protocol in protocols_of(block, task, backbone, start, left_out):
                for changes in block.overrides:
                    run = measured(task, protocol, backbone, start, changes, folders)
                    yield with_sweep(run, block)


@dataclass(frozen=True)
class Start:
    """What a run starts from."""

    seed: int
    weights: str | None = None
    init: str | None = None
    needs: SuiteRun | None = None

    @property
    def is_scratch(self) -> bool:
        return self.init == SCRATCH and self.weights is None


def weights_called(name: str, spec: SuiteSpec) -> WeightsSpec | str:
    """Weights by their name in the suite, or a name that needs no entry; `TaskError` if unknown."""
    if name in spec.weights:
        return spec.weights[name]
    known = [SCRATCH, *(RELEASED + each for each in BASELINES), *(PRETRAIN_BY + m for m in METHODS)]
    tasks.check_known("weights", name, [*spec.weights, *known])
    return name


def start_of(
    weights: WeightsSpec | str,
    backbone: str,
    seed: int,
    folders: Mapping[str, str],
    spec: SuiteSpec,
) -> Start:
    if isinstance(weights, WeightsSpec):
        if weights.pretrain is None:
            return Start(seed, weights.checkpoint, weights.init)
        changes = {"tokenizer": spec.tokenizer} | weights.pretrain
        method, own_seed = changes.pop("method", "mae"), changes.pop("seed", seed)
        check_seed(own_seed)
        start = pretrained(method, backbone, seed, own_seed, changes, folders)
        own = weights.pretrain.get("tokenizer")
        if own is not None and start.needs is not None and start.needs.tokenizer is None:
            raise RunError(
                f"tokenizer {own}: pre-training by {method} predicts no tokens here; leave it out, "
                'or give target = "tokens" or method = "beit"'
            )
        return start
    if weights.startswith(PRETRAIN_BY):
        method, changes = weights.removeprefix(PRETRAIN_BY), {"tokenizer": spec.tokenizer}
        return pretrained(method, backbone, seed, seed, changes, folders)
    if weights.startswith(RELEASED):
        label = weights.removeprefix(RELEASED)
        release_of(label, backbone)
        return Start(seed, None, label)
    return Start(seed, None, SCRATCH)


def pretrained(
    method: str,
    backbone: str,
    seed: int,
    own_seed: int,
    changes: dict[str, Any],
    folders: Mapping[str, str],
) -> Start:
    tasks.check_known("method", method, list(METHODS))
    if not METHODS[method].makes_encoder:
        raise RunError(f"{PRETRAIN_BY}{method}: makes no encoder that a transfer could take")
    tokenizer = changes.pop("tokenizer", None)
    data = folders[PRETRAINING_DATA]
    return Start(seed, needs=pretraining_run(method, backbone, own_seed, data, changes, tokenizer))


def protocols_of(
    block: Block, task: str, backbone: str, start: Start, left_out: list[str]
) -> Iterator[str]:
    """The protocols of a task that go with where its weights come from."""
    trained = trained_task(task)
    there = tasks.protocols(trained)
    asked = list(block.protocols) or [next(iter(there))]
    if start.is_scratch and SCRATCH in there:
        usual = next(iter(there))
        asked = list(dict.fromkeys(SCRATCH if each == usual else each for each in asked))
    for protocol in asked:
        whole = protocol == CURVE and PARTIAL in there
        points = tasks.face_of(trained).recipes.curve(backbone) if whole else [protocol]
        for point in points:
            fault = unfit(trained, point, backbone, start)
            if fault:
                left_out.append(f"{trained}, {point} from {start.init or 'weights'}: {fault}")
            else:
                yield point


def unfit(task: str, protocol: str, backbone: str, start: Start) -> str | None:
    """Why a protocol does not go with such a start; errors of other kinds are raised."""
    own_recipe = SCRATCH in tasks.protocols(task)
    if own_recipe and protocol == SCRATCH and not start.is_scratch:
        return f"{SCRATCH} starts from random weights"
    trains = issubclass(tasks.recipe_type(task, protocol), TrainingRecipe)
    if own_recipe and start.is_scratch and protocol != SCRATCH and trains:
        return f"random weights go with {SCRATCH} and with probes"
    return None


def with_sweep(run: SuiteRun, block: Block) -> SuiteRun:
    """A transfer, or what an evaluation needs, with the sweep of its block, if there is one."""
    if not block.sweep:
        return run
    if run.command == "evaluate" and run.needs is not None:
        return replace(run, needs=with_sweep(run.needs, block))
    changes = dict(run.overrides)
    base = recipe(run.task, run.backbone, run.protocol)
    try:
        grid = read_grid(block.sweep, base, changes, block.sweep_holdout)
        fields = {name: as_words(name, values) for name, values in grid.fields.items()}
    except RunError as error:
        raise RunError(f"{run.task}, {run.protocol}: {error}") from None
    return replace(run, sweep=tuple(fields.items()), holdout=grid.holdout)


def measured(
    task: str,
    protocol: str,
    backbone: str,
    start: Start,
    changes: Mapping[str, Any],
    folders: Mapping[str, str],
) -> SuiteRun:
    """A transfer, or the evaluation of one; errors of what contradicts itself are raised here."""
    trained = trained_task(task)
    try:
        kept = effective_changes(trained, backbone, protocol, changes)
    except RunError as error:
        raise RunError(f"{trained}, {protocol}: {error}") from None
    weights = start.weights or (start.needs.name if start.needs else None)
    transferring(trained, backbone, protocol, weights, start.init, dict(kept))
    run = SuiteRun(
        "transfer",
        trained,
        protocol,
        backbone,
        start.seed,
        folders[trained],
        kept,
        start.weights,
        start.init,
        start.needs,
    )
    if task == trained:
        return run
    return SuiteRun(
        "evaluate", task, protocol, backbone, start.seed, folders[task], kept, needs=run
    )
