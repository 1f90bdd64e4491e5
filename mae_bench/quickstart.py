"""`mae-bench quickstart`: the whole picture on the built-in miniature world."""

import time
from pathlib import Path

from mae_bench.data import make_miniature_world
from mae_bench.execution import Execution
from mae_bench.pretrain import BACKBONE_FILE, pretrain
from mae_bench.progress import console, duration
from mae_bench.report import report
from mae_bench.transfer import SCRATCH, transfer

BACKBONE = "vit_mini"
RUNS = (
    ("finetune", "imagenet1k", "finetune", True),
    ("scratch", "imagenet1k", "scratch", False),
    ("knn", "imagenet1k", "knn", True),
    ("logistic", "imagenet1k", "logistic", True),
    ("inat2018-mae", "inat2018", "finetune", True),
    ("inat2018-scratch", "inat2018", "scratch", False),
    ("places365-mae", "places365", "finetune", True),
    ("places365-scratch", "places365", "scratch", False),
    ("coco-mae", "coco", "mask_rcnn-vitdet", True),
    ("coco-scratch", "coco", "mask_rcnn-vitdet", False),
    ("ade20k-mae", "ade20k", "upernet-512-160k", True),
    ("ade20k-scratch", "ade20k", "upernet-512-160k", False),
)
"""name, task, protocol, and whether it starts from the pre-trained weights"""
STEPS = 3 + len(RUNS)


def quickstart(out: str | Path = "runs/quickstart", seed: int = 0) -> Path:
    """Draw the world, pre-train, transfer with and without the weights, report; the report's path.

    Needs no downloads and no GPU. Everything goes below `out` (the world itself into the cache
    folder); a second call goes on where the first stopped. One seed is an illustration, not a
    measurement: benchmarks/miniature_gain.py compares over several.
    """
    began = time.monotonic()
    out = Path(out)
    # One process loads and one computes: two threads that compute together are a quarter faster,
    # and dozens of times slower as soon as anything else runs.
    how = Execution(workers=1, save_minutes=1.0)
    console.print(f"mae-bench quickstart: {STEPS} steps, about nine minutes on two cores")
    heading(1, "the miniature world: drawn scenes in the official data set layouts")
    world = make_miniature_world()
    heading(2, f"pre-training a masked autoencoder ({BACKBONE})")
    pretrain(BACKBONE, "mini", out, "pretrain", seed, how)
    for number, (name, task, protocol, pretrained) in enumerate(RUNS, start=3):
        source = "the pre-trained backbone" if pretrained else "random weights"
        heading(number, f"{task}, {protocol} from {source}, scored on images never trained on")
        transfer(
            task=task,
            backbone=BACKBONE,
            protocol=protocol,
            checkpoint=out / "pretrain" / BACKBONE_FILE if pretrained else None,
            init=None if pretrained else SCRATCH,
            out=out,
            name=name,
            seed=seed,
            execution=how,
        )
    heading(STEPS, "the report")
    file = out / "report.md"
    report(out, file)
    console.print(
        f"[bold]done in {duration(time.monotonic() - began)}:[/] tables, figures and pictures in "
        f"{file.with_suffix('.html')} (and {file.name}); the world in {world / 'contact_sheet.png'}"
    )
    return file


def heading(number: int, text: str) -> None:
    console.print(f"\n[bold]{number}/{STEPS}  {text}[/]")
