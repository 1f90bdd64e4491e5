"""Mask R-CNN on a ViT-B at 1024 x 1024, one image a step, as ViTDet trains on each of 64 GPUs."""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import detection_step
import torch
from detection_attention import explicit

from backbones.vit import compile_blocks
from gpu_kit.part import Bench
from gpu_kit.timing import measure
from tasks.coco.recipes import CocoRecipe, recipe

OURS = "mae-bench"


@contextlib.contextmanager
def explicit_attention() -> Iterator[None]:
    """detectron2's order of things in our network: all logits, with the products added to each."""
    with mock.patch("backbones.dense.attend_decomposed", explicit):
        yield


def run(bench: Bench) -> None:
    torch.manual_seed(0)
    base = recipe("coco", bench.choose("vit_b", "vit_mini"), "mask_rcnn-vitdet")
    # Any score counts, so that new weights give the mask head its hundred detections.
    changes: dict[str, Any] = {"drop_path": 0.0, "score_threshold": 0.0}
    if bench.rehearse:
        changes |= {"image_size": 64}
    setup = dataclasses.replace(base, **changes)
    images = detection_step.Bench(setup, bench.device)
    first = detection_step.Ours(setup)
    for name, make in networks(bench, setup, first).items():
        bench.attempt(name, time_network, bench, images, name, make)
        bench.release()
    bench.book.note(f"{setup.image_size} x {setup.image_size} pixels, {setup.backbone}, one image.")


def networks(
    bench: Bench, setup: CocoRecipe, first: detection_step.Ours
) -> dict[str, Callable[[], Any]]:
    """Makers of networks with the weights of the first."""

    def ours(compiled: bool = False) -> Any:
        twin = copy.deepcopy(first).to(bench.device)
        if compiled:
            compile_blocks(twin, backend=bench.backend)
        return twin

    return {
        OURS: ours,
        "mae-bench with detectron2's explicit attention": ours,
        "detectron2": lambda: detection_step.Theirs(setup, first).to(bench.device),
        "mae-bench, compiled blocks": lambda: ours(compiled=True),  # last: it takes longest
    }


def time_network(
    bench: Bench, images: detection_step.Bench, name: str, make: Callable[[], Any]
) -> None:
    network = make()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6, fused="mae-bench" in name or None)
    with explicit_attention() if "explicit" in name else contextlib.nullcontext():
        trained = measure(bench, lambda: images.step(network, optimiser))
        found = measure(bench, lambda: images.detect(network))
        network.train()
        with torch.no_grad():
            loss = torch.stack(list(images.losses(network).values())).sum().item()
    usual = bench.counts.setdefault("step", trained.seconds)
    usual_found = bench.counts.setdefault("detection", found.seconds)
    bench.book.row(
        "A training step and a detection, bf16",
        implementation=name,
        **{
            "step, ms, median (min)": f"{1e3 * trained.seconds:.0f} ({1e3 * trained.least:.0f})",
            "times mae-bench": round(trained.seconds / usual, 2),
            "peak GiB": round(trained.peak_gib, 1),
            "first step, s": round(trained.first, 1),
            "detection, ms": f"{1e3 * found.seconds:.0f}",
            "times mae-bench ": round(found.seconds / usual_found, 2),
            "loss after these steps": f"{loss:.4f}",
        },
    )
