"""How long one pre-training step takes on a CPU, next to other masked autoencoders.

    python benchmarks/pretrain_step.py                    # prints the default tables
    python benchmarks/pretrain_step.py --write            # and writes them to pretrain_step.md
    python benchmarks/pretrain_step.py --backbone vit_s --batch 16 --rounds 5

All networks have the same weights and get the same images and noise; their losses and gradients
are compared before anything is timed. A step is zero_grad, forward, backward and AdamW: the
peers with torch's default AdamW, ours with its fused one, as `mae-bench pretrain` runs it. All
live in one process and take turns, a step each, in an order that rotates. Arithmetic is float32.
"""

import argparse
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import beit_peer
import lightly
import peers
import timm
import torch
import transformers
from torch import Tensor, nn
from torch.backends import mkldnn
from torch.utils.flop_counter import FlopCounterMode

from backbones.linear import inner_product
from mae_bench.mae import MaskedAutoencoder

OURS = "mae-bench"
PLAIN = "mae-bench, oneDNN switched off"
LARGEST_DIFFERENCE = 1e-5
NOTES = "## What was tried"


@dataclass(frozen=True)
class Workload:
    backbone: str
    batch: int
    decoder: dict[str, int] = field(default_factory=dict)
    """options of `MaskedAutoencoder`; the paper's decoder where nothing is said"""


SMALL_DECODER = {"decoder_dim": 128, "decoder_depth": 4, "decoder_heads": 4}
WORKLOADS = (Workload("vit_b", 8), Workload("vit_t", 32, SMALL_DECODER))


class Candidate:
    """One network with its optimiser."""

    def __init__(
        self, network: nn.Module, fused: bool, onednn: bool = True, compiled: bool = False
    ) -> None:
        parameters = [p for p in network.parameters() if p.requires_grad]
        options = {"lr": 1e-4, "betas": (0.9, 0.95), "weight_decay": 0.05}
        self.network: Callable = torch.compile(network) if compiled else network
        self.optimiser = torch.optim.AdamW(parameters, **options, fused=fused or None)
        self.onednn = onednn

    def gradients(self, images: Tensor, noise: Tensor) -> Tensor:
        """One forward and backward pass; the loss."""
        self.optimiser.zero_grad()
        out = self.network(images, noise)
        loss = out if isinstance(out, Tensor) else out.loss
        loss.backward()
        return loss.detach()

    def step(self, images: Tensor, noise: Tensor, clock: Callable[[], float]) -> tuple[float, ...]:
        """Seconds of a whole step and of its optimiser alone."""
        with mkldnn.flags(enabled=self.onednn):
            start = clock()
            self.gradients(images, noise)
            middle = clock()
            self.optimiser.step()
            end = clock()
        return end - start, end - middle

    def flops(self, images: Tensor, noise: Tensor) -> int:
        """Floating-point operations of forward and backward, as torch counts them."""
        with mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
            self.gradients(images, noise)
        return counter.get_total_flops()


def check(mae: MaskedAutoencoder, peer: peers.Peer, images: Tensor, noise: Tensor) -> str:
    """Largest relative differences of loss and gradients; stops the program if one is too large."""
    losses = []
    for network in (mae, peer):
        network.zero_grad()
        out = network(images, noise)
        loss = out if isinstance(out, Tensor) else out.loss
        loss.backward()
        losses.append(loss.item())
    expected = peer.gradients(mae)
    own = {name.removeprefix("encoder."): p.grad for name, p in mae.named_parameters()}
    gradient = max(float((own[k] - g).norm() / g.norm()) for k, g in expected.items())
    distance = abs(losses[0] / losses[1] - 1)
    if max(distance, gradient) > LARGEST_DIFFERENCE:
        name = type(peer).__name__
        raise SystemExit(f"{name}: loss differs by {distance:.1e}, a gradient by {gradient:.1e}")
    return f"{distance:.0e} and {gradient:.0e} ({type(peer).__name__})"


