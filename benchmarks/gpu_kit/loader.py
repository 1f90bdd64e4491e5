"""Whether the loading processes keep a GPU busy: images a second alone, and with steps behind."""

import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from data_loading import WORKLOADS, Workload, write_photos
from torch import Tensor, nn

from backbones.colour import IMAGENET_MEAN, IMAGENET_STD
from gpu_kit.book import read
from gpu_kit.part import Bench
from gpu_kit.pretraining import Step
from gpu_kit.timing import seconds_of, wait
from mae_bench.mae import MaskedAutoencoder
from tasks import loading
from tasks.images import UnlabelledImages

TINY = Workload("Miniature, 64 x 64 to 32 x 32", (64, 64), 32, images=8, passes=1)
AHEAD = 4
"""batches of each process that wait, as in training"""
NAME = "loader of this machine's cores against a ViT-L step"
TABLE = "JPEG photos of 500 x 375 pixels to crops of 224 x 224, from the page cache"


def run(bench: Bench) -> None:
    work = bench.choose(WORKLOADS[0], TINY)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place:
        write_photos(Path(place), work)
        data = UnlabelledImages([Path(place)], work.image_size)
        counts = sorted({max(1, cores // 4), max(1, cores // 2), cores})
        rates = {}
        for workers in bench.choose(counts, counts[-1:]):
            what = f"{workers} loading processes"
            rates[workers] = bench.attempt(what, alone, bench, data, workers)
        bench.attempt("loading and training together", together, bench, data, cores)
    speed = read(bench.out / "mae_l.jsonl").facts.get("mae_l images/s")
    most = max((rate for rate in rates.values() if rate), default=None)
    if most and speed:
        bench.book.goal(NAME, most / speed, 1.0, f"times its images a second, {cores} cores")
    else:
        bench.book.missing(NAME, "there is no speed of a ViT-L step from its part")


def batches(
    bench: Bench, data: UnlabelledImages, workers: int, size: int
) -> Iterator[dict[str, Any]]:
    """Endless, as training loads them; the same photos with other crops."""
    numbers = itertools.count()
    keys = ([(n, (n * size + i) % len(data)) for i in range(size)] for n in numbers)
    get = data.__getitems__
    return loading.load(get, keys, workers, torch.device(bench.device), ahead=AHEAD)


def alone(bench: Bench, data: UnlabelledImages, workers: int) -> float:
    """Images a second that arrive on the device, while nothing else is done."""
    size, seconds = bench.choose((128, 5.0), (4, 0.2))
    with closing(batches(bench, data, workers, size)) as arriving:
        drain(bench, arriving, workers)
        began, images = time.perf_counter(), 0
        while time.perf_counter() < began + seconds:
            to_device(bench, next(arriving))
            images += size
        wait(bench)
        rate = images / (time.perf_counter() - began)
    bench.book.row(TABLE, what=f"{workers} loading processes", **{"images/s": f"{rate:.0f}"})
    return rate


def drain(bench: Bench, arriving: Iterator[dict[str, Any]], workers: int) -> None:
    """Take the batches that wait already, which were loaded while nobody measured."""
    for _ in range(bench.choose(workers * AHEAD + 1, 1)):
        next(arriving)


class FromBytes(nn.Module):
    """uint8 images, normalised on the device, into the network."""

    mean: Tensor
    std: Tensor

    def __init__(self, mae: MaskedAutoencoder) -> None:
        super().__init__()
        self.mae = mae
        for name, colour in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, 255 * torch.tensor(colour).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.mae((images.float() - self.mean) / self.std).loss


def together(bench: Bench, data: UnlabelledImages, cores: int) -> None:
    """Which waits: steps with batches that come from files, and with one that is there."""
    tiny = {"image_size": 32, "decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2}
    name, options, size, steps = bench.choose(("vit_l", {}, 128, 40), ("vit_mini", tiny, 4, 2))
    mae = MaskedAutoencoder(name, norm_pix=True, **options).to(bench.device)
    step = Step(FromBytes(mae).to(bench.device), bench.device)
    workers = max(1, cores - 1)  # one is for the training process
    with closing(batches(bench, data, workers, size)) as arriving:
        there = to_device(bench, next(arriving))
        for _ in range(3):
            step(there)
        drain(bench, arriving, workers)
        fed = seconds_of(bench, lambda: step(to_device(bench, next(arriving))), steps) / steps
    kept = seconds_of(bench, lambda: step(there), steps) / steps
    for what, seconds in {"with files": fed, "with a batch that is there": kept}.items():
        text = f"{name} steps of {size}, not compiled, {what}, {workers} loading processes"
        bench.book.row(TABLE, what=text, **{"images/s": f"{size / seconds:.0f}"})
    bench.book.note(f"Steps fed from files take {fed / kept:.2f} times as long.")


def to_device(bench: Bench, batch: dict[str, Any]) -> Tensor:
    return batch["images"].to(bench.device, non_blocking=True)
