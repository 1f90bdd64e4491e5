"""Suites of real runs on a few images: shared, skipped, failed, killed, gone on with."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from safetensors.torch import load_file
from small_runs import SMALL, SMALL_MAE, flags, steps_logged, wait_for

import mae_bench
from mae_bench.cli import call
from mae_bench.errors import HELD, RunError
from mae_bench.execution import Execution
from mae_bench.run.files import LOCK_FILE, write_json
from mae_bench.run.finding import runs_in
from mae_bench.suite import queued, running
from mae_bench.suite.choosing import chosen_spec
from mae_bench.suite.expansion import expand
from mae_bench.suite.local import Job, places
from mae_bench.suite.queued import entry_file
from results.store import read_record

ALONE = Execution(workers=0, device="cpu", save_minutes=0)
WANTED = {
    "pretrain": ["mae"],
    "init": ["scratch"],
    "tasks": ["imagenet1k"],
    "overrides": SMALL,
    "pretrain_overrides": SMALL_MAE,
    "jobs": 2,
    "execution": ALONE,
}


def names(out: Path) -> list[str]:
    return sorted(run.name for run in runs_in(out))


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    """The folder of a suite that is done, with the records that the call gave; for reading only."""
    out = tmp_path_factory.mktemp("suite")
    return out, mae_bench.suite(data_root=world, out=out, **WANTED)


def test_everything_is_done_once_and_reported(done, world, capsys):
    out, records = done
    assert len(records) == 3
    assert [record.kind for record in records].count("pretrain") == 1
    before = {file: file.stat().st_mtime_ns for file in out.glob("*/record.json")}
    assert mae_bench.suite(data_root=world, out=out, **WANTED) == records
    assert {file: file.stat().st_mtime_ns for file in out.glob("*/record.json")} == before
    assert "3 there of 3 runs" in capsys.readouterr().out
    said = next(out.glob("printed/pretrain*.txt")).read_text()
    assert "to repeat" in said
    assert "imagenet1k/finetune@1" in (out / "report.md").read_text()


def test_the_command_in_a_record_repeats_the_run(done, tmp_path):
    """Word by word but for --out, in a process of its own; to the bit."""
    out, records = done
    record = next(each for each in records if each.kind == "pretrain")
    command = record.environment.command.replace(str(out), str(tmp_path)).split()
    assert command[:2] == ["mae-bench", "pretrain"]
    subprocess.run([sys.executable, "-m", *["mae_bench", *command[1:]]], check=True)
    ours = load_file(out / record.name / "backbone.safetensors")
    theirs = load_file(tmp_path / record.name / "backbone.safetensors")
    assert all((ours[name] == theirs[name]).all() for name in ours)


def test_a_run_under_another_name_is_not_run_again(done, world, tmp_path, capsys):
    out, _ = done
    for run in runs_in(out):
        name = "mine" if run.name.startswith("pretrain") else run.name
        shutil.copytree(run.folder, tmp_path / name)
    mae_bench.suite(data_root=world, out=tmp_path, **WANTED)
    assert "(as mine)" in capsys.readouterr().out
    assert len(names(tmp_path)) == 3


def test_another_seed_or_another_recipe_is_another_run(done, world, tmp_path):
    from mae_bench.suite.there import There

    out, _ = done
    given = {k: v for k, v in WANTED.items() if k not in ("jobs", "execution")}
    rest = {"backbone": (), "checkpoint": (), "protocols": (), "released": False, "data": None}
    for seeds, lr, there in ((1, None, 3), ([1], None, 0), (1, 1e-3, 1)):
        changed = given | {"overrides": SMALL | ({"base_lr": lr} if lr else {})}
        spec, _ = chosen_spec(None, seeds=seeds, data_root=str(world), **rest | changed)
        runs, known = expand(spec).runs, There(out)
        assert sum(known.look(run) is not None for run in runs) == there


def test_a_failed_run_is_named_and_stops_no_other(world, tmp_path, capsys):
    """From a file that is no checkpoint; what needs nothing of it is done all the same."""
    (tmp_path / "broken.pth").write_text("no weights")
    given = WANTED | {"pretrain": [], "pretrain_overrides": {}}
    with pytest.raises(RunError, match=r"1 of 2 runs failed.*broken") as error:
        mae_bench.suite(
            data_root=world, out=tmp_path, checkpoint=[str(tmp_path / "broken.pth")], **given
        )
    assert "\n" not in str(error.value)
    assert "failed: imagenet1k-finetune-vit_mini-broken-" in capsys.readouterr().out
    assert len([run for run in runs_in(tmp_path) if run.record]) == 1


def test_missing_weights_are_said_before_any_work(world, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    given = {"tasks": ["imagenet1k"], "data_root": world, "out": tmp_path / "runs"}
    with pytest.raises(RunError, match=r"of mae/vit_b, beit/vit_b are not in .*weights get"):
        mae_bench.suite(backbone=["vit_b"], init=["mae", "beit", "scratch"], **given)
    with pytest.raises(RunError, match=r"nothing.pth: no such file"):
        mae_bench.suite(checkpoint=["nothing.pth"], **given)
    assert not (tmp_path / "runs").exists()


class Timed:
    """What a run that is held is given back by, after so many looks."""

    def __init__(self, looks, then):
        self.looks, self.then = looks, then

    def __call__(self, seconds):
        self.looks -= seconds == running.LOOK  # others sleep too: those who wait for a process
        if not self.looks:
            self.then()


def test_a_run_that_another_process_works_on_is_waited_for(
    done, world, tmp_path, monkeypatch, capsys
):
    """It is neither failed nor run twice: its result is taken once it is there."""
    out, records = done
    name = next(each.name for each in records if "scratch" in each.protocol)
    (tmp_path / name).mkdir()
    lock = FileLock(tmp_path / name / LOCK_FILE)
    lock.acquire()

    def finish():
        shutil.copytree(out / name, tmp_path / name, dirs_exist_ok=True)
        lock.release()

    monkeypatch.setattr(running.time, "sleep", Timed(3, finish))
    given = WANTED | {"pretrain": [], "pretrain_overrides": {}}
    (record,) = mae_bench.suite(data_root=world, out=tmp_path, **given)
    assert record == next(each for each in records if each.name == name)
    said = capsys.readouterr().out
    assert f"held   {name}: another process works in its folder; waiting for it" in said
    assert "1 there of 1 runs" in said


@pytest.fixture
def squeue(tmp_path_factory, monkeypatch) -> Path:
    """A command that answers as Slurm's does: with what stands in the file beside it."""
    place = tmp_path_factory.mktemp("bin")
    (place / "squeue").write_text('#!/bin/sh\ncat "$(dirname "$0")/answer"\n')
    (place / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=":")
    return place / "answer"


