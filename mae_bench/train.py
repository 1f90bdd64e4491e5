"""The one training loop.

It is reproducible without saving any generator's state: the order of images derives from
(seed, epoch), a sample from (seed, epoch, index), and whatever is random in a forward pass from
(seed, step, micro-batch). A step's micro-batches are numbered over all processes, so one process
that accumulates and several that share compute the same losses.
"""

import math
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import gather_object
from timm.utils import ModelEmaV3
from torch import Tensor

from backbones.vit import Block
from mae_bench.batches import MicroBatches, load
from mae_bench.errors import Interrupted, RunError, is_lost
from mae_bench.execution import Execution
from mae_bench.optim import build_optimizer, build_schedule, clip
from mae_bench.progress import progress, say
from mae_bench.run.keeping import Fitted, Keeper, is_finite
from mae_bench.run.log import TrainingLog
from mae_bench.run.validation import Validation
from mae_bench.run.writing import Run
from mae_bench.signals import Noted, WaitingTooLong, noted
from tasks.images import BadImages, Unreadable
from tasks.images.walk import plural
from tasks.processes import first_alone
from tasks.task import Batch, Scoring, Task

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
    task.to(accelerator.device)
    optimizer = build_optimizer(task, recipe)
    parts: dict[str, Any] = {"model": task, "optimizer": optimizer}
    ema = ModelEmaV3(task, decay=recipe.ema_decay) if recipe.ema_decay else None
    if ema:
        parts["ema"] = ema
    keeper = Keeper(run, parts, BadImages(how.max_bad_images), how.save_minutes)
    schedule = build_schedule(optimizer, recipe, plan.num_steps, plan.epoch_steps)
    plan.start = keeper.restore()
    first_alone(keeper.tell_disk)
    prepare_blocks(task, how)
    model = accelerator.prepare_model(task)
    title = f"training {recipe.protocol} ({plural(recipe.epochs, 'epoch')})"
    with (
        TrainingLog(run, plan) as log,
        noted(0.0 if accelerator.num_processes == 1 else PATIENCE) as signals,
        progress(title, plan.num_steps, plan.start) as bar,
        closing(load(task.train_data, plan, how, accelerator.device)) as batches,
    ):
        looks = validation(run, plan, how, scoring)
        task.train()
        for step in range(plan.start, plan.num_steps):
            if looks is not None and looks.is_due(step):
                stopped = partial(end_if_asked, keeper, log, signals, step, plan)
                keeper.began += looks.look(step, ema.module if ema else task, log.board, stopped)
            schedule.step_update(step)
            with undone_if_cut_short(keeper, log, signals, step, plan):
                mine = step_gradients(model, batches, signals, plan, step, accelerator)
                loss, stop, due, skipped = agree(accelerator, mine, signals.number, keeper.due())
            lr = max(group["lr"] for group in optimizer.param_groups)  # the head's
            where = f"step {step + 1} of {plan.num_steps} (lr {lr:.3e})"
            if not math.isfinite(loss):
                raise not_finite("loss is", run, task, mine.suspects, where)
            leave_out(skipped, keeper)
            clip(task, recipe.clip_grad)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            task.after_step(step + 1, plan.num_steps)
            if ema:
                ema.update(task)
            keeper.note(loss, first=step % plan.steps_per_epoch == 0)
            log.write(step + 1, loss, lr, bar)
            if stop or due or step + 1 == plan.num_steps:
                if not is_finite(task):
                    raise not_finite("weights are", run, task, mine.suspects, where)
                log.sync()
                keeper.save(step + 1)
            if stop:
                raise interrupted(stop, step + 1, plan, run)
    return keeper.fitted(ema.module if ema else task, plan)


def validation(
    run: Run, plan: MicroBatches, how: Execution, scoring: Scoring | None
) -> Validation | None:
    """What scores the test images while training, if that is asked for."""
    asked = how.eval_every and scoring is not None
    return Validation(run, plan, how.eval_every, scoring) if asked and scoring else None


def end_if_asked(
    keeper: Keeper, log: TrainingLog, signals: Noted, step: int, plan: MicroBatches
) -> None:
    """Between steps: save and raise `Interrupted` once a signal has come.

    Of several processes each takes part in the scoring to its end.
    """
    if signals.number and PartialState().num_processes == 1:
        log.sync()
        keeper.save_alone(step)
        raise interrupted(signals.number, step, plan, keeper.run)


def prepare_blocks(task: Task, how: Execution) -> None:
    """Compile the transformer blocks, or have them recomputed in the backward pass, if asked."""
    for block in (module for module in task.modules() if isinstance(module, Block)):
        if how.checkpoint_activations:
            block.recompute()
        if how.compile:
            block.compile()


def refuse_unfit(task: Task, accelerator: Accelerator, seed: int) -> None:
    """Raise `RunError` if data, recipe and processes do not go together."""
    micro_batches(task, accelerator, seed)
    try:
        build_optimizer(task, task.recipe)
    except ValueError as error:
        raise RunError(f"the recipe's optimizer refuses its numbers: {error}") from None


