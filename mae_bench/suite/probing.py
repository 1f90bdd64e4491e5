"""A few steps of a run, measured: in a process of its own, which leaves nothing behind."""

import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import backbones
import tasks
from mae_bench.batches import MicroBatches, load
from mae_bench.cost import flops_per_image
from mae_bench.data import task_root, usable
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.optim import build_optimizer, clip
from mae_bench.pretraining.discrete_vae import DiscreteVAE
from mae_bench.pretraining.methods import METHODS
from mae_bench.pretraining.tokenizer import Tokenizer, read_tokenizer
from mae_bench.provenance import environment, peak_memory
from mae_bench.recipes import PRETRAIN
from mae_bench.run.files import atomic
from mae_bench.setup import scoring as scoring_for
from mae_bench.setup import start
from mae_bench.sharding import take_sealed
from mae_bench.signals import noted
from mae_bench.suite.cost import Probe
from mae_bench.suite.runs import SuiteRun
from mae_bench.train import micro_batches, prepare_blocks, step_gradients
from tasks.task import Measurement, Scoring, Task

LONG_ENOUGH = 6.0
"""seconds of steps that are measured"""
FEWEST = 3
"""micro-batches that are measured at least"""
SOME_IMAGES = 8
"""that are scored in the first of two times, at least"""
FOR_PROBES = 256
"""the same of each split for probes, which need some of each class and enough neighbours"""
MOST_TIMES = 32
"""times those that are scored in the second of the two"""
Clock = Callable[[], float]


@dataclass(frozen=True)
class Steps:
    """Training, measured."""

    plan: MicroBatches
    micro_batch: float
    """seconds"""
    update: float
    """seconds"""
    activations: int
    """bytes of one image"""
    state: int
    """bytes of a saved state"""
    flops: float | None


def probe_into(run: SuiteRun, how: Execution, file: Path) -> None:
    """Probe a run and write what was found as JSON."""
    found = probe(run, how)
    with atomic(file) as stream:
        stream.write(json.dumps(asdict(found)).encode())


def probe(run: SuiteRun, how: Execution, clock: Clock = time.perf_counter) -> Probe:
    """What a run would cost on this device, from a few of its steps and test images.

    Weights are random ones, which cost the same. Raises what the run itself would raise for bad
    data.
    """
    began = clock()
    accelerator = start(how, run.seed)
    data = read(run, how)
    built = build(run, data)
    prepared = clock() - began
    steps = (
        train_some(built, accelerator, run.seed, how, clock) if isinstance(built, Task) else None
    )
    with TemporaryDirectory() as place:
        scored, kept = score_some(run, built, data, accelerator, how, Path(place), clock)
    facts = built.data_facts()
    module = network(built)
    weights = sum(each.numel() * each.element_size() for each in module.parameters())
    return Probe(
        parameters=sum(each.numel() for each in module.parameters()),
        train_images=facts["train_images"],
        test_images=facts["val_images"],
        steps=steps.plan.num_steps if steps else 0,
        micro_batches=len(steps.plan.mine()) if steps else 0,
        device_batch=run.recipe.device_batch,
        flops_per_image=steps.flops if steps else None,
        prepare_seconds=prepared,
        micro_batch_seconds=steps.micro_batch if steps else 0.0,
        update_seconds=steps.update if steps else 0.0,
        score_seconds=scored,
        peak_bytes=peak_memory(accelerator),
        activation_bytes=steps.activations if steps else 0,
        state_bytes=steps.state if steps else 0,
        weights_bytes=weights if steps else 0,
        prediction_bytes=kept,
        device=environment(accelerator).device,
    )


def read(run: SuiteRun, how: Execution) -> Any:
    """The data of a run, judged as the run itself would."""
    if run.command == PRETRAIN:
        return METHODS[run.protocol].read(run.data, how.max_bad_images)
    trained = run.needs if run.command == "evaluate" and run.needs else run
    return usable(trained.task, task_root(trained.task, trained.data), how.max_bad_images).data


def build(run: SuiteRun, data: Any, limit: int | None = None) -> Measurement:
    """What a run trains or scores, around random weights."""
    recipe = run.recipe
    if run.command == PRETRAIN:
        task = METHODS[run.protocol].build(recipe, data, run.seed)
        task.tokenizer = tokenizer(run)
        return task
    vit = backbones.create(run.backbone, **recipe.backbone_options())
    if run.command != "evaluate":
        return tasks.build(run.task, recipe, vit, data, run.seed, limit)
    from tasks.classification.classifier import Classifier
    from tasks.classification.recipe import ClassificationRecipe
    from tasks.classification.robustness import Robustness

    assert isinstance(recipe, ClassificationRecipe)
    model, classes = Classifier(recipe, vit, len(data.classes)), [str(c) for c in data.classes]
    return Robustness(model, classes, run.task, task_root(run.task, run.data), limit)


def tokenizer(run: SuiteRun) -> Tokenizer | None:
    """Whose tokens a pre-training predicts: of a file, or random as long as none is made; None: it
    predicts none."""
    if run.tokenizer is None:
        return None
    if isinstance(run.tokenizer, SuiteRun):
        recipe: Any = run.tokenizer.recipe
        encoder = DiscreteVAE(recipe.width, recipe.depth, recipe.codebook, recipe.narrow).encoder
        found = Tokenizer(encoder.eval().requires_grad_(False), run.tokenizer.name, "", {})
    else:
        found = read_tokenizer(run.tokenizer)
    wanted = METHODS[run.protocol].codebook(run.recipe)
    if found.encoder.codebook != wanted:
        raise RunError(
            f"tokenizer {found.name}: has {found.encoder.codebook:,} codes, and the recipe "
            f"predicts {wanted:,}"
        )
    return found


