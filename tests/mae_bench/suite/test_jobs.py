"""A run as a job: real processes of submitit's local executor, stopped and queued again."""

import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import submitit
from small_runs import SMALL, SMALL_MAE, assert_same_bits, steps_logged

from mae_bench.cli import call
from mae_bench.errors import HELD, RunError
from mae_bench.execution import Execution
from mae_bench.run.files import BACKBONE_FILE, MODEL_FILE
from mae_bench.suite import clustered, job
from mae_bench.suite.choosing import chosen_spec
from mae_bench.suite.clustered import Clustered
from mae_bench.suite.expansion import expand
from mae_bench.suite.job import RunJob
from results.store import read_record

ALONE = Execution(workers=0, device="cpu", save_minutes=60)
LONG = SMALL_MAE | {"epochs": 10}
ASKED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Local:
    """submitit's own jobs on this machine, which wait for no others, as a cluster."""

    keeps_order = False

    def __init__(self, folder: Path) -> None:
        self.executor = submitit.LocalExecutor(folder)
        self.executor.update_parameters(timeout_min=60, signal_delay_s=1)
        self.jobs: dict[str, submitit.LocalJob] = {}

    def put(self, jobs, name, after):
        assert not after
        put = [self.executor.submit(each) for each in jobs]
        self.jobs |= {each.job_id: each for each in put}
        return [each.job_id for each in put]

    def states(self):
        return {name: "COMPLETED" if each.done() else "RUNNING" for name, each in self.jobs.items()}

    def take_out(self, job):
        self.jobs[job].cancel()


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_a_suite_whose_jobs_are_stopped_ends_as_one_that_was_left_alone(
    world, tmp_path, monkeypatch
):
    """The pre-training by the warning, the transfer by SIGTERM: each is queued again, and goes on.

    To the bit, as the same commands without a cluster.
    """
    monkeypatch.setattr(clustered, "ASK", 0.0)
    given = {"pretrain": ["mae"], "tasks": ["imagenet1k"], "data_root": str(world)}
    more = {"overrides": SMALL | {"epochs": 24}, "pretrain_overrides": LONG}
    runs = expand(chosen_spec(None, **given, **more)[0]).runs
    queue = Local(tmp_path / "clustered/jobs")
    doing = Clustered(runs, tmp_path / "clustered", ALONE, queue)
    stopped: list[str] = []
    look = doing.look

    def stop_some(run) -> None:
        look(run)
        folder = tmp_path / "clustered" / run.name
        if run.name in stopped or run not in doing.jobs or steps_logged(folder) < 4:
            return
        stopped.append(run.name)
        (process,) = children(int(doing.jobs[run]))
        warning = signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]
        os.kill(process, warning if run.command == "pretrain" else signal.SIGTERM)

    monkeypatch.setattr(doing, "look", stop_some)
    doing.all()
    assert stopped == [run.name for run in runs]
    assert set(doing.board.states()) == {"finished"}
    for run in runs:
        assert call(run.words(tmp_path / "alone", {}, ALONE)) == 0
    for run, weights in zip(runs, (BACKBONE_FILE, MODEL_FILE), strict=True):
        said = (tmp_path / "clustered/printed" / f"{run.name}.txt").read_text()
        assert said.count(job.BEGIN) == 2
        assert "stopped by SIGTERM after step" in said
        assert said.count("going on after step") == 1
        ours, theirs = (tmp_path / place / run.name for place in ("clustered", "alone"))
        assert_same_bits(ours, theirs, weights)
        one, other = (read_record(folder / "record.json") for folder in (ours, theirs))
        assert one.metrics == other.metrics
        assert one.environment.command.startswith(f"mae-bench {run.command} ")


def made(tmp_path: Path, **more) -> RunJob:
    entry = tmp_path / "run.json"
    entry.write_text(json.dumps({"ticket": "a", "job": "12"}))
    given = {"words": [], "said": str(tmp_path / "said.txt"), "folder": str(tmp_path / "run")}
    return RunJob(**given | {"entry": str(entry), "ticket": "a"} | more)


