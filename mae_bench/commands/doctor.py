"""`mae-bench doctor`."""

from dataclasses import asdict, dataclass
from pathlib import Path

from mae_bench.commands.shared import go_on, print_json


@dataclass
class Doctor:
    """Check packages, torch with torchvision, GPU and disk; name each problem with its fix."""

    out: Path = Path("runs")
    """folder whose disk is checked"""
    json: bool = False
    """print JSON, for other programs"""

    def run(self) -> None:
        from mae_bench.doctor import doctor, examine

        if self.json:
            found = doctor(self.out)
            print_json([asdict(each) for each in found])
            if any(each.status == "problem" for each in found):
                raise SystemExit(1)
            return
        if not examine(self.out):
            raise SystemExit(1)
        go_on("quickstart")