def measure(work: Workload, rounds: int, clock: Callable[[], float], compiled: bool) -> str:
    """One Markdown table."""
    torch.manual_seed(0)
    mae = MaskedAutoencoder(work.backbone, norm_pix=True, **work.decoder)
    others = {
        "Hugging Face ViTMAE, SDPA": peers.HuggingFace(mae),
        "lightly, timm's blocks": peers.Lightly(mae),
    }
    images = torch.randn(work.batch, 3, 224, 224)
    noise = torch.rand(work.batch, mae.num_patches)
    equality = [check(mae, peer, images, noise) for peer in others.values()]
    candidates = {
        OURS: Candidate(mae, fused=True),
        PLAIN: Candidate(mae, fused=True, onednn=False),
        **{name: Candidate(peer, fused=False) for name, peer in others.items()},
    }
    flops = {name: c.flops(images, noise) for name, c in candidates.items()}
    if compiled:
        for name, network in {OURS: mae, **others}.items():
            label = f"{name}, torch.compile"
            candidates[label] = Candidate(network, fused=name == OURS, compiled=True)
            flops[label] = flops[name]
    spent, peak = take_turns(candidates, images, noise, rounds, clock)
    title = f"### {work.backbone}, 224 x 224, batch {work.batch}"
    decoder = f"{mae.mask_token.shape[-1]} x {len(mae.decoder_blocks)}"
    what = f"Decoder {decoder}, {mae.decoder_blocks[0].attn.num_heads} heads"
    return table(title, what, work.batch, spent, flops, peak, equality)


def measure_beit(work: Workload, rounds: int, clock: Callable[[], float]) -> str:
    """One Markdown table of BEiT's pre-training."""
    torch.manual_seed(0)
    ours = beit_peer.Ours(work.backbone, work.batch)
    theirs = beit_peer.HuggingFace(ours)
    images = torch.randn(work.batch, 3, 224, 224)
    noise = torch.rand(work.batch, ours.beit.num_patches)
    equality = [check_beit(ours, theirs, images, noise)]
    candidates = {
        OURS: Candidate(ours, fused=True),
        PLAIN: Candidate(ours, fused=True, onednn=False),
        "Hugging Face BEiT, SDPA": Candidate(theirs, fused=False),
    }
    flops = {name: c.flops(images, noise) for name, c in candidates.items()}
    spent, peak = take_turns(candidates, images, noise, rounds, clock)
    title = f"### BEiT, {work.backbone}, 224 x 224, batch {work.batch}"
    what = f"{beit_peer.MASKED} masked patches, {beit_peer.CODES:,} tokens, which are given"
    return table(title, what, work.batch, spent, flops, peak, equality)


def check_beit(
    ours: beit_peer.Ours, theirs: beit_peer.HuggingFace, images: Tensor, noise: Tensor
) -> str:
    """As `check`."""
    losses = []
    for network in (ours, theirs):
        network.zero_grad()
        loss = network(images, noise)
        loss.backward()
        losses.append(loss.item())
    own = {name: p.grad for name, p in ours.beit.named_parameters() if p.grad is not None}
    found = beit_peer.mapped(own)
    expected = {name: p.grad for name, p in theirs.model.named_parameters()}
    gradient = max(float((found[k] - g).norm() / g.norm()) for k, g in expected.items())
    distance = abs(losses[0] / losses[1] - 1)
    if max(distance, gradient) > LARGEST_DIFFERENCE:
        raise SystemExit(f"BEiT: loss differs by {distance:.1e}, a gradient by {gradient:.1e}")
    return f"{distance:.0e} and {gradient:.0e} (HuggingFace)"


def take_turns(
    candidates: dict[str, Candidate],
    images: Tensor,
    noise: Tensor,
    rounds: int,
    clock: Callable[[], float],
) -> tuple[dict[str, list[tuple[float, ...]]], float]:
    """Seconds of each candidate's steps, and the best speed of matrix products between them."""
    spent: dict[str, list[tuple[float, ...]]] = {name: [] for name in candidates}
    names, peak = list(candidates), matmul_peak(clock)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds = candidates[name].step(images, noise, clock)
            if number > 0:  # the first round warms up
                spent[name].append(seconds)
        peak = max(peak, matmul_peak(clock))
    return spent, peak


