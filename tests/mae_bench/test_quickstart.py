"""The second process of quickstart: what goes wrong in it is said, and it ends with the first."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mae_bench.errors import RunError
from mae_bench.quickstart import FROM_SCRATCH, FROM_WEIGHTS, SAID, from_scratch_meanwhile


def test_both_processes_run_the_same_tasks():
    tasks = [{(task, name) for name, task, _ in runs} for runs in (FROM_WEIGHTS, FROM_SCRATCH)]
    assert {task for task, _ in tasks[0]} == {task for task, _ in tasks[1]}
    names = [name for name, _, _ in (*FROM_WEIGHTS, *FROM_SCRATCH)]
    assert len(set(names)) == len(names)


def test_a_failure_in_the_second_process_is_one_line(tmp_path, monkeypatch):
    """Here the cache folder, where the world would be drawn, is a file."""
    cache = tmp_path / "cache"
    cache.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    with from_scratch_meanwhile(tmp_path / "out", seed=0) as finish:
        with pytest.raises(
            RunError, match=rf"failed: .*{cache}.*the same command goes on"
        ) as error:
            finish()
    assert "\n" not in str(error.value)
    assert "Traceback" not in (tmp_path / "out" / SAID).read_text()


SCRIPT = """
import os, sys, time
from multiprocessing import get_context
from mae_bench.quickstart import end_with_the_parent
if __name__ == "__main__":
    child = get_context("spawn").Process(target=end_with_the_parent, args=(os.getpid(),))
    child.start()
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_the_second_process_ends_when_the_first_is_killed(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    first = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    second = int(first.stdout.readline())
    first.send_signal(signal.SIGKILL)
    first.wait()
    end = time.monotonic() + 60
    while is_running(second):
        assert time.monotonic() < end, os.kill(second, signal.SIGKILL)
        time.sleep(0.2)


def is_running(pid: int) -> bool:
    """Whether a process works; one that has ended may wait for somebody to read its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
