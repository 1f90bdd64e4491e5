"""Processes that a launcher has started, or has not: they meet and part, or it is one line."""

import os
import socket
import subprocess
import sys

import pytest
from small_runs import SMALL_MAE, flags

from mae_bench.cli import call
from mae_bench.processes import refuse_without_launcher
from tasks.errors import AloneError
from tasks.processes import own_part

PLACED = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
MET = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
SRUN = {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in (*PLACED, *MET, *(n for n in os.environ if n.startswith("SLURM_"))):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 is set, but not RANK, LOCAL_RANK, MASTER_ADDR, MAST"),
        ({"RANK": "1"}, "RANK=1 is set, but not WORLD_SIZE"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK=0 is set, but not RANK, WORLD_SIZE"),
        (PLACED, "but not MASTER_ADDR, MASTER_PORT; start several processes with torchrun"),
        ({**PLACED, **MET, "RANK": "2"}, "the rank below the world size"),
        ({**PLACED, **MET, "WORLD_SIZE": "two"}, "expected numbers"),
        ({**PLACED, **MET, "RANK": ""}, "expected numbers"),
        (SRUN, "srun has started this 2 times"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}, "srun has started this 4 times"),
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "3"}, "srun has started this 3 times"),
    ],
)
def test_half_a_launcher_is_one_line(environment, said, monkeypatch, capsys, world, tmp_path):
    """From every process: none of them knows whether there is a first one."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    argv = ["pretrain", *flags(data=world / "unlabelled", out=tmp_path / "runs", **SMALL_MAE)]
    assert call(argv) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**PLACED, **MET},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"LOCAL_RANK": "-1"},
        {"SLURM_NTASKS": "8"},
        {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1"},
        {**SRUN, **PLACED, **MET},
    ],
)
def test_what_is_no_mistake(environment, monkeypatch):
    """torchrun, also below srun; one process, also in a batch script of an allocation for more."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    refuse_without_launcher()


def test_a_port_that_is_taken(world, tmp_path):
    argv = ["pretrain", *flags(data=world / "unlabelled", out=tmp_path / "runs", **SMALL_MAE)]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", **MET, "MASTER_PORT": port}
        done = subprocess.run(
            [sys.executable, "-m", "mae_bench.cli", *argv],
            env={**os.environ, **place},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 2
    assert f"the processes of this run do not meet at 127.0.0.1:{port} (" in done.stderr
    assert "Traceback" not in done.stderr


PARTING = """
import atexit, sys
import torch.distributed as dist
atexit.register(lambda: print("met" if dist.is_initialized() else "parted"))
from mae_bench.processes import meeting
with meeting():
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/meet", rank=0, world_size=1)
print("met" if dist.is_initialized() else "parted")
if sys.argv[2] == "fault":
    raise ValueError("a fault")
sys.exit(3)
"""


@pytest.mark.parametrize(("end", "code"), [("fault", 1), ("exit", 3)])
def test_processes_part_whichever_way_the_program_ends(tmp_path, end, code):
    """Before the interpreter ends, under the threads that talk to other processes."""
    script = [sys.executable, "-c", PARTING, str(tmp_path), end]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["met", "parted"]
    assert done.returncode == code


def test_an_error_of_one_process_names_it(monkeypatch):
    full = OSError(28, "No space left on device", "/data/a.jpg")
    with pytest.raises(OSError, match="No space left"), own_part():
        raise full
    monkeypatch.setattr("tasks.processes.num_processes", lambda: 4)
    monkeypatch.setattr("tasks.processes.dist.get_rank", lambda: 2)
    with pytest.raises(AloneError, match=r"process 2 of 4: .*No space left on device.*a.jpg"):
        with own_part():
            raise full
