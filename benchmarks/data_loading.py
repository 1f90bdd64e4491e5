"""How fast one core turns JPEG files into training batches, next to the reference pipeline.

    python benchmarks/data_loading.py            # prints the tables
    python benchmarks/data_loading.py --write    # and writes them to benchmarks/data_loading.md

Every pipeline reads files (from the page cache), decodes, cuts a random box of 0.2 to 1 of the
area, resizes it (bicubic, antialiased), mirrors half of them and collates a batch, with its own
random numbers. One process with one thread; the pipelines take turns, a round each, and the time
is CPU time, so that other work on the machine disturbs all of them alike. Pixels are compared
before anything is timed.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import simplejpeg
import torch
import torchvision
from PIL import Image
from torch.utils.data import default_collate
from torchvision import transforms as v1
from torchvision.datasets.folder import pil_loader
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import InterpolationMode, v2

from tasks.images import UnlabelledImages, crop_resize, decode, random_resized_crop_box

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AREA = (0.2, 1.0)
REFERENCE = "Pillow + torchvision v1, normalised float (the reference)"
OURS = "mae-bench, uint8"
LEAST_PSNR = 60.0


@dataclass(frozen=True)
class Workload:
    title: str
    sides: tuple[int, int]
    """pixels of the longer and the shorter side of the files"""
    image_size: int
    """pixels of the side of a training image"""
    images: int
    passes: int
    """how often one round goes through the images"""


WORKLOADS = (
    Workload("Photos, 500 x 375 and 375 x 500 to 224 x 224", (500, 375), 224, images=40, passes=1),
    Workload("Miniature world, 64 x 64 to 32 x 32", (64, 64), 32, images=64, passes=8),
)


def photo(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Coloured clouds with details at every scale and film grain: about as hard as a photo."""
    clouds = np.full((height, width, 3), 127.0)
    cells, contrast = 2, 32.0
    while cells < 2 * max(height, width):
        shape = (cells * height // width + 2, cells + 2, 1)
        noise = rng.standard_normal(shape) + 0.5 * rng.standard_normal((*shape[:2], 3))
        channels = [Image.fromarray(noise[..., c].astype(np.float32)) for c in range(3)]
        resized = [c.resize((width, height), Image.Resampling.BICUBIC) for c in channels]
        clouds += contrast * np.stack([np.asarray(c) for c in resized], axis=-1)
        cells, contrast = 2 * cells, 0.62 * contrast
    clouds += rng.uniform(4, 20) * rng.standard_normal((height, width, 1))
    return Image.fromarray(clouds.clip(0, 255).astype(np.uint8))


def write_photos(folder: Path, work: Workload, seed: int = 0) -> list[Path]:
    """JPEG files of quality 90 with 4:2:0 chroma, half of them upright."""
    rng = np.random.default_rng(seed)
    paths = [folder / f"{number:03}.jpg" for number in range(work.images)]
    for number, path in enumerate(paths):
        longer, shorter = work.sides
        height, width = (shorter, longer) if number % 2 else (longer, shorter)
        photo(rng, height, width).save(path, quality=90, subsampling="4:2:0")
    return paths


def reference_transform(size: int, *to_tensor: Callable) -> Callable:
    """facebookresearch/mae, main_pretrain.py."""
    crop = v1.RandomResizedCrop(size, scale=AREA, interpolation=InterpolationMode.BICUBIC)
    return v1.Compose([crop, v1.RandomHorizontalFlip(), *to_tensor])


def pipelines(paths: list[Path], size: int) -> dict[str, Callable[[int], torch.Tensor]]:
    """From an epoch number to a batch of all images."""
    to_float = reference_transform(size, v1.ToTensor(), v1.Normalize(MEAN, STD))
    to_uint8 = reference_transform(size, v1.PILToTensor())
    crop = v2.RandomResizedCrop(size, AREA, interpolation=InterpolationMode.BICUBIC, antialias=True)
    on_tensors = v2.Compose([crop, v2.RandomHorizontalFlip()])
    data = UnlabelledImages([paths[0].parent], size, min_crop_area=AREA[0])
    mean, std = (torch.tensor(v).view(3, 1, 1) * 255 for v in (MEAN, STD))

    def pillow(transform: Callable) -> Callable[[int], torch.Tensor]:
        return lambda _: default_collate([transform(pil_loader(path)) for path in paths])

    def tensors(_: int) -> torch.Tensor:
        images = [decode_jpeg(read_file(str(path)), ImageReadMode.RGB) for path in paths]
        return default_collate([on_tensors(image) for image in images])

    def ours(epoch: int) -> torch.Tensor:
        return data.__getitems__([(epoch, index) for index in range(len(data))])["images"]

    def ours_normalised(epoch: int) -> torch.Tensor:
        return ours(epoch).float().sub_(mean).div_(std)

    return {
        REFERENCE: pillow(to_float),
        "the same, stopped at uint8": pillow(to_uint8),
        "torchvision decode_jpeg + v2, uint8": tensors,
        OURS: ours,
        "mae-bench, then normalised to float on this CPU": ours_normalised,
    }


def psnr(paths: list[Path], size: int, crop: Callable[[Path, tuple], np.ndarray]) -> float:
    """Decibels between `crop` and Pillow's crop and resize, over random boxes of all images."""
    rng = np.random.default_rng(1)
    squares = []
    for path in paths:
        image = pil_loader(path)
        top, left, h, w = box = random_resized_crop_box(rng, image.height, image.width, AREA)
        cut = image.crop((left, top, left + w, top + h))
        exact = np.asarray(cut.resize((size, size), Image.Resampling.BICUBIC), dtype=float)
        squares.append(np.mean((exact.transpose(2, 0, 1) - crop(path, box)) ** 2))
    return float(10 * np.log10(255**2 / max(np.mean(squares), 1e-12)))


def check(paths: list[Path], size: int) -> dict[str, str]:
    """Pixel fidelity by pipeline, in words. Stops the program if ours is not what it should be."""

    def ours(path: Path, box: tuple) -> np.ndarray:
        return crop_resize(decode(path), box, size, flip=False).numpy()

    def tensors(path: Path, box: tuple) -> np.ndarray:
        image = decode_jpeg(read_file(str(path)), ImageReadMode.RGB)
        how = {"interpolation": InterpolationMode.BICUBIC, "antialias": True}
        return v2.functional.resized_crop(image, *box, [size, size], **how).numpy()

    different = [p.name for p in paths if not np.array_equal(decode(p), np.asarray(pil_loader(p)))]
    if different:
        raise SystemExit(f"decoded otherwise than by Pillow: {', '.join(different)}")
    fidelity = psnr(paths, size, ours)
    if fidelity < LEAST_PSNR:
        raise SystemExit(f"PSNR {fidelity:.1f} dB against Pillow; expected at least {LEAST_PSNR}")
    words = f"{fidelity:.1f} dB"
    peer = f"{psnr(paths, size, tensors):.1f} dB"
    return dict(zip(pipelines(paths, size), ("exact", "exact", peer, words, words), strict=True))


def measure(work: Workload, rounds: int) -> str:
    """One Markdown table."""
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photos(Path(folder), work)
        kilobytes = statistics.mean(path.stat().st_size for path in paths) / 1024
        fidelity = check(paths, work.image_size)
        candidates = pipelines(paths, work.image_size)
        spent: dict[str, list[float]] = {name: [] for name in candidates}
        for epoch in range(rounds + 1):
            for name, batch in candidates.items():
                start = time.process_time()
                for part in range(work.passes):
                    batch(epoch * work.passes + part)
                seconds = (time.process_time() - start) / (work.images * work.passes)
                if epoch > 0:  # the first round warms up
                    spent[name].append(seconds)
    rows = [
        f"### {work.title}",
        "",
        f"{work.images} files of {kilobytes:.1f} KiB on average, JPEG quality 90, 4:2:0; "
        f"{rounds} rounds.",
        "",
        "| pipeline | ms per image, median (min) | images/s per core | times the reference | "
        "against Pillow's pixels |",
        "|---|---|---|---|---|",
    ]
    for name, times in spent.items():
        middle = statistics.median(times)
        paired = [theirs / t for theirs, t in zip(spent[REFERENCE], times, strict=True)]
        rows.append(
            f"| {name} | {middle * 1e3:.3f} ({min(times) * 1e3:.3f}) | {1 / middle:.0f} "
            f"| {statistics.median(paired):.2f} | {fidelity[name]} |"
        )
    return "\n".join(rows)


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        f"{names[0] if names else platform.processor() or platform.machine()}, one thread, CPU "
        f"time; Python {platform.python_version()}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}, Pillow {PIL.__version__}, "
        f"simplejpeg {simplejpeg.__version__}. "
        f"Load average {os.getloadavg()[1]:.1f} on {os.cpu_count()} processors."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=25, help="timed rounds (default 25)")
    parser.add_argument("--write", action="store_true", help="write benchmarks/data_loading.md too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tables = [measure(work, arguments.rounds) for work in WORKLOADS]
    text = "\n\n".join([*tables, machine(), EXPLANATION]) + "\n"
    print(text)
    if arguments.write:
        title = "# From JPEG files to training batches\n\n`python benchmarks/data_loading.py`\n\n"
        Path(__file__).with_suffix(".md").write_text(title + text)


EXPLANATION = (
    "The ratio is the median over the rounds of (reference / pipeline) in the same round. The "
    "uint8 rows leave the normalisation to the device that trains, where mae-bench does it; the "
    "last row does it here instead."
)


if __name__ == "__main__":
    main()
