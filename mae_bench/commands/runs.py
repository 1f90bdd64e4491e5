"""`mae-bench runs`: list, show, compare, prune, pack and rescore."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

import tasks
from mae_bench.commands.shared import flag, go_on, print_json

SUMMARY = "Look at the runs in a folder, clear them up, pack one into a file, check such a file."
RunName = Annotated[Positional[str], arg(metavar="NAME", help="a run, as runs list shows it")]


@dataclass(kw_only=True)
class InFolder:
    """What all but rescore share."""

    runs: Path = Path("runs")
    """folder of the runs"""


@dataclass(kw_only=True)
class List(InFolder):
    """Print a line for each run."""

    task: str | None = None
    """runs of this task alone"""
    protocol: str | None = None
    """runs of this protocol alone"""
    json: bool = False
    """print JSON, for other programs"""

    def run(self) -> None:
        from mae_bench.runs import list_runs, summaries

        if self.json:
            print_json(summaries(self.runs, self.task, self.protocol))
            return
        found = list_runs(self.runs, self.task, self.protocol)
        if found:
            go_on("runs", "show", found[-1].name, *flag("runs", self.runs, "runs"))


@dataclass(kw_only=True)
class Show(InFolder):
    """Print all that is known of one run."""

    name: RunName

    def run(self) -> None:
        from mae_bench.runs import show

        run, where = show(self.name, self.runs), flag("runs", self.runs, "runs")
        if run.record is not None:
            go_on("runs", "pack", self.name, *where)


@dataclass(kw_only=True)
class Compare(InFolder):
    """Print what differs between two runs."""

    first: RunName
    second: RunName

    def run(self) -> None:
        from mae_bench.runs import compare

        compare(self.first, self.second, self.runs)
        both = ["--compare", self.first, self.second]
        go_on("report", *flag("runs", self.runs, "runs"), *both)


@dataclass(kw_only=True)
class Prune(InFolder):
    """Delete what finished runs have no more use for; without --yes say only what that would be."""

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="[NAME ...]")] = ()
    """runs, as runs list shows them (default: all)"""
    weights: bool = False
    """the weights of finished runs too"""
    yes: bool = False
    """delete, and do not only say what would be"""

    def run(self) -> None:
        from mae_bench.runs import prune

        prune(self.runs, self.names, weights=self.weights, yes=self.yes)
        go_on("runs", "list", *flag("runs", self.runs, "runs"))


@dataclass(kw_only=True)
class Pack(InFolder):
    """Write one file with recipe, record, log and predictions of a run."""

    name: RunName
    weights: bool = False
    """put the weights in"""
    pictures: bool = False
    """put the pictures in"""
    output: Path | None = None
    """the file (default: beside the run's folder)"""

    def run(self) -> None:
        from mae_bench.run.finding import find
        from mae_bench.runs import pack

        options = {"weights": self.weights, "pictures": self.pictures}
        file = pack(self.name, self.output, self.runs, **options)
        task = find(self.name, self.runs).task
        if task in tasks.known():
            apart = tasks.face_of(task).truth_with_data
            go_on("runs", "rescore", file, *(["--data", "DIR"] if apart else []))


@dataclass(kw_only=True)
class Rescore:
    """Compute the scores of a packed run again from its predictions; exit code 1 if they differ."""

    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """what runs pack wrote"""
    data: str | None = None
    """the data set that the run was scored on, or mini: needed for {tasks with truth}; of others
    the classes of the images are compared with it"""

    def run(self) -> None:
        from mae_bench.runs import rescore

        if not all(row.same for row in rescore(self.file, self.data)):
            raise SystemExit(1)
        go_on("report")


ACTIONS: dict[str, type] = {
    "list": List,
    "show": Show,
    "compare": Compare,
    "prune": Prune,
    "pack": Pack,
    "rescore": Rescore,
}
