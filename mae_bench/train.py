"""The one training loop.

It is reproducible without saving any generator's state: the order of images derives from
(seed, epoch), a sample from (seed, epoch, index), and whatever is random in a forward pass from
(seed, step, micro-batch). A step's micro-batches are numbered over all processes, so one process
that accumulates and several that share compute the same losses.
"""

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from torch import Tensor

from backbones.vit import Block, compile_blocks
from mae_bench.batches import MicroBatches, load
from mae_bench.errors import Interrupted, RunError, is_lost
from mae_bench.execution import Execution
from mae_bench.late import Step, Steps
from mae_bench.optim import build_optimizer, build_schedule, clip
from mae_bench.progress import progress, say
from mae_bench.provenance import bf16_of_cpu, device_name
from mae_bench.run.keeping import Fitted, Keeper, is_finite
from mae_bench.run.log import TrainingLog
from mae_bench.run.validation import Validation
from mae_bench.run.writing import Run
from mae_bench.sharding import Networks, Sealed, refuse_unshardable
from mae_bench.signals import Noted, WaitingTooLong, noted
from tasks.errors import TaskError
from tasks.images import BadImages
from tasks.images.walk import plural
from tasks.processes import first_alone
from tasks.task import STAYING, Batch, Scoring, Task

PATIENCE = 5.0
"""seconds that one of several processes waits for images after a signal, to end with the others"""


def fit(
    task: Task,
    run: Run,
    accelerator: Accelerator,
    seed: int,
    how: Execution,
    scoring: Scoring | None = None,
) -> Fitted:
    """Train `task` by its recipe, from the newest state in `run` or from the start.

    With `scoring` it is scored now and then, as `how` says.

    What `refuse_unfit` refuses is to be refused before there is a run folder. Raises `RunError`
    for a loss that is not finite (nothing of that step is kept) and `Interrupted` after a signal,
    once the state is saved.
    """
    recipe, plan = task.recipe, micro_batches(task, accelerator, seed)
    networks = Networks(task, accelerator.device, how.shard)
    trained, ema = networks.trained, networks.ema
    prepare_blocks(trained, how)
    networks.shard()
    optimizer = build_optimizer(trained, recipe)
    parts: dict[str, Any] = {"model": trained, "optimizer": optimizer}
    if ema:
        parts["ema"] = ema
    device = device_name(accelerator.device)
    keeper = Keeper(run, parts, BadImages(how.max_bad_images), how.save_minutes, device)
    schedule = build_schedule(optimizer, recipe, plan.num_steps, plan.epoch_steps)
    plan.start = keeper.restore()
    first_alone(keeper.tell_disk)
    model = networks.wrapped(accelerator)
    if recipe.precision == "bf16" and accelerator.device.type == "cpu":
        say(f"bf16 on this CPU by {bf16_of_cpu()}")
    title = f"training {recipe.protocol} ({plural(recipe.epochs, 'epoch')})"
    with (
        TrainingLog(run, plan, how.log) as log,
        noted(0.0 if accelerator.num_processes == 1 else PATIENCE) as signals,
        progress(title, plan.num_steps, plan.start) as bar,
        closing(load(task.train_data, plan, how, accelerator.device)) as batches,
    ):
        looks = validation(run, plan, how, scoring)
        steps = Steps(accelerator, keeper, log, bar, plan)
        trained.train()
        for step in range(plan.start, plan.num_steps):
            if looks is not None and looks.is_due(step):
                steps.tell(steps.settle(0))
                stopped = partial(end_if_asked, steps, signals, step)
                with networks.assembled() as scored:
                    keeper.began += looks.look(step, scored, log.scalar, stopped)
            schedule.step_update(step)
            lr = max(group["lr"] for group in optimizer.param_groups)  # the head's
            with undone_if_cut_short(steps, signals, step):
                mine = step_gradients(model, batches, signals, plan, step, accelerator)
                steps.send(step, lr, mine, signals.number, keeper.due())
                known = steps.settle()
            clip(trained, recipe.clip_grad)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            trained.after_step(step + 1, plan.num_steps)
            if ema:
                ema.update(trained)
            saving = step + 1 == plan.num_steps or any(each.stop or each.due for each in known)
            if saving:
                known += steps.settle(0)
            steps.tell(known)
            if saving:
                if not is_finite(trained):
                    raise steps.not_finite("weights are", known[-1])
                log.sync()
                keeper.save(step + 1)
            if stop := max((each.stop for each in known), default=0):
                raise interrupted(stop, step + 1, plan, run)
    return keeper.fitted(networks.finished(), plan)


def validation(
    run: Run, plan: MicroBatches, how: Execution, scoring: Scoring | None
) -> Validation | None:
    """What scores the test images while training, if that is asked for."""
    asked = how.eval_every and scoring is not None
    return Validation(run, plan, how.eval_every, scoring) if asked and scoring else None


def end_if_asked(steps: Steps, signals: Noted, step: int) -> None:
    """Between steps: save and raise `Interrupted` once a signal has come.

    Of several processes each takes part in the scoring to its end.
    """
    if signals.number and PartialState().num_processes == 1:
        steps.log.sync()
        steps.keeper.save_alone(step)
        raise interrupted(signals.number, step, steps.plan, steps.keeper.run)


