"""How long Mask R-CNN on a ViT takes, next to detectron2's ViTDet, which has to be installed.

    python benchmarks/detection_step.py                    # prints the table
    python benchmarks/detection_step.py --write            # and writes it to detection_step.md
    python benchmarks/detection_step.py --backbone vit_s --image-size 1024 --rounds 3

Both have the same weights and get the same image, boxes and masks, and draw the same samples;
losses and detections are compared before anything is timed. Training is forward, backward and
AdamW with its default implementation; both live in one process and take turns. On a GPU
(--device cuda) arithmetic is bfloat16 under autocast, else float32.
"""

import argparse
import dataclasses
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

import backbones
from tasks.coco.mask_rcnn import Detections, MaskRCNN
from tasks.coco.pyramid import SimplePyramid, norm_layer
from tasks.coco.recipes import CocoRecipe, recipe

NUM_CLASSES = 80
NUM_THINGS = 7
"""objects in the image: COCO's average"""
LARGEST_DIFFERENCE = 1e-4


class Ours(nn.Module):
    """mae-bench: our ViT and pyramid, torchvision's parts."""

    def __init__(self, setup: CocoRecipe) -> None:
        super().__init__()
        self.taps = setup.taps
        self.vit = backbones.create(setup.backbone, **setup.backbone_options())
        self.pyramid = SimplePyramid(
            self.vit.embed_dim, setup.pyramid_channels, norm_layer(setup.norm)
        )
        self.detector = MaskRCNN(setup, NUM_CLASSES)

    def levels(self, images: Tensor) -> dict[str, Tensor]:
        return self.pyramid(self.vit.feature_maps(images, self.taps))


class Theirs(nn.Module):
    """detectron2 throughout, with the weights of ours."""

    def __init__(self, setup: CocoRecipe, ours: Ours) -> None:
        from detectron2_peer import Detectron2Pyramid

        from tasks.coco.detectron2_engine import Detectron2MaskRCNN, from_torchvision

        super().__init__()
        self.levels = Detectron2Pyramid(setup, ours.vit, ours.pyramid)
        self.detector = Detectron2MaskRCNN(setup, NUM_CLASSES)
        self.detector.load_state_dict(from_torchvision(ours.detector.state_dict()))


