"""Several processes of one run, as torchrun or srun starts them: their beginning and their end."""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch.distributed as dist

from mae_bench.errors import first_line
from mae_bench.srun import ALONE, MEETING, is_number, join_step, placed
from tasks.errors import AloneError


@contextmanager
def meeting() -> Iterator[None]:
    """Around what lets this process meet the others of its run, if it has any.

    They part at the end of the program, whichever way it ends: threads that talk to the others
    would break it off otherwise. Raises `AloneError` if a launcher is missing or they do not meet.
    """
    refuse_without_launcher()
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        if "RANK" not in os.environ:
            raise
        where = ":".join(os.environ.get(name, "?") for name in MEETING)
        raise AloneError(
            f"the processes of this run do not meet at {where} ({first_line(error)}); give "
            "torchrun --standalone, or on several machines another --rdzv-endpoint"
        ) from None
    if dist.is_available() and dist.is_initialized():
        atexit.unregister(part)
        atexit.register(part)


def part() -> None:
    """Take down what joins the processes; nothing if they have not met."""
    if dist.is_initialized():
        with suppress(RuntimeError):  # others may have gone already
            dist.destroy_process_group()


def refuse_without_launcher() -> None:
    """Raise `AloneError` if the environment says half of what torchrun or srun says."""
    join_step()
    if not placed():
        return
    given = {name: os.environ[name] for name in ALONE if name in os.environ}
    missing = [name for name in (*ALONE, *MEETING) if name not in os.environ]
    said = ", ".join(f"{name}={value}" for name, value in given.items())
    advice = f"start several processes with torchrun; for one, unset {', '.join(given)}"
    if missing:
        raise AloneError(f"{said} is set, but not {', '.join(missing)}; {advice}")
    rank, world, local = given.values()
    if not (all(map(is_number, (rank, world, local))) and int(rank) < int(world)):
        raise AloneError(f"{said}: expected numbers, the rank below the world size; {advice}")
