"""What the settings of masked pre-training cost, next to the paper's default.

    python benchmarks/pretrain_settings.py            # prints the tables
    python benchmarks/pretrain_settings.py --write    # and writes them to pretrain_settings.md
    python benchmarks/pretrain_settings.py --only claims --write

First whole steps (batch of pixels in, AdamW out), then loading of the images with the masks that
are drawn there, then the speed-ups that Table 2 of the paper claims for ViT-L, by forward and
backward alone, whose networks fit into memory together. One process with one thread; the settings
take turns in an order that rotates, and the time is CPU time, so that other work on the machine
disturbs all of them alike. Before anything is timed, results are compared: kinds of mask by the
loss of one mask, jittered colours with torchvision's.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side
import torch
from data_loading import WORKLOADS, write_photos
from PIL import Image
from pretrain_step import machine
from torch import Tensor
from torch.backends import mkldnn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import functional as pillow

from mae_bench.mae import MaskedAutoencoder
from mae_bench.pretraining import masks
from mae_bench.pretraining.data import BlockMasked
from tasks.images import UnlabelledImages, sample_rng
from tasks.images.jitter import Jitter

USUAL = "random masks, pixels"
SETTINGS: dict[str, dict[str, Any]] = {
    USUAL: {},
    "block masks": {"mask": "block"},
    "grid masks": {"mask": "grid"},
    "normalised pixels": {"norm_pix": True},
    "principal components": {"target": "pca"},
    "mask tokens in the encoder": {"encoder_mask_tokens": True},
}
CROPS = {
    "crop of random size": "crop_random",
    "none (the middle)": "none",
    "crop of fixed size": "crop_fixed",
    "crop of random size, colour jitter": "crop_random_jitter",
}
BLOCKS = "crop of random size, block masks"
SIZE, SIDE = 224, 14
CLAIMING = "vit_l"
CLAIMS: dict[str, tuple[dict[str, Any], float]] = {
    "mask tokens in the encoder, decoder of 8 blocks": ({"encoder_mask_tokens": True}, 42.4),
    "none in the encoder, decoder of 8 blocks": ({}, 15.4),
    "none in the encoder, decoder of 1 block": ({"decoder_depth": 1}, 11.6),
}
"""rows of the paper's Table 2 for ViT-L, with its hours of 800 epochs on 128 TPU v3 cores"""


class Stepper:
    """One setting with its network and its optimiser; all of them begin with the same weights."""

    def __init__(self, backbone: str, setting: dict[str, Any], images: Tensor) -> None:
        torch.manual_seed(0)
        self.mae = MaskedAutoencoder(backbone, **setting)
        if self.mae.components is not None:
            self.mae.components.fit([self.mae.pixels(images)])
        trained = [p for p in self.mae.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, lr=1e-4, fused=True)
        self.noise: Tensor | None = None
        if setting.get("mask") == "block":  # which the loading processes draw
            torch.manual_seed(1)
            self.noise = self.mae.draw_noise(len(images), images.device)

    def gradients(self, images: Tensor) -> Tensor:
        self.optimiser.zero_grad()
        loss = self.mae(images, self.noise).loss
        loss.backward()
        return loss.detach()

    def step(self, images: Tensor) -> None:
        self.gradients(images)
        self.optimiser.step()

    def flops(self, images: Tensor) -> int:
        """Floating-point operations of forward and backward, as torch counts them."""
        with mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
            self.gradients(images)
        return counter.get_total_flops()


def same_mask_same_loss(steppers: Mapping[str, Stepper], images: Tensor) -> str:
    """Stops the program unless kinds of mask differ in nothing but the mask."""
    torch.manual_seed(2)
    noise = steppers["block masks"].mae.draw_noise(len(images), images.device)
    kinds = [USUAL, "block masks", "grid masks"]
    losses = {steppers[name].mae(images, noise).loss.item() for name in kinds}
    if len(losses) != 1:
        raise SystemExit(f"one mask, several losses: {losses}")
    return "The three kinds of mask give the same loss, to the bit, for the same mask."


def same_jitter(images: int = 20) -> str:
    """Stops the program unless jittered colours are torchvision's."""
    rng = np.random.default_rng(0)
    steps = (
        pillow.adjust_brightness,
        pillow.adjust_contrast,
        pillow.adjust_saturation,
        pillow.adjust_hue,
    )
    for index in range(images):
        pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        jitter = Jitter.draw(sample_rng(0, 0, index), 0.4, 0.4, 0.1)
        image = Image.fromarray(pixels)
        for number in jitter.order:
            image = steps[number](image, jitter.factors[number])
        ours = jitter.apply_to(torch.from_numpy(pixels).permute(2, 0, 1))
        if not torch.equal(ours, pillow.pil_to_tensor(image)):
            raise SystemExit("jittered colours are not torchvision's")
    return "Jittered colours are torchvision's to the bit."


