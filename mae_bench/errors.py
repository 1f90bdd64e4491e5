"""What can go wrong that is not a fault in the program."""

import os
import re

# What gloo, NCCL and their store say in the processes that are left.
LOST = re.compile(r"Connection (closed|reset)|Broken pipe|gloo|NCCL|TCPStore|remote process")


class RunError(RuntimeError):
    """Bad input to a run, or a run that cannot go on. The message is one line for the user."""


class Diverged(RunError):
    """A training whose loss or weights are no numbers any more, which its recipe alone decides."""


HELD = 75
"""exit code where another process works in the folder of a run; sysexits.h: try again later"""


class HeldError(RunError):
    """Another process works in the folder of a run."""


class Interrupted(RunError):
    """Stopped by a signal after saving; the same command continues the run."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def first_line(error: BaseException) -> str:
    """The first line of a message from elsewhere; the error's type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def is_lost(error: BaseException) -> bool:
    """Whether it says that another process of the run has gone."""
    return LOST.search(str(error)) is not None


def reason(error: BaseException) -> str | None:
    """One line for what a library raises when nothing is wrong with the program; else None."""
    text = str(error)
    if isinstance(error, ImportError) or "torchvision::" in text:
        return f"{first_line(error)}; `mae-bench doctor` says what to install"
    if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
        return (
            f"out of memory ({first_line(error)}); use a smaller --device-batch, which leaves the "
            "effective batch as it is, or --precision bf16"
        )
    if "mixed torch.Tensor and DTensor" in text:
        return (
            f"the network computes with parts of a block, not by calling it ({first_line(error)}), "
            "so it cannot be sharded; leave --shard out"
        )
    if "DataLoader worker" in text and ("killed" in text or "exited" in text):
        return f"a loading process died ({first_line(error)}); try fewer --workers"
    if "RANK" in os.environ and is_lost(error):
        return f"lost another process of this run ({first_line(error)})"
    return None
