"""`mae-bench data`: make, list and check."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

import tasks
from mae_bench.commands.shared import go_on, print_json
from mae_bench.errors import RunError

SUMMARY = "Make the built-in miniature world, list the data sets, or check one on disk."


@dataclass(kw_only=True)
class Make:
    """Draw the miniature world, with a contact sheet to look at."""

    out: Path | None = None
    """folder for the world (default: a cache folder, where --data mini finds it)"""

    def run(self) -> None:
        from mae_bench.data import make_miniature_world

        make_miniature_world(self.out)
        go_on("pretrain")


@dataclass(kw_only=True)
class List:
    """Print a table of all data sets."""

    json: bool = False
    """print JSON, for other programs"""

    def run(self) -> None:
        from mae_bench.data import list_data

        if self.json:
            rows = [row for face in tasks.faces() for row in face.datasets()]
            print_json([asdict(row) for row in rows])
            return
        list_data()
        go_on("data", "check", "coco", "--root", "DIR")


@dataclass(kw_only=True)
class Check:
    """Say what is right and wrong with a data set; exit code 1 if anything is wrong."""

    dataset: Annotated[Positional[str], arg(metavar="NAME")]
    """what to check; data list shows the names"""
    root: str
    """folder of the data set{sources}"""

    def run(self) -> None:
        from mae_bench.data import check_data

        if not check_data(self.dataset, self.root):
            raise SystemExit(1)
        task = self.dataset if self.dataset in tasks.known() else None
        if task and weights_there():
            go_on("transfer", "--task", task, "--data", self.root)
        elif task:
            go_on("weights", "get", "mae/vit_b")
        else:
            go_on("evaluate", "RUN", "--on", self.dataset, "--data", self.root)


def weights_there() -> bool:
    """Whether `transfer` finds weights without being told which."""
    from mae_bench.starting import newest_pretraining

    try:
        return bool(newest_pretraining(Path("runs"), None, "data check"))
    except RunError:
        return False


ACTIONS: dict[str, type] = {"make": Make, "list": List, "check": Check}