def put_in(runs, out: Path, job: str = "12") -> None:
    for run in runs:
        write_json(entry_file(out, run), {"ticket": "a", "job": job})


def test_a_run_that_a_job_of_a_cluster_does_is_waited_for(
    done, world, tmp_path, monkeypatch, capsys, squeue
):
    """Also while it is in the queue alone; its result is taken once it is there."""
    out, records = done
    name = next(each.name for each in records if "scratch" in each.protocol)
    given = {k: v for k, v in WANTED.items() if k not in ("jobs", "execution")}
    given |= {"pretrain": [], "pretrain_overrides": {}, "data_root": world}
    runs = expand(chosen_spec(None, **given)[0]).runs
    (tmp_path / "jobs").mkdir()
    put_in(runs, tmp_path)
    squeue.write_text("12|PENDING\n")
    looks = Timed(3, lambda: shutil.copytree(out / name, tmp_path / name))
    monkeypatch.setattr(running.time, "sleep", looks)
    (record,) = mae_bench.suite(out=tmp_path, execution=ALONE, **given)
    assert record == next(each for each in records if each.name == name)
    said = capsys.readouterr().out
    assert f"held   {name}: job 12 of the cluster does it; waiting for it" in said
    assert not (tmp_path / "printed").exists()


def test_a_job_that_has_ended_or_does_not_answer(tmp_path, monkeypatch, capsys, squeue):
    """Its run is then run here; but nothing is where the cluster may still do it."""
    runs = expand(chosen_spec(None, tasks=["imagenet1k"], init=["scratch"])[0]).runs
    monkeypatch.setattr(queued, "ASK", 0.0)
    (tmp_path / "jobs").mkdir()
    put_in(runs, tmp_path)
    squeue.write_text("12|RUNNING\n")
    doing = running.Doing(runs, tmp_path, ALONE, None)
    for state, open_now in (("RUNNING", 0), ("TIMEOUT", 1)):
        squeue.write_text(f"12|{state}\n")
        there = doing.board.open_runs(doing.there, doing.queued.said_of)
        assert len(list(there)) == open_now
    squeue.unlink()
    with pytest.raises(RunError, match="squeue does not answer; the same command tries again"):
        running.Doing(runs, tmp_path, ALONE, None)
    monkeypatch.setenv("PATH", "")
    assert not running.Doing(runs, tmp_path, ALONE, None).queued.jobs
    assert "there is no squeue here to ask about them" in capsys.readouterr().out