def train_some(
    task: Task, accelerator: Accelerator, seed: int, how: Execution, clock: Clock
) -> Steps:
    """Time micro-batches and updates after one of each, which is slower than the others."""
    recipe, plan = task.recipe, micro_batches(task, accelerator, seed)
    flops = flops_per_image(task)
    task.to(accelerator.device)
    optimizer = build_optimizer(task, recipe)
    ema = ModelEmaV3(task, decay=recipe.ema_decay) if recipe.ema_decay else None
    prepare_blocks(task, how)
    take_sealed(task)
    model = accelerator.prepare_model(task)
    task.train()
    alone = one_at_a_time(plan)
    saved = SavedTensors()
    times: list[float] = []
    updates: list[float] = []
    with (
        noted(0.0) as signals,
        closing(load(task.train_data, alone, how, accelerator.device)) as batches,
    ):

        def forward_backward() -> None:
            step_gradients(model, batches, signals, alone, 0, accelerator)

        def update() -> None:
            clip(task, recipe.clip_grad)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if ema:
                ema.update(task)

        with saved, counted(flops) as counter:
            forward_backward()
        update()
        while len(times) < FEWEST or sum(times) < LONG_ENOUGH:
            if len(times) + 2 > alone.num_steps:
                break
            times.append(timed(forward_backward, accelerator, clock))
            if len(updates) < FEWEST:
                updates.append(timed(update, accelerator, clock))
    if counter is not None:
        flops = counter.get_total_flops() / recipe.device_batch
    parts = [task.state_dict(), optimizer.state_dict(), ema.state_dict() if ema else {}]
    return Steps(
        plan,
        sum(times) / max(1, len(times)),
        sum(updates) / max(1, len(updates)),
        saved.bytes // recipe.device_batch,
        sum(map(tensor_bytes, parts)),
        flops,
    )


def one_at_a_time(plan: MicroBatches) -> MicroBatches:
    """Steps of one micro-batch each, of the same size."""
    recipe = replace(plan.recipe, batch_size=plan.recipe.device_batch * plan.world)
    return MicroBatches(plan.num_images, recipe, plan.seed, plan.rank, plan.world)


def network(measured: Any) -> nn.Module:
    """The network in a task, a probe or an evaluation."""
    if isinstance(measured, nn.Module):
        return measured
    found = getattr(measured, "model", None) or measured.backbone
    assert isinstance(found, nn.Module)
    return found


def timed(what: Callable[[], None], accelerator: Accelerator, clock: Clock) -> float:
    began = clock()
    what()
    if accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - began


class SavedTensors(torch.autograd.graph.saved_tensors_hooks):
    """Counts what a forward pass keeps for the backward pass, each storage once."""

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        super().__init__(self.note, lambda tensor: tensor)

    def note(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            self.seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def bytes(self) -> int:
        return sum(self.seen.values())


class counted:
    """Counts operations while open, if they are not known."""

    def __init__(self, known: float | None) -> None:
        self.counter = FlopCounterMode(display=False) if known is None else None

    def __enter__(self) -> FlopCounterMode | None:
        if self.counter is not None:
            self.counter.__enter__()
        return self.counter

    def __exit__(self, *error: Any) -> None:
        if self.counter is not None:
            self.counter.__exit__(*error)


def tensor_bytes(state: Any) -> int:
    """Of all tensors in nested dictionaries and lists."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    inside = state.values() if isinstance(state, dict) else state
    return sum(map(tensor_bytes, inside)) if isinstance(state, dict | list | tuple) else 0


def score_some(
    run: SuiteRun,
    built: Measurement,
    data: Any,
    accelerator: Accelerator,
    how: Execution,
    place: Path,
    clock: Clock,
) -> tuple[float, int]:
    """Seconds for the whole test set, and bytes of what is kept about it: from two parts of it."""
    total = built.data_facts()["val_images"]
    if not total:
        return 0.0, 0
    trains = isinstance(built, Task) or run.command == "evaluate"
    few = min(total, max(SOME_IMAGES if trains else FOR_PROBES, run.recipe.device_batch))
    points: list[tuple[int, float, int]] = []
    for number in (few, 0):
        if not number:  # the second time as many as there is time for
            fewest, most = 3 * few, MOST_TIMES * few
            number = min(total, max(fewest, min(most, int(few * LONG_ENOUGH / points[0][1]))))
            if number <= few:
                break
        part = build(run, data, number)
        images = seen(part)
        folder = place / str(number)
        folder.mkdir()
        options: dict[str, Any] = {"batch_size": run.recipe.device_batch, "folder": folder}
        scoring: Scoring = scoring_for(part, how, accelerator, **options)
        network(part).to(accelerator.device)
        took = timed(lambda part=part, scoring=scoring: part.evaluate(scoring), accelerator, clock)  # type: ignore[misc]
        kept = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        points.append((images, took, kept))
    whole = seen(built)
    return line_at(whole, [p[:2] for p in points]), int(
        line_at(whole, [(p[0], p[2]) for p in points])
    )


def seen(measured: Measurement) -> int:
    """Images that scoring looks at: those of the test set, and for probes of the training set."""
    facts = measured.data_facts()
    return facts["val_images"] + (0 if isinstance(measured, Task) else facts["train_images"])


def line_at(where: float, points: list[tuple[float, float]]) -> float:
    """The line through two points, or through one and nothing, at a place."""
    (first, low), (last, high) = points[0], points[-1]
    if last == first:
        return high * where / last
    slope = max(0.0, (high - low) / (last - first))
    return high + slope * (where - last)
