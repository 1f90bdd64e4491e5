"""Small runs, in this process and in forked ones, which have torch imported already."""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mae_bench.cli import call
from mae_bench.execution import Execution

SMALL = {"epochs": 2, "warmup_epochs": 1.0, "batch_size": 8, "device_batch": 4}
SMALL_MAE = {**SMALL, "decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2}
SMALL_CLASSIFIER: dict[str, Any] = {
    "task": "imagenet1k", "protocol": "scratch", "epochs": 1, "warmup_epochs": 0.5,
    "batch_size": 8, "device_batch": 4, "name": "run", "execution": Execution(workers=0),
}  # fmt: skip
PATIENCE = 60.0
"""seconds after which a process that should do something is taken to hang"""


def flags(**options: object) -> list[str]:
    """Command-line flags for keyword arguments."""
    return [word for k, v in options.items() for word in (f"--{k.replace('_', '-')}", str(v))]


class Forked:
    """A command line in a process of its own, and of its own process group."""

    def __init__(self, argv: Sequence[str], said: Path, before: Callable[[], None]) -> None:
        self.said_file = said
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=self.work, args=(list(argv), before))
        self.process.start()

    def work(self, argv: list[str], before: Callable[[], None]) -> None:
        os.setsid()
        sys.stdout = sys.stderr = self.said_file.open("w", buffering=1)
        os.dup2(sys.stderr.fileno(), 2)
        before()
        sys.exit(call(argv))

    def kill(self, number: int, group: bool = False) -> None:
        assert self.process.is_alive(), f"ended too early: {self.said()}"
        (os.killpg if group else os.kill)(self.process.pid, number)

    def exit_code(self) -> int:
        self.process.join(PATIENCE)
        if self.process.is_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
            pytest.fail(f"hangs; said {self.said()}")
        return self.process.exitcode

    def said(self) -> str:
        return self.said_file.read_text()

    def loaders(self) -> list[int]:
        """Ids of its loading processes."""
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Look every few milliseconds until `condition` holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.005)


def steps_logged(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_same_bits(one: Path, other: Path, weights: str) -> None:
    """Two run folders with the same log, byte by byte, and the same tensors, bit by bit."""
    assert (one / "log.jsonl").read_bytes() == (other / "log.jsonl").read_bytes()
    ours, theirs = load_file(one / weights), load_file(other / weights)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


def assert_same_run(one: Path, other: Path, weights: str, atol: float = 1e-6) -> None:
    """Losses to 1e-6 and weights to 1e-6, or `atol`, for sums differ in their order.

    The biases of the keys have no gradient but noise, of which Adam makes steps; batch norm keeps
    the first process's statistics, as in the reference.
    """
    ours, theirs = log_of(one), log_of(other)
    assert len(ours) == len(theirs)
    for mine, yours in zip(ours, theirs, strict=True):
        assert mine.pop("loss") == pytest.approx(yours.pop("loss"), rel=1e-6)
        assert mine == yours
    tensors, others = load_file(one / weights), load_file(other / weights)
    for key, value in tensors.items():
        if key.endswith("qkv.bias"):
            value, others[key] = (torch.cat(t.chunk(3)[::2]) for t in (value, others[key]))
        if "running_" not in key and "num_batches" not in key:
            torch.testing.assert_close(value, others[key], rtol=0, atol=atol)
