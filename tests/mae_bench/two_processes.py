"""What test_processes.py has torchrun start: several command lines, one after the other.

The last one is sabotaged: the second process cannot load its images.
"""

import json
import os
import sys
from pathlib import Path

from mae_bench.cli import call
from tasks.errors import TaskError
from tasks.images import UnlabelledImages


def fail(*_: object) -> None:
    raise TaskError("the second process has no disk")


def main() -> None:
    """Arguments: a file of command lines, and the folder for each process's exit codes."""
    *commands, last = json.loads(Path(sys.argv[1]).read_text())
    codes = [call(argv) for argv in commands]
    rank = os.environ["RANK"]
    if rank == "1":
        UnlabelledImages.__getitems__ = fail  # type: ignore[method-assign,assignment]
    codes.append(call(last))
    (Path(sys.argv[2]) / f"codes-{rank}.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main()
