"""A task is one folder and one line: a toy dense task through everything that asks about tasks."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_task.face import ToyFace

import mae_bench
import tasks
from mae_bench import runs
from mae_bench.cli import call
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.words import hand_in
from results import Record, write_record
from results.formats import FORMATS, SHOWN
from tasks import miniature
from tasks.face import Metric
from tasks.miniature import WorldSizes

ALONE = Execution(workers=0, device="cpu")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four training images and two test images, as the official data set has."""
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "FACES", ["toy_task.face"])
        sizes = WorldSizes(toy_train=4, toy_val=2)
        world = miniature.make(tmp_path / "world", sizes=sizes)
    return (world / "toy").rename(tmp_path / "data")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line."""
    monkeypatch.setattr(tasks, "FACES", [*tasks.FACES, "toy_task.face"])


def train(data: Path, out: Path) -> Record:
    options = {"data": data, "out": out, "name": "one", "init": "scratch", "execution": ALONE}
    return mae_bench.transfer("toy", "vit_mini", **options)


def test_the_data_are_listed_and_checked(toy, data, capsys):
    assert call(["data", "list"]) == 0
    assert "toy " in capsys.readouterr().out
    assert call(["data", "check", "toy", "--root", str(data)]) == 0
    assert "ready" in capsys.readouterr().out
    (data / "val/0.png").write_bytes(b"no image")
    (data / "val/1.png").write_bytes(b"no image")
    with pytest.raises(SystemExit, match="1"):
        call(["data", "check", "toy", "--root", str(data)])
    assert "2 of 2 test images cannot be read" in capsys.readouterr().out


def test_from_training_to_every_report(toy, data, tmp_path, capsys):
    out = tmp_path / "runs"
    record = train(data, out)
    assert record.protocol == "toy/regression@1"
    assert record.comparable
    truth = [np.asarray(Image.open(data / f"val_dark/{n}.png")).astype(float) for n in (0, 1)]
    found = [np.asarray(Image.open(out / f"one/predictions/{n}.png")) for n in (0, 1)]
    gaps = [np.abs(a - b).mean() for a, b in zip(truth, found, strict=True)]
    assert record.metrics == {"gap": pytest.approx(sum(gaps) / 2)}

    worse = record.metrics["gap"] + 1
    (out / "two").mkdir()
    write_record(
        out / "two",
        record.model_copy(update={"name": "two", "init": "other", "metrics": {"gap": worse}}),
    )
    capsys.readouterr()
    files = [name for name in FORMATS if name not in SHOWN]
    (table,) = mae_bench.report(out, formats=files)
    said = capsys.readouterr().out
    title = "Toy pictures: pixel regression"
    assert title in said
    assert table.columns[2].title == "distance"
    assert table.columns[2].unit == "grey levels"
    best = {row[1].value: row[2].best for row in table.rows}
    assert best == {"scratch": True, "other": False}  # less is better
    for name in files:
        text = (out / f"report.{name}").read_text()
        assert "distance" in text
        assert f"{worse:.2f}" in text or name in ("csv", "json")
        assert title in text
    whole = json.loads((out / "report.json").read_text())["tables"][0]
    assert whole["columns"][2]["better"] == "lower"
    runs.list_runs(out)
    assert f"gap {worse:.2f}" in capsys.readouterr().out


def test_its_predictions_are_scored_again(toy, data, tmp_path):
    train(data, tmp_path / "runs")
    bundle = runs.pack("one", runs=tmp_path / "runs")
    (row,) = runs.rescore(bundle, data)
    assert (row.metric, row.same) == ("gap", True)
    other = mae_bench.evaluate(tmp_path / "runs/one", execution=ALONE)
    assert other is not None
    assert other.metrics["gap"] == pytest.approx(row.recorded)


def test_help_names_it(toy, capsys):
    with pytest.raises(SystemExit, match="0"):
        call(["transfer", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "coco, ade20k or toy (default: imagenet1k)" in said
    assert "; toy: regression (default)" in said
    with pytest.raises(SystemExit, match="0"):
        call(["runs", "rescore", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "needed for coco, ade20k and toy; of others" in said


def test_a_world_that_is_there_gets_its_twin_beside_the_others(toy, tmp_path, monkeypatch):
    """As a world of an earlier version of mae-bench, which knew no such task."""
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "FACES", tasks.FACES[:-1])
        root = miniature.make(tmp_path / "w", sizes=WorldSizes.only(imagenet1k_val=3, coco_val=2))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*/*")}
    sizes = WorldSizes.only(imagenet1k_val=3, coco_val=2, toy_train=4, toy_val=2)
    miniature.ensure(root, sizes=sizes)
    after = {path: path.stat().st_mtime_ns for path in root.rglob("*/*")}
    assert before.items() < after.items()
    assert {path.relative_to(root).parts[0] for path in after.keys() - before.keys()} == {"toy"}
    manifest = miniature.find(root)
    assert manifest["sets"]["toy"] == {
        "version": 1,
        "classes": [],
        "images": {"train": 4, "val": 2},
        "files": 12,
    }
    assert manifest["files"] == sum(path.is_file() for path in after)


def test_the_command_line_draws_and_takes_its_twin(tmp_path, monkeypatch, capsys):
    """Of no other task, to be quick."""
    monkeypatch.setattr(tasks, "FACES", ["toy_task.face"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    argv = ["transfer", "--task", "toy", "--init", "scratch", "--device", "cpu"]
    assert call([*argv, "--out", str(tmp_path / "runs"), "--workers", "0"]) == 0
    assert "mini-v2/toy (the built-in miniature world" in capsys.readouterr().out
    assert call(["data", "make"]) == 0
    with Image.open(tmp_path / "mae-bench/mini-v2/contact_sheet.png") as sheet:
        assert sheet.height > 64


def test_two_tasks_that_differ_in_a_metric_are_refused(toy, monkeypatch):
    """Else a table would call the worse score the better one."""
    monkeypatch.setattr(ToyFace, "metrics", {"top1": Metric("top-1", "%", "lower")})
    with pytest.raises(RunError, match="metric top1: two tasks say different things of it"):
        hand_in()


def test_without_the_line_there_is_no_such_task(data, tmp_path):
    with pytest.raises(tasks.TaskError, match="unknown task 'toy'"):
        train(data, tmp_path)