def micro_batches(task: Task, accelerator: Accelerator, seed: int) -> MicroBatches:
    """This process's share of the data."""
    rank, world = accelerator.process_index, accelerator.num_processes
    return MicroBatches(len(task.train_data), task.recipe, seed, rank, world, task.epoch_images)


@dataclass
class Step:
    """This process's part of an optimiser step."""

    loss: float = 0.0
    """mean over its micro-batches"""
    suspects: list[int] = field(default_factory=list)
    """image indices of the micro-batches whose loss is not finite, or of all if every one is"""
    skipped: list[Unreadable] = field(default_factory=list)
    """unreadable images"""


def step_gradients(
    model: torch.nn.Module,
    batches: Iterator[Batch],
    signals: Noted,
    plan: MicroBatches,
    step: int,
    accelerator: Accelerator,
) -> Step:
    """Accumulate one step's gradients over this process's micro-batches.

    A loss that is not finite does not end the step: the others wait for these gradients.
    """
    mine, done = plan.mine(), Step()
    fine: list[int] = []
    bf16 = plan.recipe.precision == "bf16"
    for number in mine:
        with signals.waiting():
            batch = next(batches)
        seed_forward(plan.seed, step, number)
        batch = {
            k: v.to(accelerator.device, non_blocking=True) if isinstance(v, Tensor) else v
            for k, v in batch.items()
        }
        with nullcontext() if number == mine[-1] else accelerator.no_sync(model):
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=bf16):
                loss = model(batch)["loss"]
            (loss / len(mine)).backward()
        value = loss.item()
        done.loss += value / len(mine)
        done.skipped += batch["skipped"]
        (fine if math.isfinite(value) else done.suspects).extend(batch["index"].tolist())
    done.suspects = done.suspects or fine
    return done


def seed_forward(seed: int, step: int, number: int) -> None:
    """Seed torch's generators for one forward pass."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, number]).generate_state(1)[0]))


class Agreed(NamedTuple):
    """A step as all processes see it: the same in each of them."""

    loss: float
    """mean over all micro-batches"""
    stop: int
    """number of a signal that any process got, or 0"""
    due: bool
    """whether it is time to save"""
    skipped: list[Unreadable]
    """unreadable images"""


def agree(accelerator: Accelerator, mine: Step, stop: int, due: bool) -> Agreed:
    if accelerator.num_processes == 1:
        return Agreed(mine.loss, stop, due, mine.skipped)
    row = torch.tensor([[mine.loss, stop, due, len(mine.skipped)]], dtype=torch.float64)
    loss, stops, dues, skips = accelerator.gather(row.to(accelerator.device)).unbind(1)
    skipped = gather_object(mine.skipped) if skips.any() else []
    return Agreed(loss.mean().item(), int(stops.max()), bool(dues.any()), skipped)


def leave_out(skipped: list[Unreadable], keeper: Keeper) -> None:
    """Name and count unreadable images; `TaskError` once they are too many."""
    bad, before = keeper.bad, len(keeper.bad)
    try:
        for each in skipped:
            if each.name not in bad:
                bad.add(each)
                place = f"{len(bad)} of at most {bad.limit}"
                say(f"left out an unreadable image, {place}: {each.name}: {each.reason}")
    finally:
        if len(bad) > before:
            keeper.write_unreadable()


def not_finite(what: str, run: Run, task: Task, suspects: list[int], where: str) -> RunError:
    """The error that ends a diverged run; all file names go to a file in the run folder."""
    names = sorted(set(gather_object(task.train_data.names(suspects))))
    file = run.folder / "not_finite.txt"
    text = "".join(f"{name}\n" for name in names)
    first_alone(lambda: file.write_text(text, errors="surrogateescape"))
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    kept = run.state_files()
    return RunError(
        f"{what} not finite at {where}; images: {shown} (all in {file}); "
        + (f"last good state: {kept[-1]}" if kept else "no state was saved before it")
        + "; lower --base-lr or use --precision fp32"
    )


@contextmanager
def undone_if_cut_short(
    keeper: Keeper, log: TrainingLog, signals: Noted, step: int, plan: MicroBatches
) -> Iterator[None]:
    """Around the part of a step that changes no parameters, however long it waits for images.

    If a signal ends it, or the end of another process that got one too, the state after the steps
    before is saved, to the bit, and `Interrupted` raised.
    """
    task = keeper.parts["model"]
    buffers = {name: value.clone() for name, value in task.named_buffers()}
    try:
        yield
    except (WaitingTooLong, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not (signals.number and is_lost(error)):
            raise
        for name, value in task.named_buffers():  # batch norm's statistics
            value.copy_(buffers[name])
        log.sync()
        keeper.save_alone(step)
        # Loading processes that hang are waited for while the error lives no more: the state first.
        raise interrupted(signals.number, step, plan, keeper.run) from None


def interrupted(stop: int, step: int, plan: MicroBatches, run: Run) -> Interrupted:
    """The exception that ends a run; its states are saved, if there was anything to save."""
    kept = f"state saved in {run.folder}; the same command continues"
    return Interrupted(
        f"stopped by {signal.Signals(stop).name} after step {step} of {plan.num_steps}; "
        + (kept if step else "the same command begins again"),
        stop,
    )
