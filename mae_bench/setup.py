"""What pre-training and transfer share before and after the loop."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from accelerate import Accelerator

from mae_bench import provenance
from mae_bench.execution import Execution
from mae_bench.progress import console
from mae_bench.recipes import deviations
from mae_bench.run import Run
from mae_bench.train import Fitted
from results import Checkpoint, Cost, Data, Record
from tasks.recipe import Recipe


def start(how: Execution) -> Accelerator:
    """The device and the processes: a GPU if there is one, several under torchrun."""
    on_cpu = how.device == "cpu" or not torch.cuda.is_available()
    return Accelerator(cpu=on_cpu)


@dataclass(frozen=True)
class Setup:
    """Everything that determines a run's result, before it starts."""

    task: str
    base: Recipe
    """the protocol's recipe"""
    effective: Recipe
    """with the user's overrides"""
    seed: int
    data: Data
    init: str
    checkpoint: Checkpoint | None
    limit: int | None = None

    def identity(self) -> dict[str, Any]:
        """What a run folder belongs to."""
        return {
            "task": self.task,
            "recipe": self.effective.to_dict(),
            "seed": self.seed,
            "data": self.data.model_dump(),
            "init": self.init,
            "checkpoint": self.checkpoint.model_dump() if self.checkpoint else None,
            "limit": self.limit,
        }

    def record(
        self, run: Run, fitted: Fitted, metrics: dict[str, float], accelerator: Accelerator
    ) -> Record:
        """The finished run."""
        changed = deviations(self.base, self.effective)
        unreadable = int(metrics.pop("unreadable", 0))
        if self.limit is not None:
            changed.append(f"limited to {self.limit} images")
        return Record(
            name=run.folder.name,
            kind="pretrain" if self.task == "pretrain" else "transfer",
            protocol=self.effective.protocol,
            task=self.task,
            backbone=self.effective.backbone,
            init=self.init,
            checkpoint=self.checkpoint,
            data=self.data,
            recipe=self.effective.to_dict(),
            recipe_hash=self.effective.digest(),
            deviations=changed,
            seed=self.seed,
            metrics=metrics,
            cost=Cost(
                seconds=fitted.seconds,
                images_per_second=fitted.images_per_second,
                peak_memory_bytes=provenance.peak_memory(accelerator),
            ),
            environment=provenance.environment(accelerator),
            started=fitted.started,
            finished=datetime.now(UTC),
            complete=True,
            skipped_images=fitted.skipped_images + unreadable,
        )


def already_finished(run: Run, accelerator: Accelerator) -> Record:
    """The record of a finished run, and a line that says so."""
    record = run.record
    assert record is not None
    if accelerator.is_main_process:
        console.print(f"{run.folder} is finished; nothing to do (another --name starts anew)")
    return record
