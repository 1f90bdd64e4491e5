"""How fast one core turns JPEG files into MoCo v3's pairs of views, next to the reference pipeline.

    python benchmarks/two_views.py            # prints the table
    python benchmarks/two_views.py --write    # and writes it to benchmarks/two_views.md

Files, clock and turns are those of data_loading.py, whose photos these are. That the views are
torchvision's and Pillow's operations is tested in tests/mae_bench/pretraining/test_moco_v3.py.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from data_loading import MEAN, STD, WORKLOADS, Workload, machine, write_photos
from PIL import Image, ImageFilter, ImageOps
from torch.utils.data import default_collate
from torchvision import transforms
from torchvision.datasets.folder import pil_loader

from mae_bench.pretraining.two_views import TwoViews
from mae_bench.recipes import override, recipe
from tasks.images import UnlabelledImages

REFERENCE = "Pillow + torchvision, normalised float (the reference)"
UINT8 = "the same, stopped at uint8"
OURS = "mae-bench, uint8"


def blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def reference_view(size: int, blur: float, solarise: float, *to_tensor: Callable) -> Callable:
    """facebookresearch/moco-v3, main_moco.py, augmentation1 or augmentation2."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.08, 1.0)),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([blurred], p=blur),
            transforms.RandomApply([ImageOps.solarize], p=solarise),
            transforms.RandomHorizontalFlip(),
            *to_tensor,
        ]
    )


def pipelines(paths: list[Path], size: int) -> dict[str, Callable[[int], object]]:
    """From an epoch number to a batch of pairs of views of all images."""

    def reference(*to_tensor: Callable) -> Callable[[int], object]:
        first = reference_view(size, 1.0, 0.0, *to_tensor)
        second = reference_view(size, 0.1, 0.2, *to_tensor)

        def batch(_: int) -> object:
            images = [pil_loader(path) for path in paths]
            return default_collate([(first(image), second(image)) for image in images])

        return batch

    published = override(recipe("pretrain", "vit_b", "moco_v3"), {"image_size": size})
    data = TwoViews(UnlabelledImages([paths[0].parent], size), published, seed=0)
    return {
        REFERENCE: reference(transforms.ToTensor(), transforms.Normalize(MEAN, STD)),
        UINT8: reference(transforms.PILToTensor()),
        OURS: lambda epoch: data.__getitems__([(epoch, index) for index in range(len(data))]),
    }


def measure(work: Workload, rounds: int) -> str:
    """One Markdown table."""
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photos(Path(folder), work)
        candidates = pipelines(paths, work.image_size)
        spent: dict[str, list[float]] = {name: [] for name in candidates}
        for epoch in range(rounds + 1):
            for name, batch in candidates.items():
                start = time.process_time()
                batch(epoch)
                if epoch > 0:  # the first round warms up
                    spent[name].append((time.process_time() - start) / work.images)
    rows = [
        f"### {work.title}",
        "",
        f"{work.images} files, JPEG quality 90, 4:2:0; {rounds} rounds.",
        "",
        "| pipeline | ms per pair, median (min) | images/s per core | times the reference "
        "| times that stopped at uint8 |",
        "|---|---|---|---|---|",
    ]
    for name, times in spent.items():
        middle = statistics.median(times)
        ratios = [
            statistics.median(theirs / t for theirs, t in zip(spent[other], times, strict=True))
            for other in (REFERENCE, UINT8)
        ]
        rows.append(
            f"| {name} | {middle * 1e3:.2f} ({min(times) * 1e3:.2f}) | {1 / middle:.0f} "
            f"| {ratios[0]:.2f} | {ratios[1]:.2f} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds (default 15)")
    parser.add_argument("--write", action="store_true", help="write benchmarks/two_views.md too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tables = [measure(work, arguments.rounds) for work in WORKLOADS]
    text = "\n\n".join([*tables, machine()]) + "\n"
    print(text)
    if arguments.write:
        title = "# From JPEG files to MoCo v3's views\n\n`python benchmarks/two_views.py`\n\n"
        Path(__file__).with_suffix(".md").write_text(title + text)


if __name__ == "__main__":
    main()
