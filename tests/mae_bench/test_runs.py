"""`mae-bench runs`: listed, shown, compared, pruned, packed and scored again."""

import csv
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image
from small_runs import SMALL, SMALL_MAE, flags, log_of, steps_logged, wait_for

import mae_bench
from mae_bench import runs
from mae_bench.cli import call
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.run.finding import planned_steps, read_run, runs_in, state
from results import Record, ResultsError, write_record
from results.bundle import open_bundle

ALONE = Execution(workers=0)
START = datetime(2026, 1, 1, tzinfo=UTC)


def record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "schema_version": 1,
        "name": "one",
        "kind": "transfer",
        "protocol": "imagenet1k/finetune@1",
        "task": "imagenet1k",
        "backbone": "vit_b",
        "init": "mae",
        "checkpoint": {"file": "mae.pth", "sha256": "ab" * 32, "recipe_hash": None},
        "data": {
            "name": "imagenet1k",
            "fingerprint": "0123456789abcdef",
            "train_images": 1000,
            "val_images": 100,
            "classes": 10,
            "miniature": False,
            "standard": False,
        },
        "recipe": {"backbone": "vit_b", "epochs": 100, "clip_grad": None},
        "recipe_hash": "0123456789ab",
        "deviations": ["epochs 50 -> 100"],
        "seed": 0,
        "metrics": {"top5": 96.5, "top1": 83.5},
        "intervals": {"top1": [83.1, 83.9]},
        "cost": {"seconds": 3600.0, "images_per_second": None, "peak_memory_bytes": 2**31},
        "environment": {
            "python": "3.11.9",
            "torch": "2.15.0",
            "versions": {"timm": "1.0.31"},
            "device": "a GPU",
            "processes": 1,
            "commit": None,
            "command": "mae-bench transfer",
        },
        "started": START.isoformat(),
        "finished": (START + timedelta(hours=1)).isoformat(),
        "complete": True,
        "skipped_images": 0,
    }
    return Record.model_validate_json(json.dumps(fields | changes))


IDENTITY = {
    "task": "imagenet1k",
    "recipe": {
        "protocol": "imagenet1k/linear@1",
        "backbone": "vit_s",
        "epochs": 3,
        "batch_size": 10,
    },
    "data": {"train_images": 1005, "standard": False},
    "init": "dino",
    "seed": 0,
    "limit": None,
}


def finished(folder: Path, **changes: Any) -> Path:
    write_record(folder, record(name=folder.name, **changes))
    (folder / "run.json").write_text(json.dumps(IDENTITY))
    (folder / ".lock").touch()
    (folder / "model.safetensors").write_bytes(bytes(3000))
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
    (folder / "predictions.csv").write_text("file,target,class_1,probability_1\na,0,0,1\nb,0,1,1\n")
    save_states(folder, 1000)
    return folder


def begun(folder: Path, *steps: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(IDENTITY))
    (folder / ".lock").touch()
    (folder / "log.jsonl").write_text("".join(f'{{"step": {n}}}\n' for n in range(1, 18)))
    save_states(folder, *steps)
    return folder


