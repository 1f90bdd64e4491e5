"""What a suite would cost: against real short runs, and by hand."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest
import torch
from small_runs import wait_for

import mae_bench
from mae_bench.cli import call
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.plan import lacking
from mae_bench.suite.choosing import chosen_spec
from mae_bench.suite.cost import DEVICES, GIB, Probe, on_device, on_this_device
from mae_bench.suite.expansion import expand

ALONE = Execution(workers=0, device="cpu")
SHORT = {
    "imagenet1k": {"epochs": 3, "warmup_epochs": 0},
    "inat2018": {"epochs": 3, "warmup_epochs": 0},
    "places365": {"epochs": 3, "warmup_epochs": 0},
    "coco": {"epochs": 2, "warmup_epochs": 0},
    "ade20k": {"epochs": 2, "warmup_epochs": 0},
}
PROBE = Probe(
    parameters=300_000_000,
    train_images=1000,
    test_images=500,
    steps=40,
    micro_batches=4,
    device_batch=32,
    flops_per_image=6e11,
    prepare_seconds=10.0,
    micro_batch_seconds=0.5,
    update_seconds=0.1,
    score_seconds=20.0,
    peak_bytes=20 * GIB,
    activation_bytes=GIB // 2,
    state_bytes=GIB,
    weights_bytes=GIB // 4,
    prediction_bytes=1000,
    device="a device",
)


def runs_for(tasks, protocols=(), **more):
    return expand(chosen_spec(None, tasks=tasks, protocols=protocols, **more)[0]).runs


def test_a_run_is_its_steps_and_its_scores():
    assert PROBE.seconds == pytest.approx(10 + 40 * (4 * 0.5 + 0.1) + 20)
    assert PROBE.flops_per_step == 6e11 * 32 * 4
    assert PROBE.disk_bytes == 3 * GIB + GIB // 4 + 1000


def test_another_device_is_reckoned_from_operations():
    cost = on_device(PROBE, DEVICES["a100-80gb"], "bf16", 0.4)
    operations = 6e11 * (40 * 4 * 32 + 500 / 3)
    assert cost.seconds == pytest.approx(operations / (312e12 * 0.4))
    with pytest.raises(RunError, match="could not be counted"):
        on_device(replace(PROBE, flops_per_image=None), DEVICES["a100-80gb"], "bf16", 0.4)


@pytest.mark.parametrize(("room", "size"), [(21, 32), (13, 16), (9, 8), (4.6, 1), (4.4, 1)])
def test_the_largest_device_batch_that_fits_keeps_the_batch(room, size):
    """4 GiB, and half a GiB for each of 32 images."""
    cost = on_this_device(PROBE, room * GIB)
    assert cost.device_batch * cost.accumulation == 4 * 32
    assert cost.device_batch == size
    assert cost.fits == (room >= 4.5)


def test_what_does_not_suffice_is_said(tmp_path):
    (run,) = runs_for(["imagenet1k"], init=["scratch"])
    cost = on_this_device(PROBE, 13 * GIB)
    (line,) = lacking([(run, PROBE, cost)], tmp_path, 1)
    assert "--device-batch 16, 8 micro-batches" in line
    (line,) = lacking([(run, PROBE, on_this_device(PROBE, 100 * GIB))], tmp_path, 2**70)
    assert "disk does not suffice" in line
    lines = lacking([(run, PROBE, on_this_device(PROBE, 2 * GIB))], tmp_path, 1)
    assert "memory does not suffice" in lines[0]


def test_the_plan_names_commands_and_totals_and_runs_nothing(world, tmp_path, capsys):
    words = ["plan", "--tasks", "imagenet1k", "--init", "scratch", "--data-root", str(world)]
    words += ["--out", str(tmp_path / "runs"), "--workers", "0", "--device", "cpu"]
    words += ["--overrides", "batch_size=8", "device_batch=4"]
    assert call(words) == 0
    said = capsys.readouterr().out
    command = next(line for line in said.splitlines() if line.startswith("mae-bench transfer"))
    assert "--protocol scratch" in command
    assert "--device-batch 4" in command
    assert "2 x 4" in said
    assert "device-hours" in said
    assert "measured over a few steps on this device" in said
    assert not (tmp_path / "runs").exists()
    assert call([*words, "--on", "h100-80gb"]) == 0
    assert "reckoned for NVIDIA H100" in capsys.readouterr().out
    assert call([*words, "--on", "h100"]) == 2
    assert "did you mean h100-80gb" in capsys.readouterr().err
    assert call(["suite", *words[1:], "--dry-run"]) == 0
    assert not (tmp_path / "runs").exists()


def in_a_process(work, file):
    """What `work` returns, JSON-safe, from a process of its own."""

    def target():
        torch.set_num_threads(1)
        file.write_text(json.dumps(work()))

    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    process.join(600)
    assert process.exitcode == 0
    return json.loads(file.read_text())


def probed(run):
    from mae_bench.suite.probing import probe

    found = probe(run, ALONE, time.process_time)
    return found.seconds, found.peak_bytes


def really(run, out):
    """Processor seconds and memory of the run itself, by its own command."""
    began = time.process_time()
    assert call(run.words(out, {}, ALONE)) == 0
    seconds = time.process_time() - began
    record = json.loads((out / run.name / "record.json").read_text())
    return seconds, record["cost"]["peak_memory_bytes"]


@pytest.mark.timing
@pytest.mark.parametrize(
    ("task", "protocol"),
    [(task, None) for task in SHORT]
    + [("imagenet1k", "knn"), ("imagenet1k", "logistic"), ("imagenet_a", None), ("pretrain", None)],
)
def test_time_and_memory_are_within_a_fifth(task, protocol, tmp_path):
    """In processor time, which a busy machine distorts least."""
    if task == "pretrain":
        runs = runs_for(
            ["imagenet1k"], pretrain=["mae"], pretrain_overrides={"epochs": 1, "warmup_epochs": 0}
        )
        run = runs[0]
    else:
        protocols = [protocol] if protocol else []
        changes = SHORT["imagenet1k" if task == "imagenet_a" else task] if not protocol else {}
        run = runs_for([task], protocols, init=["scratch"], overrides=changes)[-1]
    if run.command == "evaluate":  # by a process of its own: what it imports costs the next nothing
        in_a_process(lambda: call(run.needs.words(tmp_path, {}, ALONE)), tmp_path / "before.json")
    seconds, memory = in_a_process(lambda: probed(run), tmp_path / "probe.json")
    real_seconds, real_memory = in_a_process(lambda: really(run, tmp_path), tmp_path / "real.json")
    assert seconds == pytest.approx(real_seconds, rel=0.2), (seconds, real_seconds)
    assert memory == pytest.approx(real_memory, rel=0.2)


def has_loaders(pid: int, depth: int = 3) -> bool:
    """Whether the fork server's child, in which a run is probed, has children."""
    try:
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return False
    return bool(below) if depth == 1 else any(has_loaders(int(n), depth - 1) for n in below)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_a_plan_that_is_stopped_says_so_and_nothing_else(world, tmp_path):
    """The whole group gets the signal; nothing is left, no process and no line of Python's."""
    kept = Path(mkdtemp())  # a short name: a socket's path has 107 letters at most
    argv = ["plan", "--init", "scratch", "--tasks", "imagenet1k", "--data-root", str(world)]
    argv += ["--overrides", "batch_size=8", "device_batch=4", "--out", str(tmp_path / "runs")]
    with (tmp_path / "said.txt").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "mae_bench", *argv, "--device", "cpu"],
            stdout=said,
            stderr=said,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(kept), "OMP_NUM_THREADS": "1"},
        )
    wait_for(lambda: has_loaders(process.pid), "loading processes of a probe")
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    wait_for(lambda: not list(Path("/proc").glob(f"{process.pid}/task")), "its end")
    first, last = (tmp_path / "said.txt").read_text().splitlines()
    assert first == "probing ..."
    assert last.startswith("mae-bench: stopped by SIGTERM; nothing that was saved is lost")
    assert not list(kept.glob("tmp*"))
    rmtree(kept)


