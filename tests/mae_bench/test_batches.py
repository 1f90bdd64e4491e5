"""The order of images, its sharing among processes, and loading in worker processes."""

import multiprocessing
from contextlib import closing

import numpy as np
import pytest
import torch
from toy import Samples, Toy, toy_recipe, train

from mae_bench.batches import MicroBatches, load
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from tasks.errors import AloneError, TaskError
from tasks.images import UnreadableImage


def micro_batches(start=0, rank=0, world=1, num_images=26, **changes):
    plan = MicroBatches(num_images, toy_recipe(**changes), seed=3, rank=rank, world=world)
    plan.start = start
    return list(plan)


def test_an_epoch_is_a_permutation_without_its_last_partial_batch():
    keys = [key for batch in micro_batches(device_batch=2, epochs=2) for key in batch]
    assert len(keys) == 2 * 24  # three batches of 8; 2 of 26 images are dropped
    first, second = keys[:24], keys[24:]
    assert {epoch for epoch, _ in first} == {0}
    assert {epoch for epoch, _ in second} == {1}
    for part in (first, second):
        assert len({index for _, index in part}) == 24
        assert all(0 <= index < 26 for _, index in part)
    assert [i for _, i in first] != [i for _, i in second]


def test_the_order_depends_on_the_seed_and_the_epoch_alone():
    one = MicroBatches(26, toy_recipe(), seed=3, rank=0, world=1)
    other = MicroBatches(26, toy_recipe(), seed=4, rank=0, world=1)
    longer = MicroBatches(26, toy_recipe(epochs=9), seed=3, rank=0, world=1)
    assert list(one) != list(other)
    assert list(longer)[: len(list(one))] == list(one)


def test_accumulation_splits_the_same_batches():
    whole = micro_batches(device_batch=8)
    parts = micro_batches(device_batch=2)
    assert [parts[i] + parts[i + 1] + parts[i + 2] + parts[i + 3] for i in range(0, 48, 4)] == whole


@pytest.mark.parametrize("start", [0, 1, 2, 3, 4, 7, 11, 12])
@pytest.mark.parametrize("device_batch", [8, 2])
def test_a_resumed_plan_goes_on_where_the_whole_one_was(start, device_batch):
    whole = micro_batches(device_batch=device_batch)
    per_step = 8 // device_batch
    assert micro_batches(start, device_batch=device_batch) == whole[start * per_step :]


def test_processes_share_every_step_and_nothing_else():
    alone = micro_batches(device_batch=2)
    shares = [micro_batches(rank=rank, world=2, device_batch=2) for rank in range(2)]
    together = [batch for pair in zip(*shares, strict=True) for batch in pair]
    assert together == alone


def test_too_few_images_for_a_batch():
    with pytest.raises(RunError, match="7 training images are fewer than the batch of 8; these"):
        micro_batches(num_images=7)


def test_a_batch_that_processes_cannot_share():
    with pytest.raises(RunError, match=r"makes 2 micro-batches of 4, which 3 processes cannot"):
        micro_batches(world=3, device_batch=4)


def batches_of(data, workers):
    plan = MicroBatches(len(data), toy_recipe(device_batch=4), seed=0, rank=0, world=1)
    return load(data, plan, Execution(workers=workers), torch.device("cpu"))


def test_workers_change_nothing():
    with closing(batches_of(Samples(), 0)) as here, closing(batches_of(Samples(), 2)) as there:
        count = 0
        for one, other in zip(here, there, strict=True):
            count += 1
            assert one.keys() == other.keys()
            np.testing.assert_array_equal(one["x"], other["x"])
            assert torch.equal(one["index"], other["index"])
    assert count == 4 * 3 * 2


class Broken(Samples):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def __getitems__(self, keys):
        raise self.error


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "error", [TaskError("nothing here decodes"), UnreadableImage("nothing", "here decodes")]
)
def test_an_error_of_the_data_arrives_as_its_own_line(workers, error):
    """torch would put "Caught TaskError in DataLoader worker process 0" and a traceback before."""
    with closing(batches_of(Broken(error), workers)) as batches:
        with pytest.raises(AloneError) as caught:
            next(batches)
        assert str(caught.value) == "nothing here decodes"


def test_a_fault_in_a_loading_process_ends_the_run(tmp_path):
    """Its traceback is told; no process is left that the program would wait for."""
    with pytest.raises(ValueError, match="a fault of the program") as caught:
        train(Toy(toy_recipe(), Broken(ValueError("a fault of the program"))), tmp_path, workers=1)
    assert "in __getitems__" in caught.value.__notes__[0]
    del caught
    assert multiprocessing.active_children() == []
