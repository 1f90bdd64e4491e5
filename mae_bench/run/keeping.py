"""What training needs to go on after an interruption, kept in the run's folder and read again."""

import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch.distributed.tensor import DTensor

from mae_bench.batches import MicroBatches
from mae_bench.errors import RunError, first_line
from mae_bench.progress import say
from mae_bench.run.writing import KEEP_STATES, Run, read_state
from mae_bench.setup import Spent
from mae_bench.sharding import parts, whole
from mae_bench.unreadable import write_unreadable
from results import Earlier
from tasks.images import BadImages
from tasks.images.unreadable import restored
from tasks.processes import first_alone
from tasks.task import Task


@dataclass
class Fitted:
    """What training leaves behind."""

    model: Task
    """the weights to evaluate: the averaged ones if the recipe averages"""
    last_loss: float
    """mean training loss of the last epoch"""
    spent: Spent


Place = tuple[str, int, bool]
"""A device, how many processes, and whether the network lies in parts in them."""


class Keeper:
    """Saves and restores everything that training needs to go on.

    `step`: how many steps the newest saved state has behind it.
    """

    def __init__(
        self,
        run: Run,
        parts: dict[str, Any],
        bad: BadImages,
        save_minutes: float,
        device: str,
    ) -> None:
        """`device`: the name of the one that each process trains on."""
        self.run, self.parts, self.bad, self.save_minutes = run, parts, bad, save_minutes
        self.place: Place = (device, PartialState().num_processes, self.is_sharded)
        self.earlier: dict[Place, float] = {}
        """seconds of training before this process, where that is known"""
        self.epoch_losses: list[float] = []
        self.before, self.began, self.started = 0.0, time.monotonic(), time.time()
        self.saved, self.step = self.began, 0

    def tell_disk(self) -> None:
        """Say before the first step if the disk has no room for the states that will be saved."""
        tensors = [
            each for group in self.parts["optimizer"].param_groups for each in group["params"]
        ]
        moments = len(self.parts["optimizer"].defaults.get("betas", (1,)))
        trained = moments * sum(each.numel() * each.element_size() for each in tensors)
        networks = [part for name, part in self.parts.items() if name != "optimizer"]
        kept = (each for network in networks for each in network.state_dict().values())
        state = trained + sum(each.numel() * each.element_size() for each in kept)
        free = shutil.disk_usage(self.run.folder).free
        if (needed := state * (KEEP_STATES + 1)) > free:
            say(
                f"disk: saved states take {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are "
                f"free in {self.run.folder}; make room, or the run ends when it saves",
                style="yellow",
            )

    def restore(self) -> int:
        """Load the newest good state; the number of steps that it has behind it."""
        state: dict[str, Any] = {}

        def choose() -> Path | None:
            file, found = self.run.newest_state()
            state.update(found)
            return file

        file = first_alone(choose)
        if file is None:
            return 0
        if self.is_sharded:
            state = read_state(file, mapped=True)
        state = state or read_state(file)
        try:
            for name, part in self.parts.items():
                part.load_state_dict(parts(state[name], part))
            self.epoch_losses = state["epoch_losses"]
            self.bad.found = {each.name: each for each in restored(state["skipped"])}
            self.before, self.started = state["seconds"], state["started"]
            self.earlier = {tuple(place): spent for *place, spent in state.get("places", ())}
            step = int(state["step"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise RunError(
                f"{file}: does not fit this version of mae-bench ({first_line(error)}); choose "
                "another --name to start anew"
            ) from None
        say(f"going on after step {step}, from {file}")
        self.step = step
        return step

    def save(self, step: int) -> None:
        self.saved, self.step = time.monotonic(), step
        state = self.state()
        first_alone(lambda: self.run.save_state(step, state))

    def save_alone(self, step: int) -> None:
        """Save, without the other processes, what is not saved yet and is worth it.

        Nothing of a sharded network, of which each process has a part alone.
        """
        first = PartialState().is_main_process and not self.is_sharded
        if first and step != self.step and is_finite(self.parts["model"]):
            self.run.save_state(step, self.state())

    def state(self) -> dict[str, Any]:
        """In the first process; all have to ask for that of a sharded network."""
        seconds = self.seconds()
        return {name: whole(part.state_dict()) for name, part in self.parts.items()} | {
            "epoch_losses": self.epoch_losses,
            "skipped": [tuple(each) for each in self.bad.found.values()],
            "seconds": seconds,
            "started": self.started,
            "places": [(*place, spent) for place, spent in self.places(seconds).items()],
        }

    def write_unreadable(self) -> None:
        """Keep the unreadable images with their reasons in the run's folder."""
        first_alone(lambda: write_unreadable(self.run.folder, self.bad.found.values(), ()))

    def due(self) -> bool:
        return time.monotonic() - self.saved >= 60 * self.save_minutes

    @property
    def is_sharded(self) -> bool:
        """Whether each process has a part of the network alone."""
        return any(isinstance(each, DTensor) for each in self.parts["model"].parameters())

    def note(self, loss: float, first: bool) -> None:
        """Remember a step's loss; `first`: of its epoch."""
        if first:
            self.epoch_losses.clear()
        self.epoch_losses.append(loss)

    def seconds(self) -> float:
        """Training time so far, earlier parts of a resumed run included."""
        return self.before + time.monotonic() - self.began

    def places(self, seconds: float) -> dict[Place, float]:
        """All `seconds` by where they were spent; those of which nothing is known are here's.

        A state from before this was written down tells nothing.
        """
        elsewhere = sum(spent for place, spent in self.earlier.items() if place != self.place)
        return self.earlier | {self.place: seconds - elsewhere}

    def fitted(self, model: Task, plan: MicroBatches) -> Fitted:
        seconds = self.seconds()
        spent = Spent(
            started=datetime.fromtimestamp(self.started, UTC),
            seconds=seconds,
            images_per_second=plan.num_steps * plan.recipe.batch_size / seconds,
            skipped=tuple(self.bad.found.values()),
            sharded=self.is_sharded,
            earlier=tuple(
                Earlier(device=device, processes=processes, sharded=sharded, seconds=spent)
                for (device, processes, sharded), spent in self.places(seconds).items()
                if (device, processes, sharded) != self.place
            ),
        )
        return Fitted(model, float(np.mean(self.epoch_losses)), spent)


def is_finite(task: Task) -> bool:
    """Whether all weights are."""
    return bool(torch.nn.utils.get_total_norm(list(task.parameters())).isfinite())
