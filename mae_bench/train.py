"""The one training loop.

It is reproducible without saving any generator's state: the order of images derives from
(seed, epoch), a sample from (seed, epoch, index), and whatever is random in a forward pass from
(seed, step, micro-batch). A step's micro-batches are numbered over all processes, so one process
that accumulates and several that share compute the same losses.
"""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from backbones.vit import Block
from mae_bench.errors import Interrupted, RunError
from mae_bench.execution import Execution
from mae_bench.optim import build_optimizer, build_schedule, clip
from mae_bench.progress import Bar, console, progress
from mae_bench.run import Run
from tasks.images import BadImages
from tasks.recipe import Recipe
from tasks.task import Batch, Task


@dataclass
class Fitted:
    """What training leaves behind."""

    model: Task
    """the weights to evaluate: the averaged ones if the recipe averages"""
    last_loss: float
    """mean training loss of the last epoch"""
    started: datetime
    """when the run began, before any resume"""
    seconds: float
    """training time, resumed parts added up"""
    images_per_second: float
    skipped_images: int


class MicroBatches:
    """The keys of this process's micro-batches, from `start` steps on to the end of training.

    Each epoch is a fresh permutation whose last partial batch is dropped, as in the reference.
    """

    def __init__(self, num_images: int, recipe: Recipe, seed: int, rank: int, world: int) -> None:
        self.recipe, self.seed, self.rank, self.world = recipe, seed, rank, world
        self.num_images, self.start = num_images, 0
        self.steps_per_epoch = num_images // recipe.batch_size
        if not self.steps_per_epoch:
            raise RunError(
                f"{num_images} training images are fewer than the batch of {recipe.batch_size}; "
                "lower --batch-size"
            )
        self.per_step = recipe.batch_size // recipe.device_batch
        if self.per_step % world:
            raise RunError(
                f"a batch of {recipe.batch_size} makes {self.per_step} micro-batches of "
                f"{recipe.device_batch}, which {world} processes cannot share evenly; "
                "choose another --device-batch"
            )

    @property
    def num_steps(self) -> int:
        return self.recipe.epochs * self.steps_per_epoch

    def mine(self) -> range:
        """Numbers, within a step, of this process's micro-batches."""
        return range(self.rank, self.per_step, self.world)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        size, batch = self.recipe.device_batch, self.recipe.batch_size
        for epoch in range(self.start // self.steps_per_epoch, self.recipe.epochs):
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_images)
            first = max(self.start - epoch * self.steps_per_epoch, 0)
            for step in range(first, self.steps_per_epoch):
                for number in self.mine():
                    begin = step * batch + number * size
                    yield [(epoch, int(i)) for i in order[begin : begin + size]]