def test_two_that_begin_at_once(world, tmp_path, monkeypatch, capsys):
    """The one that loses the race does not say that the run has failed."""
    monkeypatch.setattr("mae_bench.run.writing.LOCK_SECONDS", 0.0)
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / LOCK_FILE):
        given = {"data": world / "unlabelled", "out": tmp_path, "name": "run", **SMALL_MAE}
        argv = ["pretrain", *flags(**given)]
        assert call(argv) == HELD
    assert "another process is working in it" in capsys.readouterr().err
    runs = expand(chosen_spec(None, tasks=["imagenet1k"], init=["scratch"])[0]).runs
    doing = running.Doing(runs, tmp_path, ALONE, None)
    job = SimpleNamespace(exit_code=HELD, began=0.0)
    doing.jobs[id(job)] = runs[0]
    doing.end(job)
    assert doing.board.states() == ["waiting"]


@pytest.mark.parametrize(
    ("printed", "free", "reason"),
    [
        ("", 0, "exit code 2; the disk is full, also for the reason: "),
        ("looking at the data\n", 4096, "exit code 2; the disk is full, also for the reason: "),
        ("looking\nmae-bench: error: no space\n", 0, "error: no space"),
        ("", 2**30, "exit code 2"),
    ],
)
def test_why_a_run_failed_that_could_print_nothing(tmp_path, monkeypatch, printed, free, reason):
    said = tmp_path / "run.txt"
    said.write_text(printed)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    found = Job(SimpleNamespace(exitcode=2), said, 0.0).reason()
    assert found == reason + (str(tmp_path) if reason.endswith(": ") else "")


@pytest.mark.parametrize(
    ("visible", "count", "jobs", "expected"),
    [
        (None, 4, None, ["0", "1", "2", "3"]),
        (None, 4, 2, ["0", "1"]),
        (None, 2, 8, ["0", "1"]),
        ("4,6", 2, None, ["4", "6"]),
        ("GPU-8a,GPU-9b", 2, 1, ["GPU-8a"]),
        ("1,9", 1, None, ["1"]),
        ("", 0, None, [None]),
        (None, 0, 3, [None, None, None]),
    ],
)
def test_one_run_for_each_gpu(visible, count, jobs, expected, monkeypatch):
    """Which sees that one alone; the runs share the cores."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    found = places(jobs, "auto", 16)
    assert [place.get("CUDA_VISIBLE_DEVICES") for place in found] == expected
    share = {} if len(found) == 1 else {"OMP_NUM_THREADS": str(16 // len(found))}
    assert all(share.items() <= place.items() for place in found)
    assert ("OMP_NUM_THREADS" in found[0]) == (len(found) > 1)
    assert places(jobs, "cpu", 16) == places(jobs, "auto", 16) or count


def start(world: Path, out: Path) -> subprocess.Popen:
    words = ["--pretrain", "mae", "--tasks", "imagenet1k", "--data-root", str(world)]
    words += ["--out", str(out), "--workers", "0", "--device", "cpu", "--save-minutes", "0"]
    words += ["--overrides", *(f"{k}={v}" for k, v in SMALL.items())]
    words += [
        "--pretrain-overrides",
        *(f"{k}={v}" for k, v in (SMALL_MAE | {"epochs": 20}).items()),
    ]
    said = (out.parent / "said.txt").open("a")
    return subprocess.Popen(
        [sys.executable, "-m", "mae_bench", "suite", *words],
        stdout=said,
        stderr=said,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def test_stopped_and_killed_at_any_point_loses_nothing(world, tmp_path):
    """By SIGTERM to the whole group, then by kill -9; then the same command ends it."""
    out = tmp_path / "runs"
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = start(world, out)
        before = max([steps_logged(folder) for folder in out.glob("pretrain*")], default=0)
        wait_for(
            lambda before=before: any(steps_logged(f) > before + 2 for f in out.glob("pretrain*")),
            "steps of the pre-training",
        )
        if number == signal.SIGTERM:
            os.killpg(process.pid, number)
        else:
            process.kill()
        assert process.wait(60) == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    process = start(world, out)
    assert process.wait(120) == 0
    records = [read_record(file) for file in out.glob("*/record.json")]
    assert sorted(record.kind for record in records) == ["pretrain", "transfer"]
    assert (out.parent / "said.txt").read_text().count("Traceback") == 0
    printed = next(out.glob("printed/pretrain*.txt")).read_text()
    assert printed.count("going on after step") == 2
    assert "stopped by SIGTERM after step" in printed
    assert steps_logged(next(out.glob("pretrain*"))) == 20 * (48 // 8)
