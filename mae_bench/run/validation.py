"""Scores while a run trains: told and kept, and without an effect on what is trained."""

import json
import time
from collections.abc import Callable
from dataclasses import replace

from mae_bench.batches import MicroBatches
from mae_bench.errors import RunError
from mae_bench.progress import duration, say
from mae_bench.run.files import VALIDATION_FILE, atomic
from mae_bench.run.writing import Run
from results.labels import decimals_of, metric_title, shown
from tasks.processes import first_alone
from tasks.task import Scoring, Task


class Validation:
    """Scores the test images every so many epochs, and says and keeps the headline metric.

    What a forward pass draws is seeded anew for each micro-batch, so that training goes on as it
    would have. Each line of validation.jsonl holds a step, its epoch and all metrics; those after
    the step that a run goes on from are dropped, and one that is missing is made up for.
    """

    def __init__(self, run: Run, plan: MicroBatches, every: int, scoring: Scoring) -> None:
        self.file = run.folder / VALIDATION_FILE
        self.plan, self.every = plan, every
        self.scoring = replace(scoring, folder=None, save_logits=False, say=lambda _: None)
        self.done = first_alone(self.cut)

    def cut(self) -> set[int]:
        """Drop the lines that training will write again; the steps of those that stay."""
        kept = {}
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        for line in lines:
            try:
                step = int(json.loads(line)["step"])
            except (ValueError, KeyError, TypeError):  # the crash cut this line
                continue
            if step <= self.plan.start:
                kept[step] = line
        if lines:
            with atomic(self.file) as stream:
                stream.write("".join(f"{line}\n" for line in kept.values()).encode())
        return set(kept)

    def is_due(self, step: int) -> bool:
        """Whether the state after `step` steps ends such an epoch, and is not scored yet."""
        if not step or step >= self.plan.num_steps or step in self.done:
            return False
        length = self.every * self.plan.epoch_steps
        return int(step / length) > int((step - 1) / length)

    def look(
        self,
        step: int,
        model: Task,
        note: Callable[[str, float, int], None],
        stopped: Callable[[], None],
    ) -> float:
        """Score the state after `step` steps; the seconds that took.

        `note` takes the headline metric by name; `stopped` raises if the run is to end.
        """
        began = time.monotonic()
        is_training = model.training
        scored = model.evaluate(replace(self.scoring, on_progress=lambda *_: stopped()))
        model.train(is_training)
        name = next(iter([*shown(scored.metrics), *scored.metrics]), None)
        if name is None:
            raise RunError("--eval-every: no score is defined on these test images")
        self.done.add(step)
        epoch = round(step / self.plan.epoch_steps, 4)
        line = json.dumps({"step": step, "epoch": epoch, **scored.metrics})

        def write() -> None:
            with self.file.open("a") as stream:
                stream.write(line + "\n")

        first_alone(write)
        note(f"validation/{name}", scored.metrics[name], step)
        title, unit = metric_title(name)
        value = f"{scored.metrics[name]:.{decimals_of(name)}f}{unit}"
        took = time.monotonic() - began
        say(f"epoch {epoch:g}: {title} {value} ({duration(took)})")
        return took
