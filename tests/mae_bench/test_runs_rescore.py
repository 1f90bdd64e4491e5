"""`mae-bench runs pack` and `rescore`: predictions scored again, also of strangers."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from run_folders import ALONE, IDENTITY, filled, finished, rescored
from small_runs import SMALL

import mae_bench
from mae_bench import runs
from mae_bench.errors import RunError
from mae_bench.run.finding import runs_in
from results import ResultsError
from results.bundle import open_bundle


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return filled(tmp_path / "runs")


def test_pack_writes_beside_the_run_or_where_it_is_told(root, tmp_path, capsys):
    file = runs.pack("study/other", runs=root)
    assert file == root / "study/other.maebench.zip"
    told = runs.pack("study/other", tmp_path / "new/bundle.zip", root)
    assert told.read_bytes() == file.read_bytes()
    with open_bundle(told) as bundle:
        assert bundle.record.name == "other"
    with pytest.raises(ResultsError, match="exists already"):
        runs.pack("study/other", runs=root)
    with pytest.raises(RunError, match=r"--output .*: is a folder; expected the name"):
        runs.pack("study/other", tmp_path, root)
    with pytest.raises(RunError, match="run 'half' is stopped at step 16 of 300; the command"):
        runs.pack("half", runs=root)
    assert [run.name for run in runs_in(root)] == ["broken", "empty", "one", "study/other", "half"]


def test_a_folder_that_cannot_be_opened_is_named(root, monkeypatch, capsys):
    scandir = os.scandir

    def closed(path):
        if Path(path) == root / "study":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    listed = runs.list_runs(root)
    assert [run.name for run in listed] == ["broken", "empty", "study", "one", "half"]
    assert f"broken: {root}/study: cannot be opened: Permission denied" in capsys.readouterr().out


def repacked(folder: Path, file: Path, change: Callable[[Path], None]) -> Path:
    """A bundle of a run whose files were changed by hand."""
    change(folder)
    return runs.pack(folder.name, file, folder.parent)


def set_metric(name: str, value: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "record.json").read_text())
        content["metrics"][name] = value
        (folder / "record.json").write_text(json.dumps(content))

    return change


def test_a_classification_is_packed_and_scored_again(world, tmp_path, capsys):
    out = tmp_path / "runs"
    found = mae_bench.transfer(
        protocol="scratch", data=world / "imagenet1k", out=out, name="one", execution=ALONE, **SMALL
    )
    file = runs.pack("one", runs=out)
    rows = {row.metric: row for row in runs.rescore(file)}
    assert {name: row.recorded for name, row in rows.items()} == found.metrics
    assert {name: row.recomputed for name, row in rows.items()} == found.metrics
    assert rescored([str(file)], capsys)[0] == 0
    spoilt = repacked(out / "one", tmp_path / "spoilt.zip", set_metric("top1", 99.0))
    code, said = rescored([str(spoilt)], capsys)
    assert code == 1
    assert "DIFFERENT" in said
    assert "the record does not say what its predictions score" in said
    data = str(world / "imagenet1k")
    code, said = rescored([str(file), "--data", data], capsys)
    assert (code, "are those that its predictions' file says" in said) == (0, False)
    code, said = rescored([str(file), "--data", str(world / "places365")], capsys)
    assert (code, "expected" in said) == (2, True)

    def flatter(folder: Path) -> None:
        """Every image is of the class that it was taken for, and the record says so."""
        with (folder / "predictions.csv").open(newline="") as stream:
            header, *rows = csv.reader(stream)
        with (folder / "predictions.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([header, *([r[0], r[2], *r[2:]] for r in rows)])
        for metric in found.metrics:
            set_metric(metric, 100.0)(folder)

    flattered = repacked(out / "one", tmp_path / "flattered.zip", flatter)
    code, said = rescored([str(flattered)], capsys)
    assert (code, "are those that its predictions' file says" in said) == (0, True)
    code, said = rescored([str(flattered), "--data", data], capsys)
    assert code == 2
    assert "in the data set: the predictions were altered" in said


COCO: dict[str, Any] = {
    "epochs": 1,
    "warmup_epochs": 0.5,
    "batch_size": 8,
    "device_batch": 4,
    "image_size": 64,
    "pyramid_channels": 8,
    "box_head_dim": 16,
    "rpn_batch": 16,
    "roi_batch": 8,
    "rpn_candidates": (20, 20),
    "proposals": 10,
}


ADE20K: dict[str, Any] = {
    "epochs": 1,
    "warmup_epochs": 0.5,
    "batch_size": 8,
    "device_batch": 4,
    "image_size": 32,
    "stride": 21,
    "head_channels": 8,
    "aux_channels": 8,
}


@pytest.mark.parametrize(("task", "small"), [("coco", COCO), ("ade20k", ADE20K)])
def test_dense_tasks_are_packed_and_scored_again(
    task, small, coco_world, ade20k_world, tmp_path, capsys
):
    """With the same images as the run, of which --limit took only some."""
    data = {"coco": coco_world, "ade20k": ade20k_world}[task] / task
    out = tmp_path / "runs"
    found = mae_bench.transfer(
        task=task, data=data, init="scratch", out=out, name="one", limit=8, execution=ALONE, **small
    )
    file = runs.pack("one", runs=out)
    rows = {row.metric: row for row in runs.rescore(file, data)}
    assert {name: row.recomputed for name, row in rows.items()} == found.metrics
    code, said = rescored([str(file)], capsys)
    assert (code, f"{task} needs the data that the run was scored on" in said) == (2, True)
    metric = next(iter(found.metrics))
    changed = set_metric(metric, found.metrics[metric] + 0.01)
    spoilt = repacked(out / "one", tmp_path / "spoilt.zip", changed)
    assert rescored([str(spoilt), "--data", str(data)], capsys)[0] == 1
    other = tmp_path / "other"
    other.mkdir()
    for each in data.rglob("*"):
        place = other / each.relative_to(data)
        place.mkdir(parents=True) if each.is_dir() else os.link(each, place)
    spoil_data(other, task)
    code, said = rescored([str(file), "--data", str(other)], capsys)
    assert (code, "is another data set than the run was scored on" in said) == (2, True)


def spoil_data(folder: Path, task: str) -> None:
    """Make another data set of it."""
    if task == "coco":
        file = folder / "annotations/instances_val2017.json"
        content = json.loads(file.read_text())
        del content["annotations"][0]
        file.unlink()  # it is a link to the original
        file.write_text(json.dumps(content))
        return
    file = sorted(folder.rglob("annotations/validation/*.png"))[0]
    with Image.open(file) as image:
        blank = Image.new("L", image.size, 1)
    file.unlink()
    blank.save(file)


def test_what_cannot_be_scored_again(root, tmp_path, capsys):
    (root / "one/predictions.csv").unlink()
    finished(root / "pre", kind="pretrain", protocol="pretrain/mae@1", task="pretrain")
    finished(root / "coco", protocol="coco/mask_rcnn-vitdet@1", task="coco")
    for name, said in (
        ("one", "holds no predictions.csv; a run that kept none cannot be re-scored"),
        ("pre", "a pre-training has no predictions; nothing to re-score"),
        ("coco", "coco needs the data that the run was scored on: expected --data DIR"),
    ):
        file = runs.pack(name, runs=root)
        code, line = rescored([str(file)], capsys)
        assert code == 2
        assert f"{file}: {said}" in line
        assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no predictions of ours"),
        ("file,target,class_1,probability_1\na,0\n", "2 cells for 4 columns"),
        ("file,target,class_1,probability_1\na,x,0,1\n", "invalid literal"),
        ("file,target,class_1,probability_1\na,99999999,0,1\n", "of 100000 and more"),
        (f"file,target,class_1,probability_1\na,{'9' * 30},0,1\n", "row 2: int too big"),
        ("file,target,class_1,probability_1\n", "has no images"),
        ("\x1b]0;evil\x07", "no predictions of ours"),
    ],
)
def test_predictions_of_strangers(root, tmp_path, content, said, capsys):
    (root / "one/predictions.csv").write_text(content)
    code, line = rescored([str(runs.pack("one", tmp_path / "bad.zip", root))], capsys)
    assert code == 2
    assert said in line
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert "mae-bench-" not in line  # no path of a folder that is gone


@pytest.mark.parametrize("limit", ["8", 0, -1, True, [1], 10**30])
def test_limits_of_strangers(root, tmp_path, limit, capsys):
    (root / "one/run.json").write_text(json.dumps(IDENTITY | {"limit": limit}))
    code, line = rescored([str(runs.pack("one", tmp_path / "bad.zip", root))], capsys)
    if limit == 10**30:  # more images than there are is all of them
        assert code == 1
    else:
        assert (code, "limit is no number of images" in line) == (2, True)


def test_scores_are_those_of_the_file(root, capsys):
    """One of two images is right."""
    with (root / "one/predictions.csv").open() as stream:
        table = list(csv.DictReader(stream))
    right = sum(row["target"] == row["class_1"] for row in table)
    rows = {row.metric: row for row in runs.rescore(runs.pack("one", runs=root))}
    assert rows["top1"].recomputed == 100 * right / len(table) == 50.0
    assert (rows["top1"].recorded, rows["top1"].same) == (83.5, False)
    assert (rows["top5"].recomputed, rows["top5"].same) == (None, True)
    images = rows["images"]  # a part of the predictions is no certificate
    assert (images.recorded, images.recomputed, images.same) == (100, 2, False)
