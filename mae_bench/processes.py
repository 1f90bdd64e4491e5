"""Several processes of one run, as torchrun starts them: their beginning and their end."""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch.distributed as dist

from mae_bench.errors import first_line
from tasks.errors import AloneError

PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
"""what a launcher tells a process of its place among the others"""
MEETING = ("MASTER_ADDR", "MASTER_PORT")
"""and of where they meet"""


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
    """Raise `AloneError` if the environment says half of what torchrun says, or is srun's."""
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "-1"}
    given = {name: os.environ[name] for name in PLACE if name in os.environ}
    if any(value != alone[name] for name, value in given.items()):
        missing = [name for name in (*PLACE, *MEETING) if name not in os.environ]
        said = ", ".join(f"{name}={value}" for name, value in given.items())
        advice = f"start several processes with torchrun; for one, unset {', '.join(given)}"
        if missing:
            raise AloneError(f"{said} is set, but not {', '.join(missing)}; {advice}")
        numbers = [value for value in given.values() if value.isascii() and value.isdigit()]
        if len(numbers) < len(PLACE) or not int(numbers[0]) < int(numbers[1]):
            raise AloneError(f"{said}: expected numbers, the rank below the world size; {advice}")
    elif (tasks := tasks_of_srun()) > 1:
        raise AloneError(
            f"srun has started this {tasks} times, and each would work alone; start it with srun "
            "--ntasks=1 (--ntasks-per-node=1 on several nodes) and, for several processes, torchrun"
        )


def tasks_of_srun() -> int:
    """How many processes srun has started of this command; 1 without it.

    An allocation for several tasks says SLURM_NTASKS too; one process in it is no mistake.
    """

    def number(name: str, default: int) -> int:
        value = os.environ.get(name, "")
        return int(value) if value.isascii() and value.isdigit() else default

    asked = number("SLURM_NTASKS", 1)
    is_step = "SLURM_STEP_ID" in os.environ or number("SLURM_PROCID", 0) > 0
    return number("SLURM_STEP_NUM_TASKS", asked if is_step else 1)
