"""Where the time of a pre-training step on a CPU goes, and what share of its peak that leaves.

    python benchmarks/cpu_limit.py            # prints the tables
    python benchmarks/cpu_limit.py --write    # and writes them to cpu_limit.md

A step is what `mae-bench pretrain` does with a batch of uint8 images: normalisation, forward,
backward and AdamW. torch's profiler says what share of a step each operator takes by itself; the
seconds are that share of the process's CPU time, which counts no time that others have the
processor for. The loader works in other processes: its CPU time for as many images is told below.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import data_loading
import side_by_side
import torch
from pretrain_step import WORKLOADS, Workload, machine, matmul_peak
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from mae_bench.mae import MaskedAutoencoder
from mae_bench.provenance import bf16_of_cpu
from tasks.images import UnlabelledImages

STEP = "a step"
PRODUCTS = "matrix products"
REST = "views, autograd, Python"
KINDS = {
    "oneDNN: forward, gradient of inputs": ("mkldnn::_linear_pointwise",),
    "forward": ("aten::addmm",),
    "gradients": ("aten::mm",),
    "attention": ("scaled_dot_product",),
    "layer norm": ("native_layer_norm",),
    "GELU": ("gelu",),
    "sums: gradients of biases": ("aten::sum",),
    "elementwise": ("aten::add", "aten::mul", "aten::sub", "aten::div", "mse_loss"),
    "gathers, copies, casts, fills": (
        "aten::index", "aten::_index", "aten::cat", "aten::copy_", "aten::fill_", "aten::scatter",
        "aten::stack", "aten::constant_pad", "aten::argsort", "aten::sort", "aten::rand",
        "aten::uniform",
    ),
    "AdamW": ("fused_adamw", "Optimizer."),
}  # fmt: skip
"""kind of operator -> what the profiler's names of it have in them"""
TITLES = {
    "gradients": {
        "fp32": "matrix products, MKL: gradient of weights",
        "bf16": "matrix products, oneDNN: gradients",
    },
    "forward": {
        "fp32": "matrix products, MKL: forward, of what is small",
        "bf16": "matrix products, oneDNN: forward",
    },
}


def kind_of(name: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(p in name for p in parts)), REST)


def operations(name: str, shapes: list[Any]) -> int:
    """Of a matrix product with operands of these shapes."""
    if "linear_pointwise" in name:
        rows, weight = shapes[0], shapes[1]
        return 2 * weight[0] * torch.Size(rows).numel()
    if name in ("aten::mm", "aten::addmm"):
        first, second = shapes[-2:] if name == "aten::mm" else shapes[1:3]
        return 2 * first[0] * first[1] * second[1]
    return 0


class Step:
    """A network and its optimiser, as `mae-bench pretrain` has them."""

    def __init__(self, work: Workload, precision: str) -> None:
        torch.manual_seed(0)
        self.precision = precision
        self.mae = MaskedAutoencoder(work.backbone, norm_pix=True, **work.decoder)
        trained = [p for p in self.mae.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), fused=True)
        self.images = torch.randint(256, (work.batch, 3, 224, 224), dtype=torch.uint8)
        self.mean = torch.full((3, 1, 1), 120.0)

    def __call__(self) -> Tensor:
        images = self.images.float().sub_(self.mean).div_(60.0)
        bf16 = torch.autocast("cpu", torch.bfloat16) if self.precision == "bf16" else nullcontext()
        with bf16:
            loss = self.mae(images).loss
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return loss.detach()

    def profiled(self, clock: Callable[[], float]) -> tuple[dict[str, float], dict[str, int]]:
        """Seconds and operations of one step by kind."""
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
            began = clock()
            with record_function(STEP):
                self()
            spent = clock() - began
        parts: dict[str, float] = defaultdict(float)
        flops: dict[str, int] = defaultdict(int)
        for event in found.key_averages(group_by_input_shape=True):
            kind = kind_of(event.key)
            parts[kind] += event.self_cpu_time_total
            flops[kind] += event.count * operations(event.key, event.input_shapes)
        whole = sum(parts.values())
        return {kind: spent * part / whole for kind, part in parts.items()}, flops


def peak_of(precision: str, clock: Callable[[], float], size: int = 2048) -> float:
    """Operations per second of the best large product."""
    if precision == "fp32":
        return matmul_peak(clock, size)
    a, b = torch.randn(2, size, size).bfloat16()
    best = float("inf")
    for _ in range(6):
        start = clock()
        a @ b
        best = min(best, clock() - start)
    return 2 * size**3 / best


