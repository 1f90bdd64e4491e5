"""UperNet on a ViT-B at 512 x 512: the training step, and the windows of a test image."""

import contextlib
import copy
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import backbones
from backbones.vit import compile_blocks
from gpu_kit.part import Bench
from gpu_kit.timing import measure
from tasks.ade20k.recipes import Ade20kRecipe, recipe
from tasks.ade20k.slide import slide
from tasks.ade20k.upernet import UperNet, resize

NUM_CLASSES = 150
BATCH = 2
"""images on each of 8 GPUs, as the recipe has it"""

ORDERS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "explicit attention (BEiT's)": lambda: sdpa_kernel(SDPBackend.MATH),
    "resizing before the convolutions (mmsegmentation's)": lambda: mock.patch(
        "tasks.ade20k.upernet.features", lambda head, levels: head._forward_feature(levels)
    ),
}
"""of the peers: how a network of ours comes to it"""


class Network(nn.Module):
    """What `tasks.ade20k.task.Ade20k` makes of a backbone, without its data."""

    def __init__(self, setup: Ade20kRecipe) -> None:
        super().__init__()
        self.taps = setup.taps
        self.vit = backbones.create(setup.backbone, **setup.backbone_options())
        self.head = UperNet(setup, self.vit.embed_dim, NUM_CLASSES)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        losses = self.head.losses(self.vit.feature_maps(images, self.taps), labels)
        return torch.stack(list(losses.values())).sum()

    def logits(self, images: Tensor) -> Tensor:
        found = self.head(self.vit.feature_maps(images, self.taps))
        return resize(found, images.shape[-2:])


def run(bench: Bench) -> None:
    torch.manual_seed(0)
    base = recipe("ade20k", bench.choose("vit_b", "vit_mini"), "upernet-512-160k")
    changes: dict[str, Any] = {"image_size": 64, "head_channels": 32} if bench.rehearse else {}
    setup = dataclasses.replace(base, **changes)
    first = Network(setup)
    bench.attempt("windows of a test image", time_windows, bench, setup, first)
    for name in ("mae-bench", *ORDERS, "mae-bench, compiled blocks"):
        for batch in bench.choose((BATCH, 16), (BATCH,)):
            bench.attempt(f"{name}, batch {batch}", time_step, bench, setup, first, name, batch)
            bench.release()


def time_step(bench: Bench, setup: Ade20kRecipe, first: Network, name: str, batch: int) -> None:
    network = copy.deepcopy(first).to(bench.device).train()
    if "compiled" in name:
        compile_blocks(network, backend=bench.backend)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)
    side = setup.image_size
    images = torch.randn(batch, 3, side, side, device=bench.device)
    labels = torch.randint(NUM_CLASSES, (batch, side, side), device=bench.device).byte()

    def step() -> None:
        with torch.autocast(bench.device, torch.bfloat16):
            loss = network(images, labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    with ORDERS.get(name, contextlib.nullcontext)():
        found = measure(bench, step)
    usual = bench.counts.setdefault(f"batch {batch}", found.seconds)
    bench.book.row(
        f"A training step, {side} x {side} pixels, bf16",
        implementation=name,
        batch=str(batch),
        **{
            "ms, median (min)": f"{1e3 * found.seconds:.0f} ({1e3 * found.least:.0f})",
            "images/s": f"{batch / found.seconds:.1f}",
            "times mae-bench": round(found.seconds / usual, 2),
            "peak GiB": round(found.peak_gib, 1),
            "first step, s": round(found.first, 1),
        },
    )


def time_windows(bench: Bench, setup: Ade20kRecipe, first: Network) -> None:
    """An image whose shorter side is a crop's, 4 : 3."""
    network = copy.deepcopy(first).to(bench.device).eval()
    side = setup.image_size
    image = torch.randn(3, side, side * 4 // 3, device=bench.device)

    @torch.no_grad()
    def score() -> None:
        with torch.autocast(bench.device, torch.bfloat16):
            slide(network.logits, image, side, setup.stride, 4)

    found = measure(bench, score)
    bench.book.note(
        f"Sliding windows over an image of {side} x {side * 4 // 3}: {1e3 * found.seconds:.0f} ms, "
        f"peak {found.peak_gib:.1f} GiB."
    )