def fit(task: Task, run: Run, accelerator: Accelerator, seed: int, how: Execution) -> Fitted:
    """Train `task` by its recipe, from the newest state in `run` or from the start.

    Raises `RunError` for a loss that is not finite (nothing of that step is kept) and
    `Interrupted` after a signal, once the state is saved.
    """
    recipe, main = task.recipe, accelerator.is_main_process
    plan = MicroBatches(
        len(task.train_data), recipe, seed, accelerator.process_index, accelerator.num_processes
    )
    task.to(accelerator.device)
    optimizer = build_optimizer(task, recipe)
    schedule = build_schedule(optimizer, recipe, plan.steps_per_epoch)
    parts: dict[str, Any] = {"model": task, "optimizer": optimizer}
    ema = ModelEmaV3(task, decay=recipe.ema_decay) if recipe.ema_decay else None
    if ema:
        parts["ema"] = ema
    keeper = Keeper(run, parts, accelerator, how.save_minutes)
    step = plan.start = keeper.restore()
    if how.compile:
        for module in task.modules():
            if isinstance(module, Block):
                module.compile()
    model = accelerator.prepare_model(task)
    batches = loader(task, plan, how, accelerator)
    bad = BadImages(how.max_bad_images)
    title = f"training {recipe.protocol} ({recipe.epochs} epochs)"
    with (
        Log(run, step, plan.steps_per_epoch, recipe.batch_size, main) as log,
        stop_signals() as stop_signal,
        progress(title, plan.num_steps, step, main) as bar,
    ):
        task.train()
        while step < plan.num_steps:
            schedule.step_update(step)
            loss, failed = step_gradients(model, batches, plan, step, accelerator, bad)
            loss, any_failed, stop = agree(accelerator, loss, failed, stop_signal())
            if any_failed:
                where = f"step {step + 1} of {plan.num_steps} (lr {top_lr(optimizer):.3e})"
                raise not_finite(accelerator, run, task, failed, where)
            clip(task, recipe.clip_grad)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if ema:
                ema.update(task)
            if step % plan.steps_per_epoch == 0:
                keeper.epoch_losses.clear()
            keeper.epoch_losses.append(loss)
            step += 1
            log.write(step, loss, top_lr(optimizer), bar)
            if stop or step == plan.num_steps or keeper.due():
                keeper.save(step)
            if stop and step < plan.num_steps:
                raise Interrupted(
                    f"stopped by {signal.Signals(stop).name} after step {step} of "
                    f"{plan.num_steps}; state saved in {run.folder}; the same command continues",
                    stop,
                )
    seconds = keeper.seconds()
    return Fitted(
        model=ema.module if ema else task,
        last_loss=float(np.mean(keeper.epoch_losses)),
        started=datetime.fromtimestamp(keeper.started, UTC),
        seconds=seconds,
        images_per_second=plan.num_steps * recipe.batch_size / seconds,
        skipped_images=len(bad.names),
    )


def step_gradients(
    model: torch.nn.Module,
    batches: Iterator[Batch],
    plan: MicroBatches,
    step: int,
    accelerator: Accelerator,
    bad: BadImages,
) -> tuple[float, list[int]]:
    """Accumulate one step's gradients over this process's micro-batches.

    Returns the mean loss and the image indices of micro-batches whose loss is not finite; even
    then the step goes on, because the other processes wait for this one's gradients.
    """
    mine, total, failed = plan.mine(), 0.0, []
    bf16 = plan.recipe.precision == "bf16"
    for number in mine:
        batch = next(batches)
        for name in batch["skipped"]:
            bad.add(name)
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
        if not math.isfinite(value):
            failed += batch["index"].tolist()
        total += value
    return total / len(mine), failed