def prepare_blocks(task: Task, how: Execution) -> None:
    """Compile the transformer blocks, or have them recomputed in the backward pass, if asked."""
    for block in (module for module in task.modules() if isinstance(module, Block)):
        if how.checkpoint_activations:
            block.recompute()
    if how.compile:
        compile_blocks(task)


def refuse_foreign_blocks(task: Task, how: Execution) -> None:
    """Raise `RunError` for what `prepare_blocks` would not do to a backbone from outside."""
    asked = {"--compile": how.compile, "--checkpoint-activations": how.checkpoint_activations}
    flags = ", ".join(flag for flag, given in asked.items() if given)
    for block in getattr(getattr(task, "backbone", None), "blocks", ()) if flags else ():
        if not any(isinstance(module, Block) for module in block.modules()):
            raise RunError(
                f"{flags}: the blocks of {task.recipe.backbone} are its own "
                f"({type(block).__name__}), and this is for mae-bench's alone; leave it out"
            )


def refuse_unfit(task: Task, accelerator: Accelerator, seed: int, how: Execution) -> None:
    """Raise `RunError` if data, recipe and processes do not go together."""
    micro_batches(task, accelerator, seed)
    refuse_foreign_blocks(task, how)
    if how.shard:
        refuse_unshardable(task)
    try:
        build_optimizer(task, task.recipe)
    except ValueError as error:
        raise RunError(f"the recipe's optimizer refuses its numbers: {error}") from None


def micro_batches(task: Task, accelerator: Accelerator, seed: int) -> MicroBatches:
    """This process's share of the data."""
    rank, world = accelerator.process_index, accelerator.num_processes
    return MicroBatches(len(task.train_data), task.recipe, seed, rank, world, task.epoch_images)


def step_gradients(
    model: torch.nn.Module,
    batches: Iterator[Batch],
    signals: Noted,
    plan: MicroBatches,
    step: int,
    accelerator: Accelerator,
) -> Step:
    """Accumulate one step's gradients over this process's micro-batches.

    `model` takes batches sealed (`mae_bench.sharding.take_sealed`). A loss that is not finite does
    not end the step: the others wait for these gradients. Nothing here waits for the device.
    """
    mine, done = plan.mine(), Step()
    bf16 = plan.recipe.precision == "bf16"
    for number in mine:
        with signals.waiting():
            batch = next(batches)
        seed_forward(plan.seed, step, number)
        done.images.append(batch["index"].tolist())
        done.skipped += batch["skipped"]
        batch = placed(batch, accelerator.device)
        with nullcontext() if number == mine[-1] else accelerator.no_sync(model):
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=bf16):
                loss = model(Sealed(batch))["loss"]
            (loss / len(mine)).backward()
        done.losses.append(loss.detach())
    return done


def placed(batch: Batch, device: torch.device) -> Batch:
    """A batch with its tensors on the device, on their way at least; see `Batch` for what stays."""
    return {
        key: value.to(device, non_blocking=True)
        if isinstance(value, Tensor) and key not in STAYING
        else value
        for key, value in batch.items()
    }


def seed_forward(seed: int, step: int, number: int) -> None:
    """Seed torch's generators for one forward pass."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, number]).generate_state(1)[0]))


@contextmanager
def undone_if_cut_short(steps: Steps, signals: Noted, step: int) -> Iterator[None]:
    """Around the part of a step that changes no parameters, however long it waits for images.

    If a signal ends it, or the end of another process that got one too, the state after the steps
    before is saved, to the bit, and `Interrupted` raised. Any other error may come of a loss before
    that was not finite and was not read yet: then that is said.
    """
    task, keeper = steps.keeper.parts["model"], steps.keeper
    buffers = {name: value.clone() for name, value in task.named_buffers()}
    try:
        yield
    except (WaitingTooLong, Exception) as error:
        if not (isinstance(error, WaitingTooLong) or (signals.number and is_lost(error))):
            if not isinstance(error, RunError | TaskError) and PartialState().num_processes == 1:
                steps.settle(0)
            raise
        for name, value in task.named_buffers():  # batch norm's statistics
            value.copy_(buffers[name])
        known = steps.settle_alone()
        if known is not None:
            steps.tell(known)
            steps.log.sync()
            keeper.save_alone(step)
        # Loading processes that hang are waited for while the error lives no more: the state first.
        lost = step - keeper.step if keeper.is_sharded else 0
        raise interrupted(signals.number, step, steps.plan, keeper.run, lost) from None


def interrupted(stop: int, step: int, plan: MicroBatches, run: Run, lost: int = 0) -> Interrupted:
    """The exception that ends a run; its states are saved, if there was anything to save.

    Of a sharded network the last steps may be `lost`: to save it takes all processes.
    """
    kept = f"state saved in {run.folder}; the same command continues"
    if lost:
        kept = (
            f"a process waited for images, and a sharded network is saved by all together: "
            f"the same command continues after step {step - lost}"
        )
    return Interrupted(
        f"stopped by {signal.Signals(stop).name} after step {step} of {plan.num_steps}; "
        + (kept if step else "the same command begins again"),
        stop,
    )