def save_states(folder: Path, *steps: int) -> None:
    (folder / "state").mkdir()
    for step in steps:
        (folder / "state" / f"step-{step:08d}.pt").write_bytes(bytes(5000))


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Finished runs, a stopped one, broken ones, and what is no run."""
    root = tmp_path / "runs"
    finished(root / "one")
    finished(root / "study/other", init="moco_v3", seed=3, metrics={"top1": 84.25}, intervals={})
    begun(root / "half", 8, 16)
    (root / "broken").mkdir()
    (root / "broken/record.json").write_text('{"name": ')
    (root / "empty").mkdir()
    (root / "empty/run.json").write_text("[]")
    (root / "notes").mkdir()
    (root / "notes/thesis.txt").write_text("mine")
    return root


def lines(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


def line_of(name: str, said: list[str]) -> str:
    (line,) = (line for line in said if line.startswith(f"{name} "))
    return " ".join(line.split())


def test_list_has_a_line_for_each_run(root, capsys):
    found = runs.list_runs(root)
    assert [run.name for run in found] == ["broken", "empty", "one", "study/other", "half"]
    said = lines(capsys)
    assert " ".join(said[0].split()) == "name protocol backbone init score state size age"
    one = line_of("one", said)
    assert one.startswith("one imagenet1k/finetune@1 vit_b mae top1 83.50 finished ")
    other = line_of("study/other", said)
    assert " moco_v3 top1 84.25 finished " in other
    assert "imagenet1k/linear@1 vit_s dino – stopped at step 16 of 300 " in line_of("half", said)
    assert " broken " in line_of("broken", said)
    assert any(line.startswith(f"broken: {root}/broken/record.json: ") for line in said)
    assert f"broken: {root}/empty/run.json: names no recipe" in said


def test_sizes_and_ages(root, capsys):
    folder = root / "one"
    size = sum(len(content) for content in files(folder).values())
    assert runs.size_on_disk(folder) == size
    now = datetime.now(UTC)
    for name, passed in (("day", 50), ("hour", 5), ("now", -1)):
        time = (now - timedelta(hours=passed)).isoformat()
        begin = (now - timedelta(days=9)).isoformat()
        finished(root / name, started=begin, finished=time)
    capsys.readouterr()
    runs.list_runs(root)
    said = lines(capsys)
    for name, shown in (("day", "2 d"), ("hour", "5 h"), ("now", "0 s")):
        assert line_of(name, said).endswith(f" {shown}")
    assert f" {runs.size_text(size)} " in line_of("one", said)


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**40, "3.0 TiB")]
)
def test_sizes_are_readable(size, shown):
    assert runs.size_text(size) == shown


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"task": "imagenet1k"}, ["one", "study/other", "half"]),
        ({"protocol": "linear"}, ["half"]),
        ({"protocol": "imagenet1k/finetune"}, ["one", "study/other"]),
        ({"protocol": "imagenet1k/finetune@1"}, ["one", "study/other"]),
        ({"protocol": "imagenet1k/finetune@2"}, []),
        ({"task": "coco"}, []),
    ],
)
def test_list_filters(root, asked, names, capsys):
    assert [run.name for run in runs.list_runs(root, **asked)] == names
    if not names:
        (line,) = lines(capsys)
        assert line.startswith(f"no runs of {next(iter(asked.values()))} in {root}; there are ")
        assert "imagenet1k/finetune@1, imagenet1k/linear@1" in line


def test_a_run_under_way_is_one_whose_lock_is_held(root):
    with FileLock(root / "half/.lock"):
        assert state(read_run("half", root / "half")) == "under way, step 17 of 300"
    assert state(read_run("half", root / "half")) == "stopped at step 16 of 300"


@pytest.mark.parametrize(
    ("log", "step"),
    [("", 0), ('{"step": 3}\n{"st', 3), ("{}\n", 0), ("[]\n", 0), ("\0" * 9000 + "\n", 0)],
)
def test_logs_cut_by_a_crash(root, log, step):
    (root / "half/log.jsonl").write_text(log)
    with FileLock(root / "half/.lock"):
        assert state(read_run("half", root / "half")) == f"under way, step {step} of 300"


@pytest.mark.parametrize(
    "identity",
    [
        {},
        {"recipe": {"epochs": 3, "batch_size": 0}, "data": {"train_images": 9, "standard": False}},
        {"recipe": {"epochs": "3", "batch_size": 1}, "data": {"train_images": 9, "standard": 0}},
        {"recipe": {"epochs": 1e308, "batch_size": 1}, "data": {"train_images": 99, "standard": 0}},
        {"recipe": [], "data": None},
    ],
)
def test_steps_of_what_does_not_train(identity):
    assert planned_steps(identity) is None


def test_steps_are_counted_as_in_training(pretrained):
    identity = json.loads((pretrained / "run.json").read_text())
    assert planned_steps(identity) == log_of(pretrained)[-1]["step"]


@pytest.mark.parametrize("name", ["nothing", "", ".", "..", "../one", "one/state", "/etc"])
def test_only_names_of_the_list_are_taken(root, name):
    with pytest.raises(RunError, match=r"no run .*; .*`mae-bench runs list` names them all"):
        runs.show(name, root)


@pytest.mark.parametrize(
    ("name", "meant"), [("onee", "'one'"), ("other", "'study/other'"), ("studi/othr", "'study/")]
)
def test_near_matches_are_suggested(root, name, meant):
    with pytest.raises(RunError, match=f"did you mean {meant}"):
        runs.show(name, root)


def test_a_broken_run_is_named(root):
    with pytest.raises(RunError, match=r"run 'broken' is broken: .*/broken/record\.json: "):
        runs.show("broken", root)
    with pytest.raises(RunError, match=r"--runs .*nowhere: no such folder"):
        runs.list_runs(root / "nowhere")


def test_show_tells_all(root, capsys):
    assert runs.show("one", root).record == record()
    said = [" ".join(line.split()) for line in lines(capsys)]
    for line in (
        "one: finished",
        "top1 83.50 (95 % interval 83.10 to 83.90)",
        "top5 96.50",
        "protocol imagenet1k/finetune@1",
        "deviations epochs 50 -> 100",
        "finished 2026-01-01 01:00 UTC",
        "file mae.pth",
        "fingerprint 0123456789abcdef",
        "standard false",
        "clip_grad null",
        "training 1 h 00 min",
        "images/s –",
        "peak memory 2.0 GiB",
        "timm 1.0.31",
        "commit null",
        "command mae-bench transfer",
        "model.safetensors 2.9 KiB",
        "state 4.9 KiB",
    ):
        assert line in said


def test_show_of_an_unfinished_run(root, capsys):
    assert runs.show("half", root).record is None
    said = [" ".join(line.split()) for line in lines(capsys)]
    assert said[0] == "half: stopped at step 16 of 300"
    assert {"init dino", "batch_size 10", "train_images 1005"} <= set(said)


def test_compare_shows_what_differs_and_all_scores(root, capsys):
    rows = runs.compare("one", "study/other", root)
    assert rows == [
        ("metrics", "top5", "96.50", "–"),
        ("metrics", "top1", "83.50 (95 % interval 83.10 to 83.90)", "84.25"),
        ("run", "init", "mae", "moco_v3"),
        ("run", "seed", "0", "3"),
    ]
    said = [" ".join(line.split()) for line in lines(capsys)]
    assert said[0] == "one study/other first − second"
    assert "top1 83.50 (95 % interval 83.10 to 83.90) 84.25 -0.75" in said


def test_a_run_does_not_differ_from_itself(root):
    assert {row[0] for row in runs.compare("one", "one", root)} == {"metrics"}


def test_an_unfinished_run_is_compared_by_its_recipe(root):
    rows = runs.compare("one", "half", root)
    assert ("recipe", "epochs", "100", "3") in rows
    assert ("metrics", "top1", "83.50 (95 % interval 83.10 to 83.90)", "–") in rows


HOSTILE = "<script>\x1b[31m\x07[bold]x[/bold]\u202egnp.exe"


def test_hostile_text_is_shown_and_does_nothing(tmp_path, capsys):
    root = tmp_path / "runs"
    finished(root / "[red]a[/red]", init=HOSTILE, deviations=[HOSTILE], recipe={HOSTILE: HOSTILE})
    finished(root / "b\x1b[2J", metrics={HOSTILE: 1.0}, intervals={})
    begun(root / "c")
    identity = IDENTITY | {"init": "long" * 10**5, "recipe": {"protocol": [HOSTILE]}}
    (root / "c/run.json").write_text(json.dumps(identity))
    runs.list_runs(root)
    for name in ("[red]a[/red]", "b\x1b[2J", "c"):
        runs.show(name, root)
    runs.compare("[red]a[/red]", "b\x1b[2J", root)
    said = capsys.readouterr().out
    for character in "\x1b\x07\u202e":
        assert character not in said
    assert "<script> [31m [bold]x[/bold] gnp.exe" in said
    assert "[red]a[/red]" in said
    assert max(map(len, said.splitlines())) < 20_000


def test_prune_says_what_it_would_do(root, capsys):
    before = files(root)
    assert runs.prune(root) == 10_000
    said = lines(capsys)
    assert said == [
        "one: state/step-00001000.pt 4.9 KiB",
        "study/other: state/step-00001000.pt 4.9 KiB",
        "would free 9.8 KiB; --yes does it",
    ]
    assert files(root) == before


def test_prune_deletes_states_of_finished_runs_and_halves_of_files(root, capsys):
    for place in ("one/.model.safetensors.partial", "half/state/.step-00000017.pt.partial"):
        (root / place).write_bytes(bytes(100))
    before = files(root)
    assert runs.prune(root, yes=True) == 10_200
    gone = before.keys() - files(root).keys()
    assert gone == {
        "one/state/step-00001000.pt",
        "one/.model.safetensors.partial",
        "study/other/state/step-00001000.pt",
        "half/state/.step-00000017.pt.partial",
    }
    assert not (root / "one/state").exists()
    assert lines(capsys)[-1] == "freed 10.0 KiB"
    assert runs.prune(root, yes=True) == 0


def test_weights_go_only_when_asked_for_and_only_of_these_runs(root):
    assert runs.prune(root, ["one"], weights=True, yes=True) == 8000
    assert not (root / "one/model.safetensors").exists()
    assert (root / "study/other/model.safetensors").exists()
    assert (root / "study/other/state").exists()


def test_prune_never_touches_a_record_or_what_is_not_ours(root, tmp_path):
    """A stranger's record in a folder of something else, and links that lead elsewhere."""
    (root / "notes/state").mkdir()
    (root / "notes/state/step-00000001.pt").write_bytes(b"somebody's")
    write_record(root / "notes", record())
    (root / "one/state/notes.txt").write_text("mine")
    elsewhere = tmp_path / "elsewhere"
    save = elsewhere / "step-00000002.pt"
    elsewhere.mkdir()
    save.write_bytes(b"on a larger disk")
    finished(root / "linked")
    (root / "linked/state/step-00001000.pt").unlink()
    (root / "linked/state").rmdir()
    (root / "linked/state").symlink_to(elsewhere)
    (root / "linked/model.safetensors").unlink()
    (root / "linked/model.safetensors").symlink_to(save)
    finished(root / "empty_link")
    (root / "empty_link/state/step-00001000.pt").unlink()
    (root / "empty_link/state").rmdir()
    (root / "empty_link/state").symlink_to(tmp_path / "nothing")
    (tmp_path / "nothing").mkdir()
    (root / "empty_link/model.safetensors").unlink()
    before = files(root)
    assert runs.prune(root, weights=True, yes=True) == 16_000
    gone = before.keys() - files(root).keys()
    assert gone == {
        f"{name}/{file}"
        for name in ("one", "study/other")
        for file in ("state/step-00001000.pt", "model.safetensors")
    }
    assert save.read_bytes() == b"on a larger disk"
    assert (root / "linked/model.safetensors").is_symlink()
    assert (root / "empty_link/state").is_symlink()


