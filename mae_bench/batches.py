"""Micro-batches: which images, in which order, on which process; and their loading."""

from collections.abc import Generator, Iterator

import numpy as np
import torch

import tasks
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from results.protocol import ProtocolId
from tasks import loading
from tasks.recipe import TrainingRecipe
from tasks.task import Batch, TrainData

STEPS = 4
"""of an epoch at least, where a batch is proposed"""
Keys = list[tuple[int, int]]
"""(epoch, index) of each image of a micro-batch"""


class MicroBatches:
    """The keys of this process's micro-batches, from step `start` on to the end of training.

    Each epoch is a fresh permutation whose last partial batch is dropped, as in the reference.
    A step's micro-batches are dealt to the processes in turn. The recipe's epochs count
    `epoch_images` each (see `Task`), whatever the length of a permutation. Raises `RunError` if
    the images do not fill a batch or the processes cannot share it evenly.
    """

    def __init__(
        self,
        num_images: int,
        recipe: TrainingRecipe,
        seed: int,
        rank: int,
        world: int,
        epoch_images: int | None = None,
    ) -> None:
        self.recipe, self.seed, self.rank, self.world = recipe, seed, rank, world
        self.num_images, self.start = num_images, 0
        self.steps_per_epoch = num_images // recipe.batch_size
        if not self.steps_per_epoch:
            raise RunError(
                f"{num_images} training images are fewer than the batch of {recipe.batch_size}; "
                f"these numbers work: {fitting(num_images, recipe, world)}"
            )
        self.epoch_steps: float = self.steps_per_epoch
        """optimiser steps of one of the recipe's epochs"""
        if epoch_images is not None:
            self.epoch_steps = epoch_images / recipe.batch_size
        self.num_steps = max(1, int(recipe.epochs * self.epoch_steps))
        self.per_step = recipe.batch_size // recipe.device_batch
        if self.per_step % world:
            raise RunError(
                f"a batch of {recipe.batch_size} makes {self.per_step} micro-batches of "
                f"{recipe.device_batch}, which {world} processes cannot share evenly; "
                "choose another --device-batch"
            )

    def mine(self) -> range:
        """Numbers, within a step, of this process's micro-batches."""
        return range(self.rank, self.per_step, self.world)

    def __iter__(self) -> Iterator[Keys]:
        size, batch = self.recipe.device_batch, self.recipe.batch_size
        last = (self.num_steps - 1) // self.steps_per_epoch
        for epoch in range(self.start // self.steps_per_epoch, last + 1):
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_images)
            before = epoch * self.steps_per_epoch
            first = max(self.start - before, 0)
            for step in range(first, min(self.steps_per_epoch, self.num_steps - before)):
                for number in self.mine():
                    begin = step * batch + number * size
                    yield [(epoch, int(i)) for i in order[begin : begin + size]]


def fitting(num_images: int, recipe: TrainingRecipe, world: int) -> str:
    """Flags that fit few images: a batch of a quarter of them, or the most that one can have.

    And the protocol for few images, where the task has one.
    """
    if num_images < world:
        return f"none; expected an image for each of {world} processes at least"
    batch = world
    while batch * 2 <= max(num_images // STEPS, world):
        batch *= 2
    device = batch // world
    while device > recipe.device_batch:
        device //= 2
    task = ProtocolId.read(recipe.protocol).task
    own = tasks.own_protocols(task) if task in tasks.known() else {}
    other = "".join(f"--protocol {name}, or " for name in own)
    return f"{other}--batch-size {batch} --device-batch {device}"


def load(
    data: TrainData, plan: MicroBatches, how: Execution, device: torch.device
) -> Generator[Batch, None, None]:
    """Micro-batches in the order of `plan`, loaded ahead by worker processes.

    Raises `AloneError` where the data raise `TaskError`. Close it to end the workers.
    """
    return loading.load(data.__getitems__, plan, how.workers, device, ahead=4)
