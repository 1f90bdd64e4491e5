"""Scoring a test set in several processes: its images shared out, the rest done in the first."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

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