@pytest.mark.parametrize("yes", [False, True])
def test_prune_leaves_a_run_under_way_alone(root, yes):
    (root / "half/.log.jsonl.partial").write_text("being written")
    before = files(root)
    with FileLock(root / "half/.lock"), FileLock(root / "one/.lock"):
        runs.prune(root, ["half", "one"], weights=True, yes=yes)
    assert files(root) == before


def hold(lock: str, held: Any, done: Any) -> None:
    with FileLock(lock):
        held.set()
        done.wait(30)


def test_another_process_holds_the_lock(root):
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(str(root / "half/.lock"), held, done))
    process.start()
    assert held.wait(30)
    (root / "half/.log.jsonl.partial").write_text("being written")
    assert state(read_run("half", root / "half")) == "under way, step 17 of 300"
    assert runs.prune(root, ["half"], yes=True) == 0
    done.set()
    process.join()
    assert state(read_run("half", root / "half")) == "stopped at step 16 of 300"
    assert runs.prune(root, ["half"], yes=True) == len("being written")


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


def rescored(argv: list[str], capsys) -> tuple[int, str]:
    """Exit code of `runs rescore`, and all that it said."""
    capsys.readouterr()
    try:
        code = call(["runs", "rescore", *argv])
    except SystemExit as end:
        code = int(end.code or 0)
    told = capsys.readouterr()
    return code, told.out + told.err


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


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("show", "runs show lacks NAME (see mae-bench runs show --help)"),
        ("compare one", "runs compare lacks NAME (see mae-bench runs compare --help)"),
        ("list one", "runs list does not take one (see"),
        ("list --yes", "runs list does not take --yes; runs prune would (see"),
        ("show one --data mini", "runs show does not take --data mini; runs rescore would (see"),
        ("prune --task coco", "runs prune does not take --task coco; runs list would (see"),
        ("rescore nothing.zip", "nothing.zip: no such file; expected a bundle"),
        ("rescore .", ".: is a folder; expected a bundle"),
        ("shwo one", "unknown command runs 'shwo'; did you mean show?"),
        ("", "list"),
        ("list --runs /nowhere", "/nowhere: no such folder"),
    ],
)
def test_bad_command_lines(argv, said, capsys):
    assert call(["runs", *argv.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_the_commands(root, tmp_path, capsys):
    there = ["--runs", str(root)]
    for argv in (
        ["list", "--task", "imagenet1k"],
        ["show", "one"],
        ["compare", "one", "half"],
        ["prune", "one", "--yes"],
        ["pack", "one", "--output", str(tmp_path / "one.zip"), "--weights", "--pictures"],
    ):
        assert call(["runs", *argv, *there]) == 0
    assert not (root / "one/state").exists()
    assert (root / "study/other/state").exists()
    with open_bundle(tmp_path / "one.zip") as bundle:
        assert bundle.record.name == "one"
    assert rescored([str(tmp_path / "one.zip")], capsys)[0] == 1


def test_looking_at_runs_needs_no_torch(root):
    code = (
        "import sys; from mae_bench.cli import call; "
        f"call(['runs', 'list', '--runs', {str(root)!r}]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_real_run_from_its_start_to_its_pruning(world, tmp_path, fork, capsys):
    argv = ["pretrain", *flags(data=world / "unlabelled", out=tmp_path, name="run", workers=0)]
    argv += flags(**SMALL_MAE | {"epochs": 40})
    process = fork(argv)
    wait_for(lambda: steps_logged(tmp_path / "run") >= 2, "two steps")
    assert state(read_run("run", tmp_path / "run")).startswith("under way, step ")
    assert runs.prune(tmp_path, yes=True) == 0
    process.kill(2)
    assert process.exit_code() == 130
    assert state(read_run("run", tmp_path / "run")).startswith("stopped at step ")
    assert state(read_run("run", tmp_path / "run")).endswith(" of 120")
    assert call(argv) == 0
    (run,) = runs_in(tmp_path)
    assert state(run) == "finished"
    assert runs.prune(tmp_path, yes=True) > 0
    assert runs_in(tmp_path) == [run]
    capsys.readouterr()
    assert call(argv) == 0  # and the run is still there
    assert "is finished; nothing to do" in capsys.readouterr().out
