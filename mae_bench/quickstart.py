"""`mae-bench quickstart`: the whole picture on the built-in miniature world."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import torch

from mae_bench.data import make_miniature_world
from mae_bench.errors import RunError, first_line
from mae_bench.execution import Execution
from mae_bench.pretrain import BACKBONE_FILE, pretrain
from mae_bench.progress import console, duration
from mae_bench.provenance import num_cores
from mae_bench.report import report
from mae_bench.transfer import SCRATCH, transfer
from tasks.workers import end_with_the_parent

BACKBONE = "vit_mini"
FROM_WEIGHTS = (
    ("finetune", "imagenet1k", "finetune"),
    ("knn", "imagenet1k", "knn"),
    ("logistic", "imagenet1k", "logistic"),
    ("inat2018-mae", "inat2018", "finetune"),
    ("places365-mae", "places365", "finetune"),
    ("coco-mae", "coco", "mask_rcnn-vitdet"),
    ("ade20k-mae", "ade20k", "upernet-512-160k"),
)
FROM_SCRATCH = (
    ("scratch", "imagenet1k", "scratch"),
    ("inat2018-scratch", "inat2018", "scratch"),
    ("places365-scratch", "places365", "scratch"),
    ("coco-scratch", "coco", "mask_rcnn-vitdet"),
    ("ade20k-scratch", "ade20k", "upernet-512-160k"),
)
"""name, task, protocol"""
STEPS = 4 + len(FROM_WEIGHTS)
SAID = "from_scratch.txt"
"""what the runs from random weights print"""


def quickstart(out: str | Path = "runs/quickstart", seed: int = 0) -> Path:
    """Draw the world, pre-train, transfer with and without the weights, report; the report's path.

    The runs from random weights, which need no pre-training, go on in a second process meanwhile.
    It is spawned, so a script that calls this needs the usual `if __name__ == "__main__"`. Needs no
    downloads and no GPU. Everything goes below `out` (the world itself into the cache folder); a
    second call goes on where the first stopped. One seed is an illustration, not a measurement:
    benchmarks/miniature_gain.py compares over several.
    """
    began = time.monotonic()
    out = Path(out)
    console.print(f"mae-bench quickstart: {STEPS} steps, about seven minutes on two cores")
    heading(1, "the miniature world: drawn scenes in the official data set layouts")
    world = make_miniature_world()
    with half_of_the_cores(), from_scratch_meanwhile(out, seed) as finish:
        heading(2, f"pre-training a masked autoencoder ({BACKBONE})")
        pretrain(BACKBONE, "mini", out, "pretrain", seed, Execution(workers=1, save_minutes=1.0))
        for number, (name, task, protocol) in enumerate(FROM_WEIGHTS, start=3):
            heading(
                number, f"{task}, {protocol} from the pre-trained backbone, on images never seen"
            )
            run(name, task, protocol, out, seed, out / "pretrain" / BACKBONE_FILE, workers=1)
        heading(STEPS - 1, f"the same from random weights, which a second process trained: {SAID}")
        finish()
    heading(STEPS, "the report")
    file = out / "report.md"
    report(out, file)
    console.print(
        f"[bold]done in {duration(time.monotonic() - began)}:[/] tables, figures and pictures in "
        f"{file.with_suffix('.html')} (and {file.name}); the world in {world / 'contact_sheet.png'}"
    )
    return file


def run(
    name: str, task: str, protocol: str, out: Path, seed: int, checkpoint: Path | None, workers: int
) -> None:
    """One transfer, from weights or from random ones."""
    transfer(
        task=task,
        backbone=BACKBONE,
        protocol=protocol,
        checkpoint=checkpoint,
        init=None if checkpoint else SCRATCH,
        out=out,
        name=name,
        seed=seed,
        execution=Execution(workers=workers, save_minutes=1.0),
    )


@contextmanager
def half_of_the_cores() -> Iterator[None]:
    """Compute on half of the cores inside; a second process finds that in its environment.

    More threads than cores hold each other up at every barrier. A user's own setting stays.
    """
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    before, threads = torch.get_num_threads(), max(1, num_cores() // 2)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
        torch.set_num_threads(before)


@contextmanager
def from_scratch_meanwhile(out: Path, seed: int) -> Iterator:
    """The runs from random weights in a process of their own; call what is given to wait for them.

    That raises `RunError` if one of them failed. The process ends when this one does.
    """
    said = out / SAID
    out.mkdir(parents=True, exist_ok=True)
    process = get_context("spawn").Process(target=from_scratch, args=(out, seed), daemon=True)
    process.start()

    def finish() -> None:
        while process.is_alive():
            lines = said.read_text(errors="replace").splitlines() if said.exists() else []
            console.print(lines[-1] if lines else "waiting ...", markup=False, highlight=False)
            process.join(10)
        if process.exitcode:
            lines = said.read_text(errors="replace").splitlines()
            raise RunError(
                f"a run from random weights failed: {lines[-1] if lines else process.exitcode} "
                f"(all in {said}); the same command goes on"
            )
        console.print(f"{len(FROM_SCRATCH)} runs from random weights are finished")

    try:
        yield finish
    finally:
        if process.is_alive():
            process.terminate()
            process.join()


def from_scratch(out: Path, seed: int) -> None:
    """Entry point of the second process, which says into a file what it does."""
    end_with_the_parent()
    with (out / SAID).open("w", buffering=1) as said:
        sys.stdout = sys.stderr = said
        try:
            for name, task, protocol in FROM_SCRATCH:
                run(name, task, protocol, out, seed, checkpoint=None, workers=0)
        except Exception as error:
            print(first_line(error))
            sys.exit(1)


def heading(number: int, text: str) -> None:
    console.print(f"\n[bold]{number}/{STEPS}  {text}[/]")
