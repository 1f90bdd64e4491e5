"""A finished classifier on other test sets: the record, the files, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_runs import SMALL
from small_worlds import draw
from timm.models.vision_transformer import VisionTransformer
from torchvision import transforms
from torchvision.datasets import ImageFolder

import backbones
import mae_bench
from backbones.loading import anatomy_metadata, rebuild
from mae_bench.cli import call
from mae_bench.errors import RunError
from mae_bench.evaluate import read_run
from mae_bench.execution import Execution
from results import Record, read_records
from tasks.classification.scores import rescore
from tasks.errors import TaskError

SETS = ("imagenet_a", "imagenet_r", "imagenet_sketch", "imagenet_c")
SERIAL = Execution(workers=0)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four miniature twins."""
    few = {"imagenet_a_val": 20, "imagenet_r_val": 20, "imagenet_sketch_val": 20}
    return draw(tmp_path_factory.mktemp("sets"), **few, imagenet_c_val=2)


@pytest.fixture(scope="module")
def runs(world: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two short runs; for reading only."""
    out = tmp_path_factory.mktemp("runs")
    common = {"data": world / "imagenet1k", "out": out, **SMALL}
    keeping = Execution(save_logits=True)
    mae_bench.transfer(protocol="scratch", name="scratch", seed=3, execution=keeping, **common)
    checkpoint = pretrained / "backbone.safetensors"
    mae_bench.transfer(protocol="linear", name="linear", checkpoint=checkpoint, **common)
    return out


def evaluate(run: Path, on: str, out: Path, data: Path, **more: object) -> Record:
    return mae_bench.evaluate(run, on, data / on, out=out, **{"execution": SERIAL, **more})


@pytest.mark.parametrize("protocol", ["scratch", "linear"])
def test_the_same_images_score_the_same(protocol, runs, world, tmp_path):
    """The model is rebuilt to the bit: so are predictions and intervals."""
    record = evaluate(runs / protocol, "imagenet1k", tmp_path, world)
    before = read_run(runs / protocol).record
    assert record.metrics == before.metrics
    assert record.intervals == before.intervals
    assert record.protocol == before.protocol
    folders = (tmp_path / record.name, runs / protocol)
    ours, theirs = (pd.read_csv(folder / "predictions.csv") for folder in folders)
    assert ("val/" + ours.file).equals(theirs.file)
    assert ours.drop(columns="file").equals(theirs.drop(columns="file"))
    assert rescore(runs / protocol / "predictions.csv").metrics == before.metrics


def test_transfer_keeps_logits_if_asked(runs):
    kept = load_file(runs / "scratch" / "logits.safetensors")
    table = pd.read_csv(runs / "scratch" / "predictions.csv")
    assert kept["targets"].tolist() == list(table.target)
    assert kept["logits"].argmax(1).tolist() == list(table.class_1)
    assert not (runs / "linear" / "logits.safetensors").exists()


def timm_logits(folder: Path, images: torch.Tensor) -> torch.Tensor:
    """What timm's ViT makes of the run's weights."""
    size = backbones.size_of("vit_mini")
    twin = VisionTransformer(
        img_size=32,
        patch_size=size.patch_size,
        embed_dim=size.embed_dim,
        depth=size.depth,
        num_heads=size.num_heads,
        num_classes=10,
        global_pool="avg",
    ).eval()
    weights = load_file(folder / "model.safetensors")
    named = {key.removeprefix("backbone."): value for key, value in weights.items()}
    twin.load_state_dict({key.replace("head.0.", "head."): named[key] for key in named})
    with torch.no_grad():
        return twin(images)


@pytest.mark.parametrize("on", ["imagenet_a", "imagenet_r", "imagenet_sketch"])
def test_scores_are_those_of_timm_and_torchvision(on, runs, sets, tmp_path):
    """From their image folder and their ViT, with the classes of the set alone or all ten."""
    shrink = transforms.Resize(36, transforms.InterpolationMode.BICUBIC)
    normal = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    steps = [shrink, transforms.CenterCrop(32), transforms.ToTensor(), normal]
    inner = {"imagenet_sketch": "sketch"}.get(on, "")
    folder = ImageFolder(str(sets / on / inner), transform=transforms.Compose(steps))
    logits = timm_logits(runs / "scratch", torch.stack([image for image, _ in folder]))
    wnids = (runs / "scratch" / "classes.txt").read_text().split()
    own = [wnids.index(wnid) for wnid in folder.classes]
    assert len(own) == (10 if on == "imagenet_sketch" else 5)
    right = logits[:, own].argmax(1) == torch.tensor(folder.targets)
    record = evaluate(runs / "scratch", on, tmp_path, sets)
    assert record.metrics["top1"] == pytest.approx(100 * right.double().mean().item())
    assert ("top5" in record.metrics) == (on == "imagenet_sketch")
    table = pd.read_csv(tmp_path / record.name / "predictions.csv")
    assert list(table.class_1) == [own[i] for i in logits[:, own].argmax(1)]


def test_imagenet_c_is_recorded(runs, sets, tmp_path):
    record = evaluate(runs / "scratch", "imagenet_c", tmp_path, sets)
    assert record.metrics.keys() == record.intervals.keys() == {"top1", "mce"}
    assert record.data.val_images == 150
    table = pd.read_csv(tmp_path / "scratch-imagenet_c" / "predictions.csv")
    right = table.target == table.class_1
    assert record.metrics["top1"] == pytest.approx(100 * right.mean())
    errors = pd.read_csv(tmp_path / "scratch-imagenet_c" / "per_corruption.csv")
    assert record.metrics["mce"] == pytest.approx(np.mean(errors.corruption_error[:-1]))


def test_the_record_joins_the_tables(runs, sets, tmp_path, capsys):
    record = evaluate(runs / "linear", "imagenet_r", tmp_path, sets)
    source = read_run(runs / "linear").record
    assert record.name == "linear-imagenet_r"
    assert (record.protocol, record.task) == ("imagenet_r/linear@1", "imagenet_r")
    for same in ("kind", "backbone", "init", "checkpoint", "recipe", "recipe_hash", "seed"):
        assert getattr(record, same) == getattr(source, same), same
    assert record.deviations == source.deviations
    data = record.data
    assert (data.name, data.train_images, data.val_images) == ("imagenet_r", 0, 20)
    assert (data.classes, data.miniature, data.standard) == (5, True, False)
    assert record.started >= source.finished
    assert "imagenet_r/linear@1, run linear: top1" in capsys.readouterr().out
    assert read_records(tmp_path)[0] == [record]
    assert mae_bench.report(tmp_path)


def test_beside_the_run_by_default(runs, sets, tmp_path):
    shutil.copytree(runs / "scratch", tmp_path / "mine")
    record = mae_bench.evaluate(tmp_path / "mine", "imagenet_a", sets / "imagenet_a")
    assert record.name == "mine-imagenet_a"
    assert (tmp_path / "mine-imagenet_a" / "record.json").exists()


def test_a_finished_evaluation_is_not_repeated(runs, sets, tmp_path, capsys):
    first = evaluate(runs / "scratch", "imagenet_a", tmp_path, sets)
    file = tmp_path / first.name / "predictions.csv"
    before = file.stat().st_mtime_ns
    assert evaluate(runs / "scratch", "imagenet_a", tmp_path, sets) == first
    assert file.stat().st_mtime_ns == before
    assert "is finished; nothing to do" in capsys.readouterr().out


def test_a_folder_belongs_to_one_evaluation(runs, sets, tmp_path):
    evaluate(runs / "scratch", "imagenet_a", tmp_path, sets, name="one")
    with pytest.raises(RunError, match=r"holds a different run \(.*limit None there, 5 here"):
        evaluate(runs / "scratch", "imagenet_a", tmp_path, sets, name="one", limit=5)
    with pytest.raises(RunError, match=r"holds a different run \(.*weights"):
        evaluate(runs / "linear", "imagenet_a", tmp_path, sets, name="one")
    with pytest.raises(RunError, match="holds a different run"):
        evaluate(runs / "scratch", "imagenet_a", runs, sets, name="linear")
    with pytest.raises(RunError, match="expected the name of one folder"):
        evaluate(runs / "scratch", "imagenet_a", tmp_path, sets, name="a/b")


def test_limit_marks_the_record(runs, sets, tmp_path):
    record = evaluate(runs / "scratch", "imagenet_sketch", tmp_path, sets, limit=4)
    assert "limited to 4 test images" in record.deviations
    assert record.data.val_images == 4
    record = evaluate(runs / "scratch", "imagenet_c", tmp_path, sets, limit=1)
    assert record.deviations[-1] == "limited to 1 test images of each corruption and severity"
    assert record.data.val_images == 75


def test_what_a_run_was_trained_on_is_not_lost(runs, sets, tmp_path):
    """The record tells of the test set's data; that the training set was a part, it must say."""
    shutil.copytree(sets / "imagenet_a", tmp_path / "imagenet_a")  # no miniature world's any more
    record = evaluate(runs / "scratch", "imagenet_a", tmp_path / "out", tmp_path)
    assert not record.data.miniature
    assert "trained on 48 images of imagenet1k, not the official set" in record.deviations
    assert not record.comparable


def test_the_normalisation_of_the_run(runs, tmp_path):
    """The weights' file tells what to take out of the images."""
    folder = shutil.copytree(runs / "scratch", tmp_path / "run")
    file = folder / "model.safetensors"
    with safe_open(file, "pt") as opened:
        said = opened.metadata()
    anatomy = json.loads(said["anatomy"])
    assert anatomy["mean"] == [0.485, 0.456, 0.406]
    anatomy |= {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    save_file(load_file(file), file, said | {"anatomy": json.dumps(anatomy)})
    model = read_run(folder).model()
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 32, 32)
    assert model.normalise(images)[:, 0, 0, 0].tolist() == [-1, 1]


def test_the_anatomy_of_the_run():
    """A backbone that is no MAE's: layer scale, tables of relative position, two heads, BEiT's
    normalisation."""
    anatomy = backbones.Anatomy(
        num_heads=2,
        norm_eps=1e-5,
        layer_scale=0.1,
        absolute_position=False,
        relative_position=True,
    )
    vit = backbones.create("vit_mini", image_size=32, anatomy=anatomy)
    vit.pixel_mean = vit.pixel_std = (0.5, 0.5, 0.5)
    again = rebuild("vit_mini", {"image_size": 32}, anatomy_metadata(vit))
    assert again.anatomy == anatomy
    assert again.pixel_mean == again.pixel_std == (0.5, 0.5, 0.5)
    again.load_state_dict(vit.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.eval()(images), vit.eval()(images))


def test_logits_of_the_set(runs, sets, tmp_path):
    keeping = Execution(workers=0, save_logits=True)
    record = evaluate(runs / "scratch", "imagenet_a", tmp_path, sets, execution=keeping)
    assert load_file(tmp_path / record.name / "logits.safetensors")["logits"].shape == (20, 10)
    with pytest.raises(RunError, match=r"--save-logits: there are no logits"):
        evaluate(runs / "scratch", "imagenet_c", tmp_path, sets, execution=keeping)
    assert not (tmp_path / "scratch-imagenet_c").exists()


def spoil(folder: Path, what: str) -> None:
    record = json.loads((folder / "record.json").read_text())
    match what:
        case "unfinished" | "weights" | "classes":
            names = {"unfinished": "record.json", "weights": "model.safetensors"}
            (folder / names.get(what, "classes.txt")).unlink()
        case "torn":
            (folder / "record.json").write_text("{")
        case "task":
            record["task"], record["protocol"] = "places365", "places365/finetune@1"
        case "pretraining":
            record["kind"] = "pretrain"
        case "incomplete":
            record["complete"] = False
        case "recipe":
            record["recipe"]["label_smoothing"] = 0.3
        case "field":
            del record["recipe"]["pooling"]
        case "short":
            lines = (folder / "classes.txt").read_text().splitlines(keepends=True)
            (folder / "classes.txt").write_text("".join(lines[:-1]))
        case "cut":
            file = folder / "model.safetensors"
            file.write_bytes(file.read_bytes()[:-100])
    if what not in ("unfinished", "torn"):
        (folder / "record.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("unfinished", "has no record.json, so it is not finished; expected"),
        ("torn", r"record.json: damaged \(.*\); expected the folder of a finished imagenet1k run"),
        ("weights", "run has left no model.safetensors; expected the folder of a finished"),
        ("classes", "run has left no classes.txt; expected the folder of a finished"),
        ("task", "is places365/finetune@1 on imagenet1k; expected the folder of a finished"),
        ("pretraining", "expected the folder of a finished imagenet1k run"),
        ("incomplete", "expected the folder of a finished imagenet1k run"),
        ("recipe", "is not of a classifier that this version of mae-bench trains"),
        ("field", "is not of a classifier that this version of mae-bench trains"),
        ("short", r"does not fit vit_mini: shapes head.0.bias \(10,\) for \(9,\)"),
        ("cut", "model.safetensors: truncated or no safetensors"),
    ],
)
def test_a_run_that_cannot_be_evaluated(what, told, runs, sets, tmp_path):
    folder = shutil.copytree(runs / "scratch", tmp_path / "run")
    spoil(folder, what)
    with pytest.raises((RunError, backbones.BackboneError), match=told) as error:
        evaluate(folder, "imagenet_a", tmp_path / "out", sets)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_what_is_no_test_set(runs, sets, tmp_path):
    with pytest.raises(TaskError, match="unknown test set 'imagenet-a'; did you mean imagenet_a"):
        mae_bench.evaluate(runs / "scratch", "imagenet-a", sets / "imagenet_a")
    with pytest.raises(RunError, match=r"run .*none: no such folder; expected the folder of a"):
        mae_bench.evaluate(runs / "none", "imagenet_a", sets / "imagenet_a")
    with pytest.raises(RunError, match=r"--data .*none: no such folder; expected the imagenet_a"):
        mae_bench.evaluate(runs / "scratch", "imagenet_a", sets / "none")
    other = tmp_path / "imagenet_a" / "n77777777"
    other.mkdir(parents=True)
    shutil.copy(next((sets / "imagenet_a").rglob("*.jpg")), other)
    with pytest.raises(TaskError, match="none of the model's 10 classes: n77777777"):
        evaluate(runs / "scratch", "imagenet_a", tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_transfer_refuses_to_keep_logits_that_are_none(coco_world, tmp_path, capsys):
    argv = ["transfer", "--task", "coco", "--init", "scratch", "--save-logits"]
    argv += ["--data", str(coco_world / "coco"), "--out", str(tmp_path / "runs")]
    assert call(argv) == 2
    assert "--save-logits: there are no logits" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_command(runs, sets, tmp_path, capsys):
    argv = ["evaluate", str(runs / "scratch"), "--on", "imagenet_a", "--workers", "0"]
    where = ["--data", str(sets / "imagenet_a"), "--out", str(tmp_path)]
    assert call([*argv, *where, "--name", "here"]) == 0
    assert "imagenet_a/scratch@1, run scratch: top1" in capsys.readouterr().out
    assert (tmp_path / "here" / "record.json").exists()
    assert call(["evaluate", str(tmp_path / "none"), "--on", "imagenet_a"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mae-bench: error: run ")
    assert said.count("\n") == 1
    assert call(["evaluate", "--on", "imagenet_a"]) == 2
    assert "RUN" in capsys.readouterr().err
