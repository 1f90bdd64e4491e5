"""How long one pre-training step takes on a CPU, next to other masked autoencoders.

    python benchmarks/pretrain_step.py                    # prints the default tables
    python benchmarks/pretrain_step.py --write            # and writes them to pretrain_step.md
    python benchmarks/pretrain_step.py --backbone vit_s --batch 16 --rounds 5
    python benchmarks/pretrain_step.py --method moco_v3 --threads 1 --write

Only the tables that are measured are written anew. All networks have the same weights and get the
same images and noise; their losses and gradients are compared before anything is timed. A step is
zero_grad, forward, backward and AdamW: the peers with torch's default AdamW, ours with its fused
one, as `mae-bench pretrain` runs it. Of ViT-L it is forward and backward alone, on weights that all
share, to fit into memory. All live in one process and take turns, a step each, in an order that
rotates. Arithmetic is float32.
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
import moco_peer
import peers
import side_by_side
import timm
import torch
import transformers
from torch import Tensor, nn
from torch.backends import mkldnn
from torch.utils.flop_counter import FlopCounterMode

from backbones.linear import inner_product
from mae_bench.mae import MaskedAutoencoder
from mae_bench.pretraining.momentum_contrast import MomentumContrast, create

OURS = "mae-bench"
PLAIN = "mae-bench, oneDNN switched off"
LARGEST_DIFFERENCE = 1e-5


@dataclass(frozen=True)
class Workload:
    backbone: str
    batch: int
    decoder: dict[str, int] = field(default_factory=dict)
    """options of `MaskedAutoencoder`; the paper's decoder where nothing is said"""
    optimised: bool = True
    """whether a step ends with AdamW; else all share the weights"""


SMALL_DECODER = {"decoder_dim": 128, "decoder_depth": 4, "decoder_heads": 4}
WORKLOADS = (Workload("vit_b", 8), Workload("vit_t", 32, SMALL_DECODER))
LARGE = Workload("vit_l", 4, optimised=False)
PAIRS = (Workload("vit_b", 4), Workload("vit_t", 16))
"""of MoCo v3, whose images are pairs of views"""


class Candidate:
    """One network with its optimiser."""

    def __init__(
        self,
        network: nn.Module,
        fused: bool,
        onednn: bool = True,
        compiled: bool = False,
        optimised: bool = True,
    ) -> None:
        parameters = [p for p in network.parameters() if p.requires_grad]
        options = {"lr": 1e-4, "betas": (0.9, 0.95), "weight_decay": 0.05}
        self.network: Callable = torch.compile(network) if compiled else network
        self.optimiser = torch.optim.AdamW(parameters, **options, fused=fused or None)
        self.onednn, self.optimised = onednn, optimised

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
            if self.optimised:
                self.optimiser.step()
            end = clock()
        self.optimiser.zero_grad()  # which frees the memory for the next one
        return end - start, end - middle

    def flops(self, images: Tensor, noise: Tensor) -> int:
        """Floating-point operations of forward and backward, as torch counts them."""
        with mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
            self.gradients(images, noise)
        self.optimiser.zero_grad()
        return counter.get_total_flops()


Gradients = Callable[[], tuple[dict[str, Tensor], dict[str, Tensor]]]
"""ours and a peer's under the same names"""


def check(
    ours: nn.Module, peer: nn.Module, images: Tensor, noise: Tensor, gradients: Gradients
) -> str:
    """Largest relative differences of loss and gradients; stops the program if one is too large."""
    losses = []
    for network in (ours, peer):
        network.zero_grad()
        out = network(images, noise)
        loss = out if isinstance(out, Tensor) else out.loss
        loss.backward()
        losses.append(loss.item())
    own, expected = gradients()
    if own.keys() != expected.keys():
        raise SystemExit(f"trained by one alone: {sorted(own.keys() ^ expected.keys())}")
    gradient = max(float((own[k] - g).norm() / g.norm()) for k, g in expected.items())
    distance = abs(losses[0] / losses[1] - 1)
    name = type(peer).__name__
    if max(distance, gradient) > LARGEST_DIFFERENCE:
        raise SystemExit(f"{name}: loss differs by {distance:.1e}, a gradient by {gradient:.1e}")
    for network in (ours, peer):
        network.zero_grad()
    return f"{distance:.0e} and {gradient:.0e} ({name})"


def of_autoencoders(mae: MaskedAutoencoder, peer: peers.Peer) -> Gradients:
    def both() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        trained = {n: p.grad for n, p in mae.named_parameters() if p.grad is not None}
        own = {name.removeprefix("encoder."): grad for name, grad in trained.items()}
        return own, peer.gradients(mae)

    return both


