"""Time and memory of attention with decomposed relative positions, next to the explicit form.

    python benchmarks/detection_attention.py            # prints the tables
    python benchmarks/detection_attention.py --write    # and writes detection_attention.md too

ViTDet's attention: global over 64 x 64 tokens, and in 14 x 14 windows. Outputs and gradients are
compared before anything is timed. The forms take turns, a call each, in one process; the peak of
memory is taken in a fresh process each, over what the inputs occupy. Arithmetic is float32.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer_sam import get_decomposed_rel_pos_bias, get_rel_pos
from torch import Tensor

from backbones.relative import attend_decomposed, attend_fused, distance_terms

WIDTH = 64
LARGEST_DIFFERENCE = 1e-5


@dataclass(frozen=True)
class Workload:
    title: str
    batch: int
    """images or windows"""
    side: int
    """tokens"""
    timed_heads: int
    memory_heads: int


WORKLOADS = {
    "global": Workload("Global attention, 64 x 64 = 4096 tokens", 1, 64, 3, 12),
    "windows": Workload("25 windows of 14 x 14 tokens", 25, 14, 12, 12),
}


def explicit(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """All logits, the products with the tables added to each: detectron2's order of things."""
    side = (len(rel_h) + 1) // 2
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    grid = q.unflatten(2, (side, side))
    rows = torch.einsum("bnhwc,hkc->bnhwk", grid, get_rel_pos(side, side, rel_h))
    columns = torch.einsum("bnhwc,wkc->bnhwk", grid, get_rel_pos(side, side, rel_w))
    split = logits.unflatten(2, (side, side)).unflatten(4, (side, side))
    logits = (split + rows[..., :, None] + columns[..., None, :]).flatten(4).flatten(2, 3)
    return logits.softmax(dim=-1) @ v


