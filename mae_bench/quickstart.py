"""`mae-bench quickstart`: the whole picture on the built-in miniature world."""

import time
from pathlib import Path

from mae_bench.data import make_miniature_world
from mae_bench.execution import Execution
from mae_bench.pretrain import BACKBONE_FILE, PICTURE_FILE, pretrain
from mae_bench.progress import console, duration
from mae_bench.report import report
from mae_bench.transfer import transfer

BACKBONE = "vit_mini"
PROTOCOLS = ("finetune", "scratch")
STEPS = 3 + len(PROTOCOLS)


def quickstart(out: str | Path = "runs/quickstart", seed: int = 0) -> Path:
    """Draw the world, pre-train, transfer with and without the weights, report; the report's path.

    Needs no downloads and no GPU. Everything goes below `out` (the world itself into the cache
    folder); a second call goes on where the first stopped. One seed is an illustration, not a
    measurement: benchmarks/miniature_gain.py compares over several.
    """
    began = time.monotonic()
    out = Path(out)
    how = Execution(workers=1, save_minutes=1.0)
    console.print(f"mae-bench quickstart: {STEPS} steps, six to eight minutes on two cores")
    heading(1, "the miniature world: drawn scenes in the official data set layouts")
    world = make_miniature_world()
    heading(2, f"pre-training a masked autoencoder ({BACKBONE})")
    pretrain(BACKBONE, "mini", out, "pretrain", seed, how)
    for number, protocol in enumerate(PROTOCOLS, start=3):
        source = "random weights" if protocol == "scratch" else "the pre-trained backbone"
        heading(number, f"{protocol} from {source}, scored on images never trained on")
        checkpoint = None if protocol == "scratch" else out / "pretrain" / BACKBONE_FILE
        transfer(
            backbone=BACKBONE,
            protocol=protocol,
            checkpoint=checkpoint,
            out=out,
            name=protocol,
            seed=seed,
            execution=how,
        )
    heading(STEPS, "the report")
    file = out / "report.md"
    report(out, file)
    console.print(
        f"[bold]done in {duration(time.monotonic() - began)}:[/] tables in {file}, "
        f"reconstructions in {out / 'pretrain' / PICTURE_FILE}, the world in "
        f"{world / 'contact_sheet.png'}"
    )
    return file


def heading(number: int, text: str) -> None:
    console.print(f"\n[bold]{number}/{STEPS}  {text}[/]")