def test_a_job_that_comes_no_step_further_is_not_queued_for_ever(tmp_path):
    (tmp_path / "run/state").mkdir(parents=True)
    one = made(tmp_path)
    for step in (3, 8, 8, 8):
        for old in (tmp_path / "run/state").glob("*"):
            old.unlink()
        (tmp_path / f"run/state/step-{step:08d}.pt").touch()
        assert isinstance(one.checkpoint().function, RunJob)
    assert one.idle == 2
    for _ in range(job.MOST_IDLE - 3):
        assert one.checkpoint() is not None
    assert one.checkpoint() is None
    assert "not a step further in 5 starts" in (tmp_path / "said.txt").read_text()


def test_a_job_whose_run_another_process_works_on_goes_back_into_the_queue(tmp_path, monkeypatch):
    """It has not failed, for then all that wait for it would be ended; nor has it been idle."""
    monkeypatch.setattr(job, "HOLDING", 0.0)
    one, queued = made(tmp_path), list[object]()
    one.start = lambda _: subprocess.Popen(["sh", "-c", f"exit {HELD}"])

    def queue_again(*_) -> None:  # as submitit does
        queued.append(one.checkpoint())
        sys.exit(-1)

    before = [signal.getsignal(each) for each in ASKED]
    try:
        for _ in range(job.MOST_IDLE + 1):
            signal.signal(signal.SIGUSR2, queue_again)
            with pytest.raises(SystemExit):
                one.carry_out(SimpleNamespace(USR_SIG="USR2", global_rank=0))
        one.carry_out(SimpleNamespace(USR_SIG="USR2", global_rank=1))
    finally:
        for each, handler in zip(ASKED, before, strict=True):
            signal.signal(each, handler)
    assert len(queued) == job.MOST_IDLE + 1
    assert None not in queued
    assert "held; the job goes back into the queue" in (tmp_path / "said.txt").read_text()


def test_a_job_that_asked_for_gpus_does_not_work_without(tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("torch").cuda, "device_count", lambda: 0)
    with pytest.raises(RunError, match="asked for 8 GPUs of a node, and torch sees none on "):
        made(tmp_path, gpus=8).refuse()
    made(tmp_path).refuse()


def test_processes_of_a_job_on_several_nodes_meet_at_the_first():
    place = SimpleNamespace(
        num_tasks=8, num_nodes=2, global_rank=5, local_rank=1, hostnames=["a1", "a2"],
        raw_job_id="1234",
    )  # fmt: skip
    assert job.where(place) == {
        "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "a1",
        "MASTER_PORT": str(10_000 + 31 * 1234 % 20_000),
    }  # fmt: skip
    assert job.where(SimpleNamespace(num_tasks=1)) == {}


@pytest.mark.parametrize(
    ("answer", "wanted"), [("RUNNING", True), ("CANCELLED", False), ("COMPLETING", False)]
)
def test_a_job_that_was_cancelled_is_not_queued_again(tmp_path, monkeypatch, answer, wanted):
    """But one that is preempted is: Slurm then calls it running to the end of its grace."""
    (tmp_path / "squeue").write_text(f"#!/bin/sh\necho {answer}\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    place = SimpleNamespace(name=lambda: "slurm", job_id="12_0")
    assert job.is_wanted(place) is wanted
    monkeypatch.setenv("PATH", "")
    assert not job.is_wanted(place)


def test_a_command_that_does_not_save_in_time_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "SAVING", 0.5)
    command = subprocess.Popen(["sleep", "600"])
    assert job.wait(command, [signal.SIGTERM]) == -signal.SIGKILL


def test_cores_are_those_that_the_cluster_gave(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "12")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert made(tmp_path, workers=5).threads() == {}
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert made(tmp_path, workers=5).threads() == {"OMP_NUM_THREADS": "7"}
