"""A task small enough to compute by hand, and what trains it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mae_bench.execution import Execution
from mae_bench.run.keeping import Fitted
from mae_bench.run.writing import Run, open_run
from mae_bench.setup import start
from mae_bench.train import fit
from tasks.recipe import TrainingRecipe
from tasks.task import SCORING, Batch, Scored, Scoring, Task

FEATURES = 5


def toy_recipe(**changes: Any) -> TrainingRecipe:
    """AdamW on 24 samples, three steps an epoch."""
    fields = {
        "protocol": "toy/toy@1",
        "backbone": "none",
        "image_size": 1,
        "epochs": 4,
        "warmup_epochs": 1.0,
        "batch_size": 8,
        "device_batch": 8,
        "optimizer": "adamw",
        "base_lr": 1.0,
        "min_lr": 1e-4,
        "weight_decay": 0.05,
        "betas": (0.9, 0.95),
        "layer_decay": 1.0,
        "clip_grad": None,
        "ema_decay": None,
        "precision": "fp32",
    }
    return TrainingRecipe(**{**fields, **changes})


class Samples:
    """`count` samples that differ from epoch to epoch, as augmented ones do."""

    def __init__(self, count: int = 24) -> None:
        self.count = count
        self.asked: list[list[tuple[int, int]]] = []
        """the keys of every micro-batch"""

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        self.asked.append(keys)
        rows = [np.random.default_rng(key).normal(size=FEATURES + 1) for key in keys]
        values = torch.from_numpy(np.array(rows))
        index = torch.tensor([index for _, index in keys])
        return {"x": values[:, :-1], "y": values[:, -1:], "index": index, "skipped": []}

    def names(self, indices: list[int]) -> list[str]:
        return [f"sample {index}" for index in indices]


class Toy(Task):
    """Linear regression in float64, where sums in another order agree to 1e-12."""

    def __init__(self, recipe: TrainingRecipe, data: Samples | None = None) -> None:
        super().__init__()
        self.recipe, self.train_data = recipe, data or Samples()
        torch.manual_seed(0)
        self.head = nn.Linear(FEATURES, 1, dtype=torch.float64)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": (self.head(batch["x"]) - batch["y"]).square().mean()}

    def layer_index(self, name: str) -> int:
        return 0

    @property
    def num_layers(self) -> int:
        return 0

    def evaluate(self, how: Scoring = SCORING) -> Scored:
        return Scored({})

    def data_facts(self) -> dict[str, Any]:
        return {}


def train(task: Task, folder: Path, seed: int = 0, **how: Any) -> tuple[Fitted, Run]:
    """Train `task` in the run folder `folder`."""
    execution = Execution(**{"workers": 0, "device": "cpu", **how})
    accelerator = start(execution, seed)
    with open_run(folder, {"toy": 1}) as run:
        return fit(task, run, accelerator, seed, execution), run