def table(
    title: str,
    what: str,
    batch: int,
    spent: dict[str, list[tuple[float, ...]]],
    flops: dict[str, int],
    peak: float,
    equality: list[str],
) -> str:
    rows = [
        title,
        "",
        f"{what}. Largest relative difference of loss and of any gradient: {'; '.join(equality)}. "
        f"{len(spent[OURS])} rounds; matrix products reach {peak / 1e9:.0f} GFLOP/s.",
        "",
        "| implementation | s per step, median (min) | of it AdamW | images/s | GFLOP per image "
        "| share of the peak | times mae-bench |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, times in spent.items():
        steps = [whole for whole, _ in times]
        middle = statistics.median(steps)
        paired = [s / ours for s, (ours, _) in zip(steps, spent[OURS], strict=True)]
        rows.append(
            f"| {name} | {middle:.3f} ({min(steps):.3f}) "
            f"| {statistics.median(o for _, o in times):.3f} | {batch / middle:.1f} "
            f"| {flops[name] / batch / 1e9:.2f} | {flops[name] / middle / peak:.0%} "
            f"| {statistics.median(paired):.2f} |"
        )
    return "\n".join(rows)


def matmul_peak(clock: Callable[[], float], size: int = 2048) -> float:
    """Floating-point operations per second of the better library on a large product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    layer = nn.Linear(size, size, bias=False)
    products = (lambda: a @ b, lambda: inner_product(a, layer.weight.detach()))
    best = float("inf")
    for product in products:
        for _ in range(4):
            start = clock()
            product()
            best = min(best, clock() - start)
    return 2 * size**3 / best


def machine(threads: int) -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    clock = "CPU time" if threads == 1 else "wall time"
    return (
        f"{names[0] if names else platform.processor() or platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}, {threads} thread{'s' * (threads > 1)}, "
        f"{clock}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"timm {timm.__version__}, transformers {transformers.__version__}, "
        f"lightly {lightly.__version__}. "
        f"Load average {os.getloadavg()[1]:.1f} on {os.cpu_count()} processors."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backbone", help="one backbone in place of the default tables")
    parser.add_argument("--method", choices=("mae", "beit", "all"), default="all")
    parser.add_argument("--batch", type=int, default=8, help="images per step with --backbone")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds (default 15)")
    parser.add_argument("--threads", type=int, default=2, help="1 measures CPU time (default 2)")
    parser.add_argument("--compile", action="store_true", help="add rows with torch.compile")
    parser.add_argument("--write", action="store_true", help="write pretrain_step.md too")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="TF32 acceleration")  # from switching oneDNN
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    chosen = arguments.backbone
    works = (Workload(chosen, arguments.batch),) if chosen else WORKLOADS
    tables = []
    if arguments.method in ("mae", "all"):
        tables = [measure(work, arguments.rounds, clock, arguments.compile) for work in works]
    if arguments.method in ("beit", "all"):
        tables += [measure_beit(work, arguments.rounds, clock) for work in works]
    text = "\n\n".join([*tables, machine(arguments.threads), EXPLANATION]) + "\n"
    print(text)
    if arguments.write:
        file = Path(__file__).with_suffix(".md")
        _, heading, notes = file.read_text().partition(NOTES) if file.exists() else ("", "", "")
        title = "# One pre-training step on a CPU\n\n`python benchmarks/pretrain_step.py`\n\n"
        file.write_text(title + text + (f"\n{heading}{notes}" if notes else ""))


EXPLANATION = (
    "The last column is the median over the rounds of (implementation / mae-bench) in the same "
    "round. GFLOP are forward and backward, as torch counts them; the share divides them by the "
    "time of the whole step and by the best of MKL and oneDNN on 2048 x 2048 matrices."
)


if __name__ == "__main__":
    main()
