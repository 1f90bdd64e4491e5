"""Helping processes end with their parent, whatever they are doing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tasks.workers import say_unless_parting

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")

PATIENCE = 60.0

SCRIPT = """
import os, sys, time
from torch.utils.data import DataLoader, Dataset
import tasks.workers

what, start, place = sys.argv[1:]

class Data(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        with open(f"{place}/{os.getpid()}", "w"):
            pass
        if what == "hangs" and index > 1:
            os.open(f"{place}/pipe", os.O_RDONLY)  # as a file on a network that is gone
        if what == "computes" and index > 1:
            while True:
                pass
        return bytes(4_000_000)  # far more than a pipe holds: the sender waits for a reader

def init(number):
    if what == "portable":
        tasks.workers.die_with_the_parent = lambda: False
    tasks.workers.worker_init(number)

if __name__ == "__main__":
    os.mkfifo(f"{place}/pipe")
    loader = DataLoader(Data(), batch_size=None, num_workers=2, worker_init_fn=init,
                        multiprocessing_context=start)
    batches = iter(loader)
    next(batches)
    print("loading", flush=True)
    time.sleep(600)
"""


def is_running(pid: int) -> bool:
    """Whether a process works; one that has ended may wait for somebody to read its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def assert_gone(processes: list[int]) -> None:
    """Wait until none of them works; those that do too long are ended."""
    end = time.monotonic() + PATIENCE
    while left := [pid for pid in processes if is_running(pid)]:
        if time.monotonic() > end:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            pytest.fail(f"{left} outlive their parent")
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("what", "start"),
    [
        ("waits", "fork"),
        ("hangs", "fork"),
        ("computes", "fork"),
        ("portable", "fork"),
        ("waits", "forkserver"),
    ],
)
def test_loading_processes_end_when_their_parent_is_killed(tmp_path: Path, what: str, start: str):
    """One that waits for a reader of its full pipe would stay for ever, at hundreds of MB."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), what, start, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "loading\n"
        loaders = [int(file.name) for file in tmp_path.iterdir() if file.name.isdigit()]
        assert loaders
        assert all(map(is_running, loaders))
        parent.kill()
        assert_gone(loaders)
        assert parent.stderr is not None
        assert "Traceback" not in parent.stderr.read()


SPAWNED = """
import time
from multiprocessing import get_context
from tasks.workers import end_with_the_parent

def work():
    end_with_the_parent()
    print("working", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    child = get_context("spawn").Process(target=work)
    child.start()
    print(child.pid, flush=True)
    child.join()
"""


@pytest.mark.parametrize("when", ["working", "starting"])
def test_a_spawned_process_ends_too(tmp_path: Path, when: str):
    """Even if its parent is killed before it can ask for that."""
    (tmp_path / "script.py").write_text(SPAWNED)
    command = [sys.executable, str(tmp_path / "script.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        if when == "working":
            assert parent.stdout.readline() == "working\n"
        parent.kill()
        assert_gone([child])


def test_only_the_parents_going_is_passed_over_in_silence(capsys):
    for error in (ConnectionResetError("by peer"), BrokenPipeError(), EOFError()):
        say_unless_parting(type(error), error, None)
    assert capsys.readouterr().err == ""
    say_unless_parting(ValueError, ValueError("a fault"), None)
    assert "ValueError: a fault" in capsys.readouterr().err


def test_a_connection_that_breaks_is_one_line(monkeypatch):
    """What is passed on to a loading process that has just been killed."""
    from tasks import loading
    from tasks.errors import AloneError

    class Broken:
        def __init__(self, *_, **__) -> None:
            pass

        def __iter__(self):
            yield {"index": [0]}
            raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(loading, "DataLoader", Broken)
    batches = loading.load(dict, [], 1, torch.device("cpu"))
    assert next(batches) == {"index": [0]}
    with pytest.raises(AloneError, match=r"a loading process died .*Connection reset by peer"):
        next(batches)
