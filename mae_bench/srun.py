"""Processes that srun has started: each learns its place, as torchrun would tell it.

Imports no torch.
"""

import os
import re

from tasks.errors import AloneError

ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "-1"}
"""what a launcher tells a process of its place among the others: here, that there are none"""
MEETING = ("MASTER_ADDR", "MASTER_PORT")
"""and of where they meet"""
PORTS = range(10_000, 30_000)
"""below those that systems give to whoever asks for any"""
JOIN = {"SLURM_PROCID": "RANK", "SLURM_LOCALID": "LOCAL_RANK"}
"""what srun says that torch calls otherwise"""


def join_step() -> None:
    """Where srun has started several processes, put into the environment what torch asks for.

    They meet at the first node of the step, at a port made of the numbers of job and step;
    MASTER_ADDR and MASTER_PORT go before. Nothing happens if another launcher has spoken, as
    torchrun below srun. Raises `AloneError` if srun does not say all.
    """
    tasks = tasks_of_srun()
    if tasks < 2 or placed():
        return
    ranks = {torch: os.environ.get(name, "") for name, torch in JOIN.items()}
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST", "")
    missing = [name for name, torch in JOIN.items() if not is_number(ranks[torch])]
    missing += [] if nodes or "MASTER_ADDR" in os.environ else ["SLURM_STEP_NODELIST"]
    if missing or int(ranks["RANK"]) >= tasks:
        what = f"but says no {', '.join(missing)}" if missing else f"as number {ranks['RANK']}"
        raise AloneError(
            f"srun has started this {tasks} times, {what}; start it with srun --ntasks=1 "
            "(--ntasks-per-node=1 on several nodes) and, for several processes, torchrun"
        )
    os.environ |= ranks | {"WORLD_SIZE": str(tasks)}
    os.environ.setdefault("MASTER_ADDR", meeting_node(nodes))
    port = port_of(number("SLURM_JOB_ID", 0), number("SLURM_STEP_ID", 0))
    os.environ.setdefault("MASTER_PORT", str(port))
    from mae_bench.progress import console, say

    console.quiet = ranks["RANK"] != "0"  # the first speaks for all
    where = ":".join(os.environ[name] for name in MEETING)
    say(f"srun has started {tasks} processes: they share this run, and meet at {where}")


def placed() -> bool:
    """Whether a launcher has given this process a place among others."""
    return any(os.environ.get(name, alone) != alone for name, alone in ALONE.items())


def refuse_several(command: str) -> None:
    """Raise `AloneError` if this is one of several processes, for a command that works alone."""
    if tasks_of_srun() > 1 or os.environ.get("WORLD_SIZE", "1") != "1":
        raise AloneError(
            f"{command} starts the processes of its runs itself; start it once, without torchrun, "
            "and with srun --ntasks=1"
        )


def meeting_node(nodes: str) -> str:
    """The first of Slurm's list of nodes, such as "a[03-07,9]-x,b1": "a03-x".

    Where there is one alone the processes meet inside it, by whatever name it goes.
    """
    bracketed = r"\[[^\]]*\]"
    first = re.match(rf"(?:{bracketed}|[^,])*", nodes)
    name = first[0] if first else nodes
    if name == nodes and "[" not in nodes:
        return "127.0.0.1"
    return re.sub(bracketed, lambda found: re.split("[-,]", found[0][1:-1])[0], name)


def port_of(job: int, step: int) -> int:
    """The same for all processes of a step, another for other jobs and steps."""
    return PORTS[(31 * job + step) % len(PORTS)]


def tasks_of_srun() -> int:
    """How many processes srun has started of this command; 1 without it.

    An allocation for several tasks says SLURM_NTASKS too; one process in it is no mistake.
    """
    asked = number("SLURM_NTASKS", 1)
    is_step = "SLURM_STEP_ID" in os.environ or number("SLURM_PROCID", 0) > 0
    return number("SLURM_STEP_NUM_TASKS", asked if is_step else 1)


def number(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if is_number(value) else default


def is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
