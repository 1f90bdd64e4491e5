"""Output that nobody can read any more is dropped, and work goes on."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import SMALL_MAE, flags, log_of

COMMAND = [sys.executable, "-m", "mae_bench.cli"]
NUM_STEPS = 6


@pytest.fixture
def argv(world, tmp_path) -> list[str]:
    options = flags(data=world / "unlabelled", out=tmp_path, name="run", workers=0, **SMALL_MAE)
    return [*COMMAND, "pretrain", *options]


def assert_finished(run: Path) -> None:
    assert len(log_of(run)) == NUM_STEPS
    assert (run / "record.json").exists()
    assert (run / "state/step-00000006.pt").exists()


def test_a_pipe_that_is_closed_does_not_end_training(argv, tmp_path):
    """As in `mae-bench pretrain ... 2>&1 | head -1`."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert_finished(tmp_path / "run")


def test_a_terminal_that_is_closed_does_not_end_training(argv, tmp_path):
    """Under nohup, or after disown; what is written to it fails then."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        argv,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    os.close(theirs)
    assert os.read(ours, 1)
    os.close(ours)
    assert process.wait(timeout=120) == 0
    assert_finished(tmp_path / "run")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_output_on_a_full_disk_is_said(argv, tmp_path):
    """Training goes on; that the output is not whole is an error in the end."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "mae-bench: error: standard output: No space left on device; what was printed is incomplete"
    )
    assert_finished(tmp_path / "run")
