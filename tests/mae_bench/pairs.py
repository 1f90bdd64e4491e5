"""Two processes of one run, forked, for they have torch imported already; as torchrun starts them.

tests/mae_bench/test_processes.py takes torchrun itself.
"""

import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from mae_bench.cli import call
from mae_bench.progress import console

PATIENCE = 240.0
"""seconds for all commands"""


@dataclass
class Pair:
    """What two processes came to that were given the same command lines, one after the other."""

    exit_codes: list[int]
    """of the processes; negative: the signal that killed it"""
    codes: list[list[int]]
    """of their commands"""
    said: list[str]
    """all that each printed"""


def in_two_processes(
    commands: Sequence[Sequence[str]],
    place: Path,
    before: Callable[[int], None] = lambda _: None,
) -> Pair:
    """Give command lines to two processes; `place` is a new folder for what they print.

    `before` is called in each with its number. Where one is killed, so is the other.
    """
    place.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    arguments = ([list(each) for each in commands], place, port, before)
    processes = [context.Process(target=work, args=(rank, *arguments)) for rank in (0, 1)]
    for process in processes:
        process.start()
    processes[0].join(PATIENCE)
    if processes[0].exitcode:
        processes[1].kill()
    processes[1].join(PATIENCE)
    said = [(place / f"said-{rank}.txt").read_text() for rank in (0, 1)]
    if any(process.is_alive() for process in processes):
        for process in processes:
            process.kill()
        pytest.fail(f"hangs; said {said}")
    files = [place / f"codes-{rank}.json" for rank in (0, 1)]
    codes = [json.loads(file.read_text()) if file.exists() else [] for file in files]
    return Pair([process.exitcode or 0 for process in processes], codes, said)


def work(
    rank: int, commands: list[list[str]], place: Path, port: int, before: Callable[[int], None]
) -> None:
    os.setsid()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    stream = (place / f"said-{rank}.txt").open("w", buffering=1)
    for number in (1, 2):
        os.dup2(stream.fileno(), number)
    sys.stdout = sys.stderr = stream
    console.quiet = rank != 0
    AcceleratorState._reset_state(reset_partial_state=True)  # of the process that forked
    before(rank)
    codes = [call(argv) for argv in commands]
    (place / f"codes-{rank}.json").write_text(json.dumps(codes))