def masked(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """The bias as the mask of PyTorch's fused attention: timm's `VisionTransformerSAM`."""
    side = (len(rel_h) + 1) // 2
    flat = [x.flatten(0, 1) for x in (q, k, v)]
    bias = get_decomposed_rel_pos_bias(flat[0], rel_h, rel_w, (side, side), (side, side))
    return F.scaled_dot_product_attention(*flat, attn_mask=bias).view(q.shape)


def fused(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """Ours as it runs on a GPU, under autocast and compiled."""
    return attend_fused(q, k, v, *(t.flatten(2, 3) for t in distance_terms(q, rel_h, rel_w)))


FORMS: dict[str, Callable[..., Tensor]] = {
    "explicit, as in detectron2": explicit,
    "PyTorch's attention, bias as its mask (timm)": masked,
    "mae-bench, PyTorch's attention of wider heads": fused,
    "mae-bench": attend_decomposed,
}
REFERENCE, OURS = "explicit, as in detectron2", "mae-bench"


def inputs_of(work: Workload, heads: int, device: str) -> tuple[list[Tensor], Tensor]:
    """q, k, v, both tables, and the gradient of the output."""
    torch.manual_seed(0)
    shape = (work.batch, heads, work.side**2, WIDTH)
    tables = [0.1 * torch.randn(2 * work.side - 1, WIDTH, device=device) for _ in range(2)]
    inputs = [torch.randn(shape, device=device) for _ in range(3)] + tables
    return [t.requires_grad_() for t in inputs], torch.randn(shape, device=device)


def run(form: str, inputs: list[Tensor], upstream: Tensor, train: bool) -> list[Tensor]:
    """The output, with the gradients of all inputs if `train`."""
    with torch.set_grad_enabled(train):
        out = FORMS[form](*inputs)
    return [out, *torch.autograd.grad(out, inputs, upstream)] if train else [out]


def check(work: Workload, device: str) -> float:
    """Largest difference of ours, relative to the largest number of its tensor; stops if large."""
    inputs, upstream = inputs_of(work, 1, device)
    pairs = zip(*(run(form, inputs, upstream, True) for form in (OURS, REFERENCE)), strict=True)
    difference = max(float((a - b).detach().abs().max() / b.detach().abs().max()) for a, b in pairs)
    if difference > LARGEST_DIFFERENCE:
        raise SystemExit(f"{work.title}: outputs or gradients differ by {difference:.1e}")
    return difference


def times(work: Workload, rounds: int, device: str) -> dict[str, list[tuple[float, float]]]:
    """Seconds of (forward and backward, forward alone) by form and round; the first is left out."""

    def clock() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    inputs, upstream = inputs_of(work, work.timed_heads, device)
    spent: dict[str, list[tuple[float, float]]] = {form: [] for form in FORMS}
    for number in range(rounds + 1):
        for form, found in spent.items():
            start = clock()
            run(form, inputs, upstream, train=True)
            middle = clock()
            run(form, inputs, upstream, train=False)
            if number > 0:
                found.append((middle - start, clock() - middle))
    return spent


def peak(name: str, form: str, train: bool, device: str) -> float:
    """MiB over what the inputs occupy, in this process."""
    work = WORKLOADS[name]
    small, upstream = inputs_of(Workload("", 1, 8, 1, 1), 1, device)
    run(form, small, upstream, train)  # libraries allocate buffers of their own at the first call
    inputs, upstream = inputs_of(work, work.memory_heads, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(form, inputs, upstream, train)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts from here
    before = resident("VmRSS")
    run(form, inputs, upstream, train)
    return (resident("VmHWM") - before) / 1024


def resident(field: str) -> int:
    """KiB of a line of Linux's process status."""
    found = re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())
    if found is None:
        raise SystemExit(f"this system does not tell {field}")
    return int(found[1])


def peak_elsewhere(name: str, form: str, train: bool, device: str) -> float:
    """`peak` in a fresh process."""
    arguments = ["--device", device, "--peak", name, form, "train" if train else "forward"]
    command = [sys.executable, __file__, *arguments]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure(name: str, rounds: int, device: str) -> str:
    """One Markdown table."""
    work = WORKLOADS[name]
    difference = check(work, device)
    spent = times(work, rounds, device)
    memory = {f: [peak_elsewhere(name, f, t, device) for t in (True, False)] for f in FORMS}
    rows = [
        f"### {work.title}, head width {WIDTH}",
        "",
        f"Time with {work.timed_heads} heads, {rounds} rounds; memory with {work.memory_heads} "
        f"heads. Largest difference of output and gradients: {difference:.0e} of the largest "
        "number.",
        "",
        "| form | training, s, median (min) | times ours | forward, s, median (min) | times ours "
        "| training, MiB | times ours | forward, MiB | times ours |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for form, found in spent.items():
        cells = []
        for mode in (0, 1):
            seconds = [pair[mode] for pair in found]
            paired = [s / ours[mode] for s, ours in zip(seconds, spent[OURS], strict=True)]
            cells.append(f"{statistics.median(seconds):.3f} ({min(seconds):.3f})")
            cells.append(f"{statistics.median(paired):.2f}")
        for mebibytes, ours in zip(memory[form], memory[OURS], strict=True):
            cells += [f"{mebibytes:.0f}", f"{mebibytes / ours:.1f}"]
        rows.append(f"| {form} | {' | '.join(cells)} |")
    return "\n".join(rows)


def machine(device: str) -> str:
    if device == "cuda":
        where = f"{torch.cuda.get_device_name()}, wall time"
    else:
        info = Path("/proc/cpuinfo")
        lines = info.read_text().splitlines() if info.exists() else []
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else platform.processor() or platform.machine()
        capability = torch.backends.cpu.get_cpu_capability()
        where = f"{name}, {capability}, one thread, CPU time"
    return (
        f"{where}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"timm {timm.__version__}. "
        f"Load average {os.getloadavg()[1]:.1f} on {os.cpu_count()} processors."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds (default 9)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--write", action="store_true", help="write detection_attention.md too")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)  # what a fresh process is for
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        name, form, mode = arguments.peak
        print(peak(name, form, mode == "train", arguments.device))
        return
    tables = [measure(name, arguments.rounds, arguments.device) for name in WORKLOADS]
    text = "\n\n".join([*tables, machine(arguments.device), EXPLANATION]) + "\n"
    print(text)
    if arguments.write:
        title = "# Attention with decomposed relative positions\n\n"
        command = "`python benchmarks/detection_attention.py`\n\n"
        Path(__file__).with_suffix(".md").write_text(title + command + text)


EXPLANATION = (
    "Training is forward and backward. The ratios of time are medians over the rounds of (form / "
    "mae-bench) in the same round; those of memory are (form / mae-bench). Memory is the peak "
    "over the inputs, in a fresh process for each number. On a CPU in float32, mae-bench computes "
    "the logits in tiles that stay in the cache; elsewhere it takes the row above it."
)


if __name__ == "__main__":
    main()
