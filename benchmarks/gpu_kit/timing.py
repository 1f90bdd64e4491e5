"""Clocks, peaks of memory, and the rate that a share is a share of."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from gpu_kit.part import GIB, Bench

ROUNDS = 3
ROUND_SECONDS = 0.7
"""that a round of steps takes about, between two waits for the device"""
PRODUCT_SECONDS = 0.25
MOST_STEPS = 200


@dataclass(frozen=True)
class Measured:
    seconds: float
    """of a step: the median over the rounds"""
    least: float
    """seconds of a step in the fastest round"""
    first: float
    """seconds of the first step, in which compilers work"""
    peak_gib: float
    """of the device's memory, of all that lives there"""


def measure(bench: Bench, step: Callable[[], object]) -> Measured:
    """Whole steps back to back, so that the host may run ahead; waits only between the rounds."""
    if bench.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    first = seconds_of(bench, step, 1)
    one = min(seconds_of(bench, step, 1), seconds_of(bench, step, 1))
    steps = bench.choose(max(2, min(MOST_STEPS, round(ROUND_SECONDS / max(one, 1e-4)))), 1)
    rounds = [seconds_of(bench, step, steps) / steps for _ in range(bench.choose(ROUNDS, 1))]
    peak = torch.cuda.max_memory_allocated() / GIB if bench.device == "cuda" else 0.0
    return Measured(statistics.median(rounds), min(rounds), first, peak)


def seconds_of(bench: Bench, step: Callable[[], object], steps: int) -> float:
    wait(bench)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    wait(bench)
    return time.perf_counter() - began


def wait(bench: Bench) -> None:
    if bench.device == "cuda":
        torch.cuda.synchronize()


def matmul_rate(bench: Bench, precision: str, size: int) -> float:
    """Floating-point operations a second of square products; TF32 is on for its own line alone."""
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    kind = kinds.get(precision, torch.float32)
    a, b = (torch.randn(size, size, device=bench.device, dtype=kind) for _ in range(2))
    with tf32(precision == "tf32"):
        one = min(seconds_of(bench, lambda: a @ b, 1) for _ in range(3))
        times = bench.choose(max(3, round(PRODUCT_SECONDS / max(one, 1e-5))), 1)
        best = min(seconds_of(bench, lambda: a @ b, times) / times for _ in range(ROUNDS))
    return 2 * size**3 / best


def best_rate(bench: Bench, precision: str = "bf16") -> float:
    """The better of two sizes."""
    return max(matmul_rate(bench, precision, size) for size in bench.choose((4096, 8192), (64,)))


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