@pytest.mark.parametrize("method", ["beit", "mae"])
def test_pretrainings_that_predict_tokens_are_planned(world, method):
    """With a tokenizer of random weights, which takes as long."""
    from mae_bench.suite.probing import probe

    changes = {"epochs": 1, "warmup_epochs": 0, "batch_size": 8, "device_batch": 4}
    changes |= {"target": "tokens"} if method == "mae" else {}
    flags = {"pretrain": [method], "pretrain_overrides": changes, "data_root": str(world)}
    made, predicting, _ = runs_for(["imagenet1k"], **flags)
    assert predicting.tokenizer == made
    found = probe(replace(predicting, data=str(world / "unlabelled")), ALONE, time.process_time)
    assert found.steps == 3
    assert found.micro_batch_seconds > 0


def test_plan_is_a_function_too():
    assert mae_bench.plan.__module__ == "mae_bench.plan"


def test_a_sweep_costs_its_candidates_and_one_more(world, tmp_path, monkeypatch, capsys):
    """Those that cost the same are probed once; what is held out is scored in place of the test."""
    asked = []

    def probed(run, how, file):
        asked.append(run)
        return replace(PROBE, steps=10 * run.recipe.epochs)

    monkeypatch.setattr(sys.modules["mae_bench.plan"], "probed", probed)
    sweep = {"base_lr": [1e-4, 1e-3], "epochs": [20, 40]}
    given = {"tasks": ["imagenet1k"], "init": ["scratch"], "data_root": str(world)}
    given |= {"sweep": sweep, "sweep_holdout": 0.2, "out": tmp_path}
    ((_, probe, cost),) = mae_bench.plan(**given)
    assert [each.recipe.epochs for each in asked] == [20, 40]
    assert (probe.steps, probe.train_images, probe.test_images) == (400, 1000, 500)
    step, prepare, score = 4 * 0.5 + 0.1, 10, 20
    tried = [prepare + 0.8 * 10 * epochs * step + score * 200 / 500 for epochs in (20, 40)]
    assert cost.seconds == pytest.approx(prepare + 400 * step + score + 2 * sum(tried))
    said = capsys.readouterr().out
    assert "--sweep base_lr=0.0001,0.001 --sweep epochs=20,40 --sweep-holdout 0.2" in said
    assert "a sweep's time is that of all its candidates" in said


def test_what_cannot_be_planned_is_an_error_after_the_rest(world, tmp_path, monkeypatch, capsys):
    def probed(run, how, file):
        return "no such images" if run.task == "coco" else PROBE

    monkeypatch.setattr(sys.modules["mae_bench.plan"], "probed", probed)
    words = ["plan", "--tasks", "imagenet1k", "coco", "--init", "scratch", "--data", "mini"]
    monkeypatch.setattr(sys.modules["mae_bench.plan"], "miniature_world", lambda: world)
    assert call([*words, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "1 of 2 runs are not planned: coco-" in said.err
    assert "no such images" in said.err
    assert "mae-bench transfer" in said.out