def measure(work: Workload, precision: str, rounds: int, clock: Callable[[], float]) -> str:
    """One Markdown table."""
    step = Step(work, precision)
    seconds: list[dict[str, float]] = []
    plain: list[float] = []
    peak, flops = 0.0, {}
    for number in range(rounds + 1):
        start = clock()
        step()
        whole = clock() - start
        parts, flops = step.profiled(clock)
        peak = max(peak, peak_of(precision, clock))
        if number:  # the first round warms up
            plain.append(whole)
            seconds.append(parts)
    shares = {
        kind: statistics.median(each.get(kind, 0.0) / sum(each.values()) for each in seconds)
        for kind in {kind for each in seconds for kind in each}
    }
    return table(work, precision, shares, flops, statistics.median(plain), peak)


def table(
    work: Workload,
    precision: str,
    shares: dict[str, float],
    flops: dict[str, int],
    whole: float,
    peak: float,
) -> str:
    """Times are shares of a step that is not profiled."""
    counted = sum(flops.values())
    how = f", multiplied by {bf16_of_cpu()}" if precision == "bf16" else ""
    rows = [
        f"### {work.backbone}, batch {work.batch}, {precision}{how}",
        "",
        f"A step takes {whole:.2f} s, {work.batch / whole:.1f} images/s. Large matrix products "
        f"reach {peak / 1e9:.0f} GFLOP/s; the step's matrix products, {counted / 1e9:.0f} GFLOP, "
        f"in its whole time: **{counted / whole / peak:.0%} of that**.",
        "",
        "| operators | share of the step | GFLOP | GFLOP/s | of the peak |",
        "|---|---|---|---|---|",
    ]
    order = sorted(shares, key=lambda kind: (kind == REST, -bool(flops.get(kind)), -shares[kind]))
    for kind in order:
        title = TITLES.get(kind, {}).get(precision, kind)
        title = f"{PRODUCTS}, {title}" if title.startswith("oneDNN") else title
        done, rate = flops.get(kind, 0), 0.0
        if done and shares[kind]:
            rate = done / (shares[kind] * whole)
        rates = f"{done / 1e9:.1f} | {rate / 1e9:.0f} | {rate / peak:.0%}" if done else "| |"
        rows.append(f"| {title} | {shares[kind]:.1%} | {rates} |")
    return "\n".join(rows)


def loading(count: int = 32) -> float:
    """CPU seconds for the crop of one photo of 500 x 375 pixels."""
    with tempfile.TemporaryDirectory() as folder:
        work = data_loading.Workload("photos", (500, 375), 224, count, passes=1)
        data_loading.write_photos(Path(folder), work)
        data = UnlabelledImages([Path(folder)], 224, min_crop_area=data_loading.AREA[0])
        best = float("inf")
        for epoch in range(5):
            start = time.process_time()
            data.__getitems__([(epoch, index) for index in range(count)])
            best = min(best, time.process_time() - start)
    return best / count


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backbone", choices=[work.backbone for work in WORKLOADS])
    parser.add_argument("--batch", type=int, help="images of a step in place of the usual number")
    parser.add_argument("--rounds", type=int, default=7, help="profiled steps (default 7)")
    parser.add_argument("--threads", type=int, default=1, help="more are timed by the wall clock")
    parser.add_argument("--write", action="store_true", help="write cpu_limit.md too")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="TF32 acceleration")
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    tables = []
    for work in WORKLOADS:
        if arguments.backbone not in (None, work.backbone):
            continue
        work = replace(work, batch=arguments.batch or work.batch)
        for precision in ("fp32", "bf16"):
            tables.append(measure(work, precision, arguments.rounds, clock))
    loaded = f"The loader takes {1000 * loading():.1f} ms of another process for an image."
    tables = [*tables, f"### Loading\n\n{loaded}"]
    tables = [f"{table}\n\n{machine(arguments.threads)}" for table in tables]
    title = "What limits a pre-training step on a CPU"
    side_by_side.publish(__file__, title, [*tables, EXPLANATION], arguments.write, keep_tables=True)


EXPLANATION = (
    "The peak is the speed of large matrix products, measured between the steps; GFLOP are those "
    "of matrix products alone, forward and backward."
)


if __name__ == "__main__":
    main()
