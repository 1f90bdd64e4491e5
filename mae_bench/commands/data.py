"""`mae-bench data`: make, list and check."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

SUMMARY = "Make the built-in miniature world, list the data sets, or check one on disk."


@dataclass(kw_only=True)
class Make:
    """Draw the miniature world, with a contact sheet to look at."""

    out: Path | None = None
    """folder for the world (default: a cache folder, where --data mini finds it)"""

    def run(self) -> None:
        from mae_bench.data import make_miniature_world

        make_miniature_world(self.out)


@dataclass(kw_only=True)
class List:
    """Print a table of all data sets."""

    def run(self) -> None:
        from mae_bench.data import list_data

        list_data()


@dataclass(kw_only=True)
class Check:
    """Say what is right and wrong with a data set; exit code 1 if anything is wrong."""

    dataset: Annotated[Positional[str], arg(metavar="NAME")]
    """what to check; data list shows the names"""
    root: str
    """folder of the data set; for coco also TRAIN.json,VAL.json, your own annotations"""

    def run(self) -> None:
        from mae_bench.data import check_data

        if not check_data(self.dataset, self.root):
            raise SystemExit(1)


ACTIONS: dict[str, type] = {"make": Make, "list": List, "check": Check}
