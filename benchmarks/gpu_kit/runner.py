"""Runs the parts one after the other, each in a process of its own. Imports no torch."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from gpu_kit.book import Book, read
from gpu_kit.parts import PARTS
from gpu_kit.report import write_report

SCRIPT = Path(__file__).parent.parent / "gpu.py"
LEAST = 5.0
"""seconds below which a part is not begun"""
GRACE = 3.0
"""seconds between a part's own end and the killing of it"""


@dataclass
class Outcome:
    """How a part ended."""

    name: str
    seconds: float
    said: str
    """done, or what happened"""


def run_all(names: list[str], out: Path, seconds: float, rehearse: bool) -> int:
    """0 if every part ended by itself and nothing failed; goals that are missed do not count."""
    out.mkdir(parents=True, exist_ok=True)
    for name in PARTS:  # of an earlier run
        book_of(out, name).unlink(missing_ok=True)
    began, outcomes = time.monotonic(), list[Outcome]()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        for name in names:
            left = seconds - (time.monotonic() - began)
            outcomes.append(run_part(name, out, left, rehearse))
            file = write_report(out, outcomes, rehearse)
            print(f"{name}: {outcomes[-1].said} ({outcomes[-1].seconds:.0f} s)", flush=True)
    finally:
        ended = {each.name for each in outcomes}
        outcomes += [Outcome(name, 0, "not run: stopped before") for name in names[len(ended) :]]
        file = write_report(out, outcomes, rehearse)
    print(f"report: {file}")
    return int(
        any(each.said != "done" or read(book_of(out, each.name)).failed for each in outcomes)
    )


def run_part(name: str, out: Path, left: float, rehearse: bool) -> Outcome:
    """One part, for its own seconds or for those that are left, in a process group of its own."""
    budget = min(PARTS[name].seconds, left - GRACE)
    if budget < LEAST:
        return Outcome(name, 0, "not run: no time left")
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--part", name]
    command += ["--seconds", f"{budget:.1f}"] + ["--rehearse"] * rehearse
    began = time.monotonic()
    with (out / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(budget + GRACE)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            end_group(process)
    return Outcome(name, time.monotonic() - began, said(name, out, status))


def end_group(process: subprocess.Popen) -> None:
    """The process and all that it has started, loaders and compilers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def said(name: str, out: Path, status: int | None) -> str:
    """What is to be read of an end; one without a word is a failure of what was begun last."""
    if status == 0:
        return "done"
    file = book_of(out, name)
    last = read(file).last
    if status is None:
        why = "did not end in its time and was killed"
    elif status < 0:
        why = f"ended by {signal.Signals(-status).name}"
        why += ", as when memory runs out" * (status == -signal.SIGKILL)
    else:
        why = f"ended with status {status}; see {name}.log"
    Book(file).failed(last, why)
    return why


def book_of(out: Path, name: str) -> Path:
    return out / f"{name}.jsonl"
