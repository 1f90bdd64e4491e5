"""What is asked of Slurm for the jobs of a suite. Imports no torch, and nothing slow: flags do."""

import math
import re
from dataclasses import dataclass, fields

from mae_bench.errors import RunError

WARNING = 180
"""seconds before its time is up that a job is told so"""


@dataclass(frozen=True)
class Slurm:
    """What is asked of Slurm for the job of each run. Nothing here changes what is computed."""

    partition: str | None = None
    """of Slurm (default: the cluster's)"""
    time: str | None = None
    """how long a job may take at a time, as Slurm writes it: 24:00:00, 2-12, or minutes; one whose
    time is up saves and is queued again"""
    gpus_per_node: int = 1
    """GPUs, and processes of a run, on each node; 0: one process without a GPU"""
    nodes: int = 1
    """nodes of each job, which share its run"""
    account: str | None = None
    """whom Slurm counts the jobs for"""
    qos: str | None = None
    """quality of service"""
    setup: tuple[str, ...] = ()
    """lines of shell before each start, such as "module load cuda" """
    sbatch: tuple[str, ...] = ()
    """NAME=VALUE: more that sbatch takes, such as mem=64G cpus-per-task=12 constraint=a100"""

    def __post_init__(self) -> None:
        for name, low in (("gpus_per_node", 0), ("nodes", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise RunError(f"{name} is {value!r}; expected a whole number, {low} or more")
        if self.time is not None:
            minutes(self.time)
        for word in self.sbatch:
            if not re.fullmatch(r"(--)?[a-z][a-z0-9-]*=.+", word, re.DOTALL):
                raise RunError(f"--sbatch {word}: expected NAME=VALUE, for example mem=64G")

    @property
    def given(self) -> list[str]:
        """The fields that say something else than by default."""
        return [each.name for each in fields(self) if getattr(self, each.name) != each.default]

    @property
    def processes_per_node(self) -> int:
        return max(1, self.gpus_per_node)

    @property
    def processes(self) -> int:
        """Of a run."""
        return self.nodes * self.processes_per_node


def minutes(time: str) -> int:
    """Of a time as Slurm writes it; `RunError` for another."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if found is None:
        raise RunError(f"--time {time}: expected 24:00:00, 2-12 (days and hours) or minutes")
    days, *rest = (None if part is None else int(part) for part in found.groups())
    parts = [part for part in rest if part is not None]
    if days is None and len(parts) < 3:  # minutes, minutes:seconds
        parts = [0, *parts]
    hours, least, seconds = [*parts, 0, 0][:3]
    total = math.ceil((days or 0) * 1440 + hours * 60 + least + seconds / 60)
    if total * 60 <= WARNING:
        raise RunError(f"--time {time}: expected more than {WARNING // 60} minutes, to save in")
    return total
