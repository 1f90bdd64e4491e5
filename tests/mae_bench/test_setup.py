"""What surrounds the loop: device, seed, command, commit, clock."""

import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
import torch
from small_runs import SMALL_MAE, log_of

import mae_bench
from mae_bench import provenance
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.setup import Spent, make_record, start
from results import Data
from tasks.task import Scored


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "1", None])
def test_a_bad_seed(seed):
    with pytest.raises(RunError, match="expected a whole number from 0 to"):
        start(Execution(), seed)


@pytest.mark.parametrize(
    "values",
    [
        {"workers": "2"},
        {"workers": 1.5},
        {"save_minutes": None},
        {"max_bad_images": -1},
        {"device": "gpu"},
    ],
)
def test_a_bad_execution(values):
    ((name, value),) = values.items()
    with pytest.raises(RunError, match=f"{name} is {value!r}; expected "):
        Execution(**values)


def test_the_seed_fixes_what_torch_draws():
    drawn = []
    for seed in (5, 5, 6):
        start(Execution(), seed)
        drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[1] != drawn[2]


def test_float32_is_never_tf32():
    """torch's own setting for convolutions, and what somebody has set for products."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    start(Execution(), 0)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_process_keeps_to_one_kind_of_device(monkeypatch):
    """accelerate would go on silently with the first one."""
    start(Execution(device="cpu"), 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RunError, match="begun to work on cpu and cannot go on with cuda"):
        start(Execution(), 0)
    assert start(Execution(device="cpu"), 0).device.type == "cpu"


def test_a_launchers_precision_does_not_add_to_the_recipes(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert start(Execution(), 0).mixed_precision == "no"


@pytest.mark.parametrize(
    ("argv", "processes", "expected"),
    [
        (["/usr/bin/mae-bench", "report", "--runs", "a b"], 1, "mae-bench report --runs 'a b'"),
        (["/x/mae_bench/cli.py", "doctor"], 1, "mae-bench doctor"),
        (["sweep.py", "3"], 1, "sweep.py 3"),
        (["/bin/mae-bench", "x"], 8, "torchrun --nproc_per_node=8 --no-python mae-bench x"),
        (["/home/me/sweep.py", "3"], 2, "torchrun --nproc_per_node=2 sweep.py 3"),
    ],
)
def test_the_command_can_be_typed_again(argv, processes, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    assert provenance.command(processes) == expected


def test_no_commit_where_git_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None


def test_a_clock_that_was_set_back(world, tmp_path, monkeypatch):
    """The run seems to have begun tomorrow; its record is written all the same."""
    tomorrow = time.time() + 86_400
    common = {"data": world / "unlabelled", "out": tmp_path, "name": "run", **SMALL_MAE}
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: tomorrow)
        record = mae_bench.pretrain(**common)
    assert record.started == record.finished
    assert record.started > datetime.now(UTC) + timedelta(hours=23)


def test_what_a_record_says_about_its_run(world, tmp_path):
    record = mae_bench.pretrain(data=world / "unlabelled", out=tmp_path, **SMALL_MAE)
    assert record.name == "pretrain-vit_mini-seed0"
    assert record.environment.torch == torch.__version__
    assert record.environment.processes == 1
    assert "1 thread" in record.environment.device
    assert record.cost.seconds > 0
    assert record.cost.peak_memory_bytes > 50_000_000
    last_epoch = [line["loss"] for line in log_of(tmp_path / record.name)[-3:]]
    assert record.metrics == {"loss": pytest.approx(sum(last_epoch) / 3, rel=1e-12)}


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({}, "no score is defined on these test images of toy"),
        ({"miou": float("nan"), "aacc": 1.0}, "miou not defined on these test images of toy"),
        ({"ap_box": float("inf")}, "ap_box not defined"),
    ],
)
def test_without_a_score_there_is_no_record(metrics, said):
    facts = Data(
        name="toy", fingerprint="0" * 16, train_images=1, val_images=1, classes=1,
        miniature=False, standard=False,
    )  # fmt: skip
    spent = Spent(datetime.now(UTC), 1.0)
    with pytest.raises(RunError, match=said):
        make_record({"name": "run", "data": facts}, spent, Scored(metrics), None)