def turns(jobs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each job in each round, the first round left out."""
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    names = list(jobs)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.process_time()
            jobs[name]()
            if number:
                spent[name].append(time.process_time() - start)
    return spent


def ratio(spent: Mapping[str, list[float]], name: str, usual: str) -> float:
    """Median over the rounds of one job's time by the usual one's in the same round."""
    pairs = zip(spent[name], spent[usual], strict=True)
    return statistics.median(a / b for a, b in pairs)


def steps_table(backbone: str, batch: int, rounds: int) -> str:
    torch.manual_seed(3)
    images = torch.randn(batch, 3, SIZE, SIZE)
    steppers = {name: Stepper(backbone, each, images) for name, each in SETTINGS.items()}
    said = same_mask_same_loss(steppers, images)
    flops = {name: each.flops(images) for name, each in steppers.items()}
    jobs: dict[str, Callable[[], object]] = {
        name: lambda each=each: each.step(images) for name, each in steppers.items()
    }
    spent = turns(jobs, rounds)
    rows = [
        f"### A step of {backbone}, {SIZE} x {SIZE}, batch {batch}",
        "",
        f"{said} {rounds} rounds.",
        "",
        f"| setting | CPU s per step, median (min) | times {USUAL} | GFLOP per image | times |",
        "|---|---|---|---|---|",
    ]
    rows += [
        f"| {name} | {statistics.median(each):.3f} ({min(each):.3f}) "
        f"| {ratio(spent, name, USUAL):.2f} "
        f"| {flops[name] / batch / 1e9:.2f} | {flops[name] / flops[USUAL]:.2f} |"
        for name, each in spent.items()
    ]
    return "\n".join(rows)


def claims_table(batch: int, rounds: int) -> str:
    """Seconds of forward and backward, and how many times as fast as the first row each is."""
    torch.manual_seed(3)
    images = torch.randn(batch, 3, SIZE, SIZE)
    steppers = {
        name: Stepper(CLAIMING, {"norm_pix": True, **setting}, images)
        for name, (setting, _) in CLAIMS.items()
    }
    flops = {name: each.flops(images) for name, each in steppers.items()}

    def gradients(stepper: Stepper) -> None:
        stepper.gradients(images)
        stepper.optimiser.zero_grad()  # which frees the memory for the next one

    jobs: dict[str, Callable[[], object]] = {
        name: lambda each=each: gradients(each) for name, each in steppers.items()
    }
    spent = side_by_side.take_turns(jobs, rounds)
    first, hours = next(iter(CLAIMS)), [each for _, each in CLAIMS.values()]
    rows = [
        f"### What the paper's Table 2 claims: {CLAIMING}, {SIZE} x {SIZE}, batch {batch}",
        "",
        f"Forward and backward alone. {rounds} rounds; the paper's hours are those of 128 TPU v3 "
        "cores.",
        "",
        "| setting | CPU s, median (min) | times as fast, (quartiles) | GFLOP per image "
        "| times fewer | the paper, hours | times as fast |",
        "|---|---|---|---|---|---|---|",
    ]
    for (name, seconds), published in zip(spent.items(), hours, strict=True):
        faster = "1.00"
        if name != first:
            faster = side_by_side.spread(side_by_side.paired(spent, first, name))
        rows.append(
            f"| {name} | {statistics.median(seconds):.2f} ({min(seconds):.2f}) | {faster} "
            f"| {flops[name] / batch / 1e9:.1f} | {flops[first] / flops[name]:.2f} "
            f"| {published} | {hours[0] / published:.1f} |"
        )
    return "\n".join(rows)


def loading_table(rounds: int) -> str:
    work = WORKLOADS[0]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_photos(folder, work)
        data: dict[str, Any] = {
            title: UnlabelledImages([folder], SIZE, augmentation=kind)
            for title, kind in CROPS.items()
        }
        usual = next(iter(CROPS))
        data[BLOCKS] = BlockMasked(data[usual], 0, SIDE, num_masked=147)
        keys = [(0, index) for index in range(work.images)]
        jobs: dict[str, Callable[[], object]] = {
            name: lambda each=each: each.__getitems__(keys) for name, each in data.items()
        }
        spent = turns(jobs, rounds)
    rng = np.random.default_rng(0)
    start = time.process_time()
    for _ in range(200):
        masks.block(rng, SIDE, 147)
    alone = (time.process_time() - start) / 200
    rows = [
        f"### Loading: {work.title}",
        "",
        f"{same_jitter()} {rounds} rounds. A block mask alone: {1e3 * alone:.2f} ms.",
        "",
        f"| setting | CPU ms per image, median (min) | times {usual} |",
        "|---|---|---|",
    ]
    rows += [
        f"| {name} | {1e3 * statistics.median(each) / work.images:.2f} "
        f"({1e3 * min(each) / work.images:.2f}) | {ratio(spent, name, usual):.2f} |"
        for name, each in spent.items()
    ]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backbone", default="vit_b")
    parser.add_argument("--batch", type=int, default=4, help="images per step (default 4)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--write", action="store_true", help="write pretrain_settings.md too")
    parser.add_argument(
        "--only", nargs="+", choices=("steps", "loading", "claims"), help="tables (default: all)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    made: dict[str, Callable[[], str]] = {
        "steps": lambda: steps_table(arguments.backbone, arguments.batch, arguments.rounds),
        "loading": lambda: loading_table(arguments.rounds),
        "claims": lambda: claims_table(4, arguments.rounds),
    }
    tables = [f"{made[name]()}\n\n{machine(1)}" for name in arguments.only or made]
    title = "Settings of masked pre-training"
    side_by_side.publish(__file__, title, [*tables, EXPLANATION], arguments.write, keep_tables=True)


EXPLANATION = (
    "Times are medians over the rounds of (setting / default) in the same round. A setting costs "
    "no more than it must where its time grows no more than its arithmetic does, which torch "
    "counted."
)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
