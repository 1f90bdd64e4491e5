"""`mae-bench evaluate FILE`: classifiers that somebody else trained, against timm's own answers."""

import json
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from small_worlds import draw

from mae_bench.cli import call
from mae_bench.released import imagenet_wnids
from tasks.images import eval_crop

SHAPE = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4}
MEAN, STD = (torch.tensor(c).view(3, 1, 1) for c in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = {"imagenet1k_train": 10, "imagenet1k_val": 30, "imagenet_a_val": 10}
    return draw(tmp_path_factory.mktemp("sets"), **few)


@pytest.fixture
def classes(sets: Path, tmp_path: Path) -> Path:
    """Not in sorted order: the file decides."""
    file = tmp_path / "classes.txt"
    names = sorted(folder.name for folder in (sets / "imagenet1k" / "val").iterdir())
    file.write_text("".join(f"{name}\n" for name in reversed(names)))
    return file


def classifier(pool: str, outputs: int = 10) -> torch.nn.Module:
    torch.manual_seed(0)
    vit = timm.models.VisionTransformer(**SHAPE, global_pool=pool, num_classes=outputs)
    for weight in vit.head.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return vit.eval()


def run(file: Path, on: str, sets: Path, out: Path, *more: str) -> int:
    words = ["--on", on, "--data", str(sets / on), "--out", str(out), "--workers", "0"]
    return call(["evaluate", str(file), *words, *more])


@torch.no_grad()
@pytest.mark.parametrize("pool", ["avg", "token"])  # MAE's fine-tuned models; DeiT's
def test_answers_are_the_classifiers_own(pool, sets, classes, tmp_path):
    theirs, file = classifier(pool), tmp_path / f"{pool}.pth"
    torch.save({"model": theirs.state_dict()}, file)
    flags = ["--backbone", "vit_mini", "--classes", str(classes), "--init", "mae"]
    assert run(file, "imagenet1k", sets, tmp_path, *flags) == 0
    folder = tmp_path / f"{pool}-imagenet1k"
    table = pd.read_csv(folder / "predictions.csv")
    wnids = classes.read_text().split()
    images = [eval_crop(sets / "imagenet1k" / "val" / name, 32, 0.875) for name in table.file]
    logits = theirs((torch.stack(images) / 255 - MEAN) / STD)
    assert logits.argmax(dim=1).tolist() == table.class_1.tolist()
    assert [wnids[target] for target in table.target] == [n.split("/")[0] for n in table.file]
    record = json.loads((folder / "record.json").read_text())
    right = (logits.argmax(dim=1).numpy() == table.target.to_numpy()).mean()
    assert record["metrics"]["top1"] == pytest.approx(100 * right, abs=1e-9)
    assert (record["protocol"], record["init"]) == ("imagenet1k/released@1", "mae")
    assert record["recipe"]["pooling"] == {"avg": "patches", "token": "cls"}[pool]
    assert record["deviations"] == []


def test_on_another_set(sets, classes, tmp_path):
    file = tmp_path / "x.pth"
    torch.save(classifier("avg").state_dict(), file)
    flags = ["--backbone", "vit_mini", "--classes", str(classes)]
    assert run(file, "imagenet_a", sets, tmp_path, *flags) == 0
    record = json.loads((tmp_path / "x-imagenet_a" / "record.json").read_text())
    assert (record["protocol"], record["task"]) == ("imagenet_a/released@1", "imagenet_a")


def test_what_is_refused(sets, classes, tmp_path, capsys):
    file, headless = tmp_path / "x.pth", tmp_path / "headless.pth"
    torch.save(classifier("avg").state_dict(), file)
    torch.save(classifier("token", 0).state_dict(), headless)
    named = ["--backbone", "vit_mini", "--classes", str(classes)]
    for source, more, told in (
        (file, [], "is a file: expected its size too, for example --backbone vit_b"),
        (file, named[:2], "its head has 10 outputs; expected 1000, for the classes of ImageNet-1k"),
        (headless, named, "has no head.weight and no head.bias, so it is no classifier"),
        (file, [*named[:3], str(tmp_path / "none")], "No such file"),
        (file, ["--backbone", "vit_t", *named[2:]], "vit_mini"),
        (tmp_path, named, "--backbone, --classes: for a file; the run in"),
    ):
        assert run(source, "imagenet1k", sets, tmp_path / "out", *more) == 2, told
        said = capsys.readouterr().err
        assert told in said
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_imagenets_classes_are_in_order():
    wnids = imagenet_wnids()
    assert len(wnids) == len(set(wnids)) == 1000
    assert wnids == sorted(wnids)