def seed_forward(seed: int, step: int, number: int) -> None:
    """Seed torch's generators for one forward pass."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, number]).generate_state(1)[0]))


def agree(
    accelerator: Accelerator, loss: float, failed: list[int], stop: int
) -> tuple[float, bool, int]:
    """Mean loss, whether any process failed, and any signal: the same in every process."""
    if accelerator.num_processes == 1:
        return loss, bool(failed), stop
    mine = torch.tensor([[loss, float(bool(failed)), float(stop)]], dtype=torch.float64)
    losses, fails, stops = accelerator.gather(mine.to(accelerator.device)).unbind(1)
    return losses.mean().item(), bool(fails.any()), int(stops.max())


def not_finite(
    accelerator: Accelerator,
    run: Run,
    task: Task,
    failed: list[int],
    where: str,
) -> RunError:
    """The error for a loss that is not finite; all file names go to a file in the run folder."""
    names = sorted(set(gather_object(task.train_data.names(failed))))
    file = run.folder / "not_finite.txt"
    if accelerator.is_main_process:
        file.write_text("".join(f"{name}\n" for name in names))
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    kept = run.state_files()
    return RunError(
        f"loss is not finite at {where}; images: {shown} (all in {file}); "
        + (f"last good state: {kept[-1]}" if kept else "no state was saved before it")
        + "; lower --base-lr or use --precision fp32"
    )


class Keeper:
    """Saves and restores everything that training needs to go on."""

    def __init__(
        self, run: Run, parts: dict[str, Any], accelerator: Accelerator, save_minutes: float
    ) -> None:
        self.run, self.accelerator, self.save_minutes = run, accelerator, save_minutes
        self.parts = parts
        self.epoch_losses: list[float] = []
        self.before, self.began, self.started = 0.0, time.monotonic(), time.time()
        self.saved = self.began

    def restore(self) -> int:
        """Load the newest good state; the number of steps that it has behind it."""
        state, damaged = self.run.newest_state()
        if self.accelerator.is_main_process:
            for line in damaged:
                console.print(f"[yellow]{line}[/]")
        if state is None:
            return 0
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.epoch_losses = state["epoch_losses"]
        self.before, self.started = state["seconds"], state["started"]
        return state["step"]

    def save(self, step: int) -> None:
        self.saved = time.monotonic()
        if self.accelerator.is_main_process:
            state = {name: part.state_dict() for name, part in self.parts.items()}
            state |= {"epoch_losses": self.epoch_losses, "seconds": self.seconds()}
            self.run.save_state(step, {**state, "started": self.started})

    def due(self) -> bool:
        return time.monotonic() - self.saved >= 60 * self.save_minutes

    def seconds(self) -> float:
        """Training time so far, earlier parts of a resumed run included."""
        return self.before + time.monotonic() - self.began


class Log:
    """log.jsonl (every step, only what is reproducible), TensorBoard, and the progress bar."""

    def __init__(
        self, run: Run, step: int, steps_per_epoch: int, batch_size: int, main: bool
    ) -> None:
        self.steps_per_epoch, self.batch_size = steps_per_epoch, batch_size
        self.lines, self.board = None, None
        if main:
            run.cut_log(step)
            self.lines = run.log_file.open("a", buffering=1)
            self.board = SummaryWriter(str(run.folder / "tensorboard"), purge_step=step)
        self.since, self.steps = time.monotonic(), 0

    def write(self, step: int, loss: float, lr: float, bar: Bar) -> None:
        if self.lines is None or self.board is None:
            return
        epoch = step / self.steps_per_epoch
        entry = {"step": step, "epoch": round(epoch, 4), "loss": loss, "lr": lr}
        self.lines.write(json.dumps(entry) + "\n")
        self.steps += 1
        passed = time.monotonic() - self.since
        if passed < 1.0:
            return
        speed = self.steps * self.batch_size / passed
        self.since, self.steps = time.monotonic(), 0
        for name, value in (("loss", loss), ("lr", lr), ("images_per_second", speed)):
            self.board.add_scalar(name, value, step)
        bar.update(step, f"loss {loss:.4f}  lr {lr:.2e}  {speed:,.0f} images/s")

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        if self.lines is not None and self.board is not None:
            self.lines.close()
            self.board.close()


def loader(
    task: Task, plan: MicroBatches, how: Execution, accelerator: Accelerator
) -> Iterator[Batch]:
    """Micro-batches in the order of `plan`, loaded ahead by worker processes."""
    return iter(
        DataLoader(
            task.train_data,  # type: ignore[arg-type]  # makes whole batches, see TrainData
            batch_sampler=plan,
            collate_fn=as_it_is,
            num_workers=how.workers,
            pin_memory=accelerator.device.type == "cuda",
            worker_init_fn=leave_signals_to_the_parent,
            prefetch_factor=4 if how.workers else None,
        )
    )


def as_it_is(batch: Any) -> Any:
    return batch


def leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C reaches the whole process group; a worker that dies of it would spoil the saving."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


@contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """While open, SIGTERM and Ctrl-C are noted instead of obeyed; call for the number, or 0."""
    seen = [0]

    def note(number: int, _: object) -> None:
        seen[0] = number

    before = {s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: seen[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def top_lr(optimizer: torch.optim.Optimizer) -> float:
    """Learning rate of the head."""
    return max(group["lr"] for group in optimizer.param_groups)
