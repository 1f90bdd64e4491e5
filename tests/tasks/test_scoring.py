"""The one scoring loop: every image once, unreadable ones with reasons, errors by their line."""

import multiprocessing
import os
import signal
from typing import Any

import pytest
import torch

from tasks.errors import AloneError, TaskError
from tasks.images import Unreadable
from tasks.scoring import score
from tasks.task import Scored, Scoring

CPU = torch.device("cpu")


class Numbers:
    """The numbers up to `count`; `broken` are unreadable, `faulty` raises."""

    def __init__(self, count: int, broken: set[int], faulty: Exception | None = None) -> None:
        self.count, self.broken, self.faulty = count, broken, faulty

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Any) -> dict[str, Any]:
        if self.faulty is not None:
            raise self.faulty
        return {
            "index": torch.tensor([i for i in key if i not in self.broken]),
            "skipped": [Unreadable(f"{i}.jpg", "is cut") for i in key if i in self.broken],
        }


def total(numbers: Numbers, **how: Any) -> Scored:
    how = {"batch_size": 3, **how}
    return score(
        numbers,
        lambda batch: batch["index"].tolist(),
        lambda parts: Scored({"sum": float(sum(map(sum, parts)))}),
        Scoring(**how),
        CPU,
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_each_image_counts_once_and_unreadable_ones_have_their_reason(workers):
    done: list[int] = []
    found = total(Numbers(10, {2, 3, 4, 5}), workers=workers, on_progress=done.append)
    assert found.metrics == {"sum": 0 + 1 + 6 + 7 + 8 + 9}
    assert found.unreadable == [(f"{i}.jpg", "is cut") for i in (2, 3, 4, 5)]
    assert done == [3, 6, 9, 10]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 1])
def test_more_unreadable_images_than_allowed_end_it(workers):
    assert total(Numbers(10, {2, 3}), workers=workers, max_bad_images=2).metrics
    with pytest.raises(TaskError, match=r"limit of 1: 2 images: is cut \(2.jpg, 3.jpg\); repair"):
        total(Numbers(10, {2, 3}), workers=workers, max_bad_images=1)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("limit", [0, 100])
def test_with_nothing_readable_there_is_no_score(limit):
    expected = r"none of the 3 test images can be read: 3 images: is cut \(0.jpg, 1.jpg, 2.jpg\)"
    with pytest.raises(TaskError, match=expected):
        total(Numbers(3, {0, 1, 2}), workers=0, max_bad_images=limit)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_loading_arrives_as_its_own_line(workers):
    """torch would put "Caught TaskError in DataLoader worker process 0" and a traceback before."""
    with pytest.raises(AloneError) as caught:
        total(Numbers(3, set(), TaskError("a.png has no palette")), workers=workers)
    assert str(caught.value) == "a.png has no palette"
    with pytest.raises(ZeroDivisionError) as caught:
        total(Numbers(3, set(), ZeroDivisionError("a fault")), workers=workers)
    assert "in __getitem__" in caught.value.__notes__[0]
    del caught
    assert multiprocessing.active_children() == []


class Signalled(Numbers):
    """Each loading process gets the signals that a whole group of processes gets."""

    def __getitem__(self, key: Any) -> dict[str, Any]:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        return super().__getitem__(key)


def test_loading_processes_leave_signals_to_the_parent():
    assert total(Signalled(4, set()), workers=1).metrics == {"sum": 6}
