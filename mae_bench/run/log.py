"""What is told of training step by step: in a file, to TensorBoard, on the progress bar."""

import json
import os
import threading
import time

from accelerate import PartialState
from torch.utils.tensorboard import SummaryWriter

from mae_bench.batches import MicroBatches
from mae_bench.progress import Bar
from mae_bench.run.wandb_log import WandbLog
from mae_bench.run.writing import Run
from tasks.processes import first_alone


class TrainingLog:
    """log.jsonl (every step, only what is reproducible), TensorBoard, and the progress bar.

    And Weights & Biases, if asked for.
    """

    def __init__(self, run: Run, plan: MicroBatches, to: str = "tensorboard") -> None:
        self.plan, self.lines, self.board = plan, None, None
        self.online: WandbLog | None = None
        if to == "wandb":
            first_alone(lambda: self.begin_online(run))
        if PartialState().is_main_process:
            run.cut_log(plan.start)
            self.lines = run.log_file.open("a", buffering=1)
            self.hook, threading.excepthook = threading.excepthook, raised_again
            self.board = SummaryWriter(str(run.folder / "tensorboard"), purge_step=plan.start)
        self.since, self.steps = time.monotonic(), 0

    def begin_online(self, run: Run) -> None:
        self.online = WandbLog(run.folder)

    def write(self, step: int, loss: float, lr: float, bar: Bar) -> None:
        if self.lines is None or self.board is None:
            return
        epoch = round(step / self.plan.epoch_steps, 4)
        numbers = {"epoch": epoch, "loss": loss, "lr": lr}
        self.lines.write(json.dumps({"step": step, **numbers}) + "\n")
        if self.online is not None:
            self.online.write(step, numbers)
        self.steps += 1
        passed = time.monotonic() - self.since
        if passed < 1.0 and step < self.plan.num_steps:
            return
        speed = self.steps * self.plan.recipe.batch_size / passed
        self.since, self.steps = time.monotonic(), 0
        for name, value in (("loss", loss), ("lr", lr), ("images_per_second", speed)):
            self.board.add_scalar(name, value, step)
        bar.update(step, f"loss {loss:.4f}  lr {lr:.2e}  {speed:,.0f} images/s")

    def scalar(self, name: str, value: float, step: int) -> None:
        """A score on the way: to TensorBoard, and to Weights & Biases."""
        if self.board is not None:
            self.board.add_scalar(name, value, step)
        if self.online is not None:
            self.online.write(step, {name: value})

    def sync(self) -> None:
        """Put the lines safely on disk, before a state that lies behind them."""
        if self.lines is not None:
            os.fsync(self.lines.fileno())

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *error: object) -> None:
        if self.online is not None:
            self.online.close(failed=error[0] is not None)
        if self.lines is not None and self.board is not None:
            self.lines.close()
            try:
                self.board.close()
            finally:
                threading.excepthook = self.hook


def raised_again(args: threading.ExceptHookArgs) -> None:
    """No traceback of what TensorBoard's thread meets: the loop meets it at its next line."""
    if not type(args.thread).__module__.startswith("tensorboard"):
        threading.__excepthook__(args)
