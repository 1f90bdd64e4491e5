"""How often a training step makes the host wait for the GPU, and where.

On a GPU torch says so itself (`torch.cuda.set_sync_debug_mode`). A rehearsal counts the operators
that would wait there. A short run is taken from a longer one, so that a step is what is left.
"""

import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from data_loading import Workload, write_photos
from torch.utils._python_dispatch import TorchDispatchMode

from gpu_kit.part import ROOT, Bench

PHOTOS = Workload("", (64, 64), 32, images=32, passes=1)
BATCH = 8
EPOCHS = (1, 3)
WAITING = {"aten._local_scalar_dense.default", "aten.nonzero.default"}
TABLE = "Waits of the host, a step"
LIBRARY = "a library"


def run(bench: Bench) -> None:
    import mae_bench

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "images").mkdir()
        write_photos(folder / "images", PHOTOS)
        counts = []
        for epochs in EPOCHS:
            with counted(bench) as found:
                mae_bench.pretrain(
                    data=folder / "images",
                    out=folder / "runs",
                    name=f"epochs{epochs}",
                    execution=execution(bench),
                    epochs=epochs,
                    warmup_epochs=0.0,
                    batch_size=BATCH,
                    device_batch=BATCH,
                    precision="bf16",
                )
            counts.append(found)
    steps = (EPOCHS[1] - EPOCHS[0]) * PHOTOS.images // BATCH
    tell(bench, "pre-training by MAE", counts[1], counts[0], steps)
    bench.attempt("detection step", detection, bench)


def execution(bench: Bench) -> Any:
    from mae_bench.execution import Execution

    return Execution(workers=0, device="cpu" if bench.rehearse else "auto")


def detection(bench: Bench) -> None:
    """torchvision's parts choose boxes by their number, which the host has to know."""
    import dataclasses

    import detection_step

    from tasks.coco.recipes import recipe

    base = recipe("coco", "vit_mini", "mask_rcnn-vitdet")
    setup = dataclasses.replace(base, image_size=64, drop_path=0.0)
    images = detection_step.Bench(setup, bench.device)
    network = detection_step.Ours(setup).to(bench.device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)
    images.step(network, optimiser)
    with counted(bench) as found:
        images.step(network, optimiser)
    tell(bench, "detection, one image", found, Counter(), 1)


def tell(bench: Bench, what: str, more: Counter, fewer: Counter, steps: int) -> None:
    each = {place: (more[place] - fewer[place]) / steps for place in more}
    rows = {place: count for place, count in each.items() if count > 0}
    bench.book.row(
        "Waits of the host, a step", step=what, where="everywhere", waits=sum(rows.values())
    )
    for place, count in sorted(rows.items(), key=lambda row: -row[1])[:12]:
        bench.book.row("Waits of the host, a step", step=what, where=place, waits=count)


@contextmanager
def counted(bench: Bench) -> Iterator[Counter]:
    """Waits by place: the innermost line of ours that leads to them."""
    found: Counter = Counter()
    if bench.device == "cpu":
        with Waits(found):
            yield found
        return

    def note(message: Any, *_: Any, **__: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            found[place()] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")


class Waits(TorchDispatchMode):
    """Counts the operators whose result the host reads."""

    def __init__(self, found: Counter) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func) in WAITING:
            self.found[place()] += 1
        return func(*args, **(kwargs or {}))


def place() -> str:
    for frame in reversed(traceback.extract_stack()):
        file = Path(frame.filename)
        if file.is_relative_to(ROOT) and "gpu_kit" not in file.parts:
            return f"{file.relative_to(ROOT)}:{frame.lineno} {frame.name}"
    return LIBRARY
