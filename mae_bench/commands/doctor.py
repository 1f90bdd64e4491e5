"""`mae-bench doctor`."""

from dataclasses import dataclass
from pathlib import Path

from mae_bench.commands.shared import go_on


@dataclass
class Doctor:
    """Check packages, torch with torchvision, GPU and disk; name each problem with its fix."""

    out: Path = Path("runs")
    """folder whose disk is checked"""

    def run(self) -> None:
        from mae_bench.doctor import examine

        if not examine(self.out):
            raise SystemExit(1)
        go_on("quickstart")