def of_beits(ours: beit_peer.Ours, peer: beit_peer.HuggingFace) -> Gradients:
    def both() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        own = {n: p.grad for n, p in ours.beit.named_parameters() if p.grad is not None}
        return beit_peer.mapped(own), {n: p.grad for n, p in peer.model.named_parameters()}

    return both


def of_contrasts(ours: moco_peer.Ours, peer: moco_peer.Release) -> Gradients:
    """Without the final norm's bias, whose gradient the batch norm behind it makes 0: both hold
    rounding alone there."""

    def both() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        own = {n: p.grad for n, p in ours.moco.named_parameters() if p.grad is not None}
        expected = peer.gradients()
        for found in (own, expected):
            del found["base.encoder.norm.bias"]
        return own, expected

    return both


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
    equality = [
        check(mae, peer, images, noise, of_autoencoders(mae, peer)) for peer in others.values()
    ]
    if not work.optimised:
        for peer in others.values():
            peer.share(mae)
    steps = {"optimised": work.optimised}
    candidates = {
        OURS: Candidate(mae, fused=True, **steps),
        PLAIN: Candidate(mae, fused=True, onednn=False, **steps),
        **{name: Candidate(peer, fused=False, **steps) for name, peer in others.items()},
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
    what += "" if work.optimised else "; forward and backward alone, on shared weights"
    return table(title, what, work.batch, spent, flops, peak, equality)


def measure_beit(work: Workload, rounds: int, clock: Callable[[], float]) -> str:
    """One Markdown table of BEiT's pre-training."""
    torch.manual_seed(0)
    ours = beit_peer.Ours(work.backbone, work.batch)
    theirs = beit_peer.HuggingFace(ours)
    images = torch.randn(work.batch, 3, 224, 224)
    noise = torch.rand(work.batch, ours.beit.num_patches)
    equality = [check(ours, theirs, images, noise, of_beits(ours, theirs))]
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


def measure_moco(work: Workload, rounds: int, clock: Callable[[], float]) -> str:
    """One Markdown table of MoCo v3's pre-training, with the paper's heads."""
    torch.manual_seed(0)
    ours = moco_peer.Ours(MomentumContrast(create(work.backbone, 224)))
    theirs = moco_peer.Release(ours.moco)
    first, second = torch.randn(2, work.batch, 3, 224, 224)
    # At the start all class tokens are alike, and batch norm blows up what rounding does to them:
    # so the equality is shown in float64, of two images, which are enough for it.
    pairs = [each[:2].double() for each in (first, second)]
    equality = [check(ours.double(), theirs.double(), *pairs, of_contrasts(ours, theirs))]
    candidates = {
        OURS: Candidate(ours.float(), fused=True),
        PLAIN: Candidate(ours, fused=True, onednn=False),
        "moco-v3's arrangement, timm's ViT": Candidate(theirs.float(), fused=False),
    }
    flops = {name: c.flops(first, second) for name, c in candidates.items()}
    spent, peak = take_turns(candidates, first, second, rounds, clock)
    title = f"### MoCo v3, {work.backbone}, 224 x 224, batch {work.batch}"
    what = "Pairs of views; heads of 4096 and 256; compared in float64"
    return table(title, what, work.batch, spent, flops, peak, equality)


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
    parser.add_argument("--method", choices=("mae", "beit", "moco_v3", "all"), default="all")
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
    one = (Workload(chosen, arguments.batch, optimised=chosen not in ("vit_l", "vit_h")),)
    works = one if chosen else WORKLOADS
    tables = []
    if arguments.method in ("mae", "all"):
        large = () if chosen else (LARGE,)
        for work in (*works, *large):
            tables.append(measure(work, arguments.rounds, clock, arguments.compile))
    if arguments.method in ("beit", "all"):
        tables += [measure_beit(work, arguments.rounds, clock) for work in works]
    if arguments.method in ("moco_v3", "all"):
        works = one if chosen else PAIRS
        tables += [measure_moco(work, arguments.rounds, clock) for work in works]
    tables = [f"{each}\n\n{machine(arguments.threads)}" for each in tables]
    title = "One pre-training step on a CPU"
    parts = [*tables, EXPLANATION]
    side_by_side.publish(__file__, title, parts, arguments.write, keep_tables=True)


EXPLANATION = (
    "The last column is the median over the rounds of (implementation / mae-bench) in the same "
    "round. GFLOP are forward and backward, as torch counts them; the share divides them by the "
    "time of the whole step and by the best of MKL and oneDNN on 2048 x 2048 matrices."
)


if __name__ == "__main__":
    main()
