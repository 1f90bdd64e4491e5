"""`mae-bench quickstart`: the whole picture on the built-in miniature world, as a suite."""

import time
from dataclasses import replace
from pathlib import Path

from mae_bench.data import SHEET, make_miniature_world
from mae_bench.execution import Execution
from mae_bench.progress import console, duration, say
from mae_bench.suite.expansion import expand
from mae_bench.suite.running import carry_out
from mae_bench.suite.runs import SuiteRun
from mae_bench.suite.spec import Block, SuiteSpec

BACKBONE = "vit_mini"
BOTH = ["pretrain:mae", "scratch"]
SPEC = SuiteSpec(
    data="mini",
    measure=[
        Block(
            backbones=[BACKBONE],
            weights=BOTH,
            tasks=["imagenet1k"],
            protocols=["finetune"],
        ),
        Block(
            backbones=[BACKBONE],
            weights=["pretrain:mae"],
            tasks=["imagenet1k"],
            protocols=["knn", "logistic"],
        ),
        Block(
            backbones=[BACKBONE],
            weights=BOTH,
            tasks=["inat2018", "places365", "coco", "ade20k"],
        ),
    ],
)
AT_A_TIME = 2
"""runs that share the cores"""


def quickstart(out: str | Path = "runs/quickstart", seed: int = 0) -> Path:
    """Draw the world, pre-train, transfer with and without the weights, report; the report's path.

    It is the suite `SPEC`. Needs no downloads and no GPU. Everything goes below `out` (the world
    itself into the cache folder); a second call goes on where the first stopped. A script that
    calls this needs the usual `if __name__ == "__main__"`. One seed is an illustration, not a
    measurement: benchmarks/miniature_gain.py compares over several.
    """
    began = time.monotonic()
    out = Path(out)
    runs = expand(SPEC.model_copy(update={"seeds": [seed]})).runs
    say(f"mae-bench quickstart: {len(runs)} runs, about eight minutes on two cores")
    world = make_miniature_world()
    named = with_short_names(runs)
    carry_out(named, SPEC, out, Execution(workers=0, save_minutes=1.0), AT_A_TIME)
    file = out / "report.md"
    console.print(
        f"[bold]done in {duration(time.monotonic() - began)}:[/] tables, figures and pictures in "
        f"{file.with_suffix('.html')} (and {file.name}); the world in {world / SHEET}"
    )
    return file


def with_short_names(runs: list[SuiteRun]) -> list[SuiteRun]:
    """The runs with names that tell them apart from each other, and no more."""
    first = next(iter(run.task for run in runs if run.command == "transfer"))

    def short(run: SuiteRun) -> str:
        if run.command == "pretrain":
            return run.command
        start = "mae" if run.needs else "scratch"
        return run.protocol if run.task == first else f"{run.task}-{start}"

    def renamed(run: SuiteRun) -> SuiteRun:
        return replace(run, called=short(run), needs=run.needs and renamed(run.needs))

    return [renamed(run) for run in runs]
