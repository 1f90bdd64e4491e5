"""Work of several processes: shared out, or done in the first one for all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch.distributed as dist

from tasks.errors import AloneError, TaskError
from tasks.task import Scored

Part = TypeVar("Part")
Result = TypeVar("Result")


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


def first_alone(work: Callable[[], Result], group: Any = None) -> Result:
    """Let the first process do `work`; its result, or its error, is every process's.

    An error of its own, as of a full disk, would leave the others waiting for it. `group` is one of
    torch.distributed; None: all processes, of which there may be only this one.
    """
    if num_processes() == 1:
        return work()
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = work()
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, group=group)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def finish_in_first(part: Part, finish: Callable[[list[Part]], Scored]) -> Scored:
    """What `finish` makes, in the first process, of what every process has found; for all."""
    world = num_processes()
    parts = [part] * world
    if world > 1:
        dist.gather_object(part, parts if dist.get_rank() == 0 else None)
    return first_alone(lambda: finish(parts))