class Bench:
    """One image with its things, and what is timed on it."""

    def __init__(self, setup: CocoRecipe, device: str) -> None:
        side = setup.image_size
        generator = torch.Generator().manual_seed(0)
        self.device = device
        self.images = torch.randn(1, 3, side, side, generator=generator).to(device)
        self.sizes = torch.tensor([[side, side * 3 // 4]])
        self.targets = [things(side, generator, device)]

    def losses(self, network: Ours | Theirs) -> dict[str, Tensor]:
        torch.manual_seed(0)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            levels = network.levels(self.images)
            return network.detector.losses(levels, self.images, self.sizes, self.targets)

    def step(self, network: Ours | Theirs, optimiser: torch.optim.Optimizer) -> None:
        network.train()
        optimiser.zero_grad()
        torch.stack(list(self.losses(network).values())).sum().backward()
        optimiser.step()

    @torch.no_grad()
    def detect(self, network: Ours | Theirs) -> list[Detections]:
        network.eval()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            return network.detector.detect(network.levels(self.images), self.images, self.sizes)


def things(side: int, generator: torch.Generator, device: str) -> dict[str, Any]:
    """Seven diamonds in boxes of different sizes."""
    corner = torch.rand(NUM_THINGS, 2, generator=generator) * side * 0.5
    extent = (0.05 + 0.2 * torch.rand(NUM_THINGS, 2, generator=generator)) * side
    boxes = torch.cat([corner, corner + extent], dim=1)
    masks = []
    for left, top, right, bottom in boxes.double().tolist():
        x, y = (left + right) / 2, (top + bottom) / 2
        masks.append([np.array([[x, top], [right, y], [x, bottom], [left, y]])])
    labels = torch.arange(NUM_THINGS) * 11
    return {"boxes": boxes.to(device), "labels": labels.to(device), "masks": masks}


def check(bench: Bench, ours: Ours, theirs: Theirs) -> str:
    """The largest relative difference of the losses and of the detections' scores."""
    ours.train(), theirs.train()
    with torch.no_grad():
        one, other = bench.losses(ours), bench.losses(theirs)
    gaps = [abs(1 - (one[name] / value).item()) for name, value in other.items()]
    (found,), (expected,) = bench.detect(ours), bench.detect(theirs)
    same = found.scores.shape == expected.scores.shape
    gaps.append((found.scores - expected.scores).abs().max().item() if same else 1.0)
    if bench.device == "cpu" and max(gaps) > LARGEST_DIFFERENCE:
        raise SystemExit(f"results differ by {max(gaps):.1e}; nothing was timed")
    return f"Losses and scores differ by {max(gaps):.0e} at most."


def measure(setup: CocoRecipe, rounds: int, device: str) -> str:
    torch.manual_seed(0)
    ours = Ours(setup)
    theirs = Theirs(setup, ours)
    networks: dict[str, Ours | Theirs] = {
        "detectron2": theirs.to(device),
        "mae-bench": ours.to(device),
    }
    bench = Bench(setup, device)
    difference = check(bench, ours, theirs)
    optimisers = {name: torch.optim.AdamW(n.parameters(), lr=1e-6) for name, n in networks.items()}
    work: dict[str, Callable[[str], Any]] = {
        "training step": lambda name: bench.step(networks[name], optimisers[name]),
        "detection": lambda name: bench.detect(networks[name]),
    }
    seconds: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds + 1):
        for what, do in work.items():
            for name in list(networks)[:: 1 if turn % 2 else -1]:
                start = clock(device)
                do(name)
                if turn:  # the first one warms up
                    seconds.setdefault((what, name), []).append(clock(device) - start)
    lines = [
        f"### {setup.backbone}, {setup.image_size} x {setup.image_size} pixels, one image",
        "",
        f"{rounds} rounds. {difference}",
        "",
        "| what | detectron2, s, median (min) | mae-bench, s, median (min) | times ours |",
        "|---|---|---|---|",
    ]
    for what in work:
        peer, own = seconds[what, "detectron2"], seconds[what, "mae-bench"]
        ratio = statistics.median(a / b for a, b in zip(peer, own, strict=True))
        cells = [f"{statistics.median(each):.2f} ({min(each):.2f})" for each in (peer, own)]
        lines.append(f"| {what} | {cells[0]} | {cells[1]} | {ratio:.2f} |")
    return "\n".join(lines)


def clock(device: str) -> float:
    """CPU time, so that other programs count less; wall time on a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def machine(device: str) -> str:
    """What it ran on."""
    import detectron2

    if device == "cuda":
        where = torch.cuda.get_device_name()
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        where = f"{names[0]}, {torch.backends.cpu.get_cpu_capability()}, one thread, CPU time"
    return (
        f"{where}; Python {platform.python_version()}, torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}, detectron2 {detectron2.__version__}. "
        f"Load average {os.getloadavg()[1]:.1f} on {os.cpu_count()} processors."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backbone", default="vit_b", help="default: vit_b")
    parser.add_argument("--image-size", type=int, default=512, help="pixels (default 512)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--write", action="store_true", help="write detection_step.md too")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # detectron2's, of deprecated functions
    torch.set_num_threads(1)
    base = recipe("coco", arguments.backbone, "mask_rcnn-vitdet")
    # Any score counts, so that new weights give the mask head its hundred detections.
    changes = {"image_size": arguments.image_size, "drop_path": 0.0, "score_threshold": 0.0}
    setup = dataclasses.replace(base, **changes)
    table = measure(setup, arguments.rounds, arguments.device)
    text = "\n\n".join([table, machine(arguments.device), EXPLANATION]) + "\n"
    print(text)
    if arguments.write:
        title = "# Mask R-CNN on a ViT next to detectron2's\n\n"
        command = "`python benchmarks/detection_step.py`\n\n"
        Path(__file__).with_suffix(".md").write_text(title + command + text)


EXPLANATION = (
    "A training step is forward, backward and AdamW. The ratio is the median over the rounds of "
    "(detectron2 / mae-bench) in the same round. Both draw the same proposals; the recipe is the "
    "published one of `mask_rcnn-vitdet` but for the image size, no stochastic depth, and no "
    "least score: detection ends with a hundred masks."
)


if __name__ == "__main__":
    main()
