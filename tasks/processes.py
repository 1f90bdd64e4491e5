"""Scoring a test set in several processes: its images shared out, the rest done in the first."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch.distributed as dist

from tasks import AloneError, TaskError
from tasks.task import Scored

Found = TypeVar("Found")


def num_processes() -> int:
    """Of torch.distributed; 1 without it."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def own_share(count: int) -> tuple[list[int], int]:
    """This process's share of `count` images, each in one share; and the number of processes."""
    world = num_processes()
    rank = dist.get_rank() if world > 1 else 0
    return list(range(rank, count, world)), world


@contextmanager
def own_part() -> Iterator[None]:
    """Around what this process does by itself: of its error no other can tell the user.

    So it is raised as `AloneError`, with the number of the process, if there are several.
    """
    try:
        yield
    except (TaskError, OSError) as error:
        if num_processes() == 1 or isinstance(error, AloneError):
            raise
        where = f"process {dist.get_rank()} of {num_processes()}"
        raise AloneError(f"{where}: {error}") from error


def finish_in_first(found: Found, finish: Callable[[list[Found]], Scored]) -> Scored:
    """What `finish` makes, in the first process, of what every process has found; for all.

    An error there, as of a full disk, is every process's; the others would wait for ever.
    """
    world = num_processes()
    if world == 1:
        return finish([found])
    rank, parts = dist.get_rank(), [found] * world
    dist.gather_object(found, parts if rank == 0 else None)
    outcome: list[Any] = [None]
    if rank == 0:
        try:
            outcome = [finish(parts)]
        except Exception as error:
            outcome = [error]
    dist.broadcast_object_list(outcome)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]
