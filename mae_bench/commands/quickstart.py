"""`mae-bench quickstart`."""

from dataclasses import dataclass
from pathlib import Path

import mae_bench
from mae_bench.arguments import check_common
from mae_bench.commands.shared import go_on


@dataclass
class Quickstart:
    """Walk the whole picture on the built-in miniature world, in minutes on a laptop's CPU."""

    out: Path = Path("runs/quickstart")
    """folder for the runs, pictures and tables"""
    seed: int = 0
    """seed of every run"""

    def run(self) -> None:
        check_common(self.out, seed=self.seed)
        mae_bench.quickstart(self.out, self.seed)
        go_on("pretrain", "--data", "DIR")
