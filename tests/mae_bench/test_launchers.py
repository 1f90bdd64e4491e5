"""Processes that a launcher has started, or has not: they meet and part, or it is one line."""

import json
import os
import socket
import subprocess
import sys

import pytest
from small_runs import SMALL_MAE, flags, log_of

from mae_bench.cli import call
from mae_bench.execution import Execution
from mae_bench.pretrain import pretrain
from mae_bench.processes import refuse_without_launcher
from mae_bench.srun import ALONE, MEETING, join_step
from tasks.errors import AloneError
from tasks.processes import own_part

PLACED = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
MET = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
SRUN = {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}
WHOLE = {**SRUN, "SLURM_LOCALID": "0", "SLURM_STEP_NODELIST": "node7", "SLURM_JOB_ID": "12"}


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
        (SRUN, "srun has started this 2 times, but says no SLURM_LOCALID, SLURM_STEP_NODELIST;"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}, "srun has started this 4 times, but says no"),
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "3"}, "srun has started this 3 times, but says no"),
        ({**WHOLE, "SLURM_PROCID": "2"}, "srun has started this 2 times, as number 2; start"),
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


@pytest.mark.parametrize(
    ("said", "placed"),
    [
        (WHOLE, ("0", "2", "0", "127.0.0.1", "10372")),
        ({**WHOLE, "SLURM_STEP_ID": "3"}, ("0", "2", "0", "127.0.0.1", "10375")),
        (
            {**WHOLE, "SLURM_STEP_NODELIST": "gpu[003-007,9]-ib,b1", "SLURM_NTASKS": "8"},
            ("0", "8", "0", "gpu003-ib", "10372"),
        ),
        ({**WHOLE, "SLURM_STEP_NODELIST": "a-1,b-2"}, ("0", "2", "0", "a-1", "10372")),
        ({**WHOLE, "SLURM_STEP_NODELIST": "r[1-2]n[4,7]"}, ("0", "2", "0", "r1n4", "10372")),
        ({**WHOLE, **MET}, ("0", "2", "0", "127.0.0.1", "29500")),
        ({**WHOLE, "RANK": "0", "WORLD_SIZE": "1"}, ("0", "2", "0", "127.0.0.1", "10372")),
        ({**WHOLE, **PLACED, **MET}, ("1", "2", "1", "127.0.0.1", "29500")),
    ],
)
def test_what_srun_says_as_torch_calls_it(said, placed, monkeypatch):
    """The names of nodes as `scontrol show hostnames` tells them apart."""
    names = (*ALONE, *MEETING)
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k not in names})
    os.environ.update(said)
    join_step()
    assert tuple(os.environ[name] for name in names) == placed


def test_two_processes_of_srun_share_a_run(world, tmp_path):
    """Real ones, which meet by gloo. Losses to 1e-6 as of one process; only the first speaks."""
    once = {**SMALL_MAE, "device_batch": 2, "epochs": 1, "data": world / "unlabelled"}
    argv = ["mae_bench", "pretrain", *flags(out=tmp_path, name="srun", workers=0, **once)]
    port = {"MASTER_PORT": str(free_port())}
    environment = {**os.environ, **WHOLE, **port, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", *argv],
            env={**environment, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert said[0].startswith("srun has started 2 processes: they share this run, and meet at 127")
    assert said[1] == ""
    pretrain(out=tmp_path, name="alone", execution=Execution(workers=0), **once)
    ours, theirs = (
        [line["loss"] for line in log_of(tmp_path / name)] for name in ("srun", "alone")
    )
    assert ours == pytest.approx(theirs, rel=1e-6)
    record = json.loads((tmp_path / "srun/record.json").read_text())
    assert record["environment"]["processes"] == 2


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize("command", ["suite", "plan"])
def test_what_starts_runs_itself_is_started_once(command, monkeypatch, capsys, tmp_path):
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    assert call([command, "table-1d", "--out", str(tmp_path / "runs")]) == 2
    assert f"{command} starts the processes of its runs itself; start it once" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "runs").exists()


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
