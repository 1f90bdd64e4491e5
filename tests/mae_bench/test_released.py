"""`mae-bench evaluate FILE`: classifiers that somebody else trained, against timm's own answers."""

import json
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
import torchvision
import transformers
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


def test_a_classifier_that_was_never_trained_is_refused(sets, classes, tmp_path, capsys):
    """Its score would be that of one class."""
    theirs, file = classifier("token"), tmp_path / "x.pth"
    torch.nn.init.zeros_(theirs.head.weight)
    torch.save(theirs.state_dict(), file)
    assert run(file, "imagenet1k", sets, tmp_path / "out", "--classes", str(classes),
               "--backbone", "vit_mini") == 2  # fmt: skip
    assert "its classifier head.weight holds nothing but zeros" in capsys.readouterr().err


def test_classes_in_another_order_than_the_configurations_are_refused(
    sets, classes, tmp_path, capsys
):
    flags = ["--backbone", "vit_mini", "--init", "x", "--classes", str(classes)]
    wnids, file = classes.read_text().split(), tmp_path / "a" / "model.safetensors"
    file.parent.mkdir()
    of_transformers(tmp_path, file)
    config = file.with_name("config.json")
    content = json.loads(config.read_text())
    for order, code in ((sorted(wnids), 2), (wnids, 0)):
        content["id2label"] = dict(enumerate(order))
        config.write_text(json.dumps(content))
        assert run(file, "imagenet1k", sets, tmp_path / f"{code}", *flags) == code
        said = f"output 0 is {order[0]!r} there and {wnids[0]!r} here"
        assert (said in capsys.readouterr().err) == bool(code)
    theirs, plain = classifier("token"), tmp_path / "b" / "x.pth"
    plain.parent.mkdir()
    torch.save(theirs.state_dict(), plain)
    config = plain.with_name("config.json")
    config.write_text(json.dumps({"label_names": sorted(wnids), "pretrained_cfg": {}}))
    assert run(plain, "imagenet1k", sets, tmp_path / "timm", *flags) == 2
    assert "has the classes in another order than" in capsys.readouterr().err


def test_imagenets_classes_are_in_order():
    wnids = imagenet_wnids()
    assert len(wnids) == len(set(wnids)) == 1000
    assert wnids == sorted(wnids)


def ddp(folder, file):
    """As MoCo v3's linear classifiers were saved."""
    theirs = classifier("token")
    state = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({"state_dict": state}, file)
    return theirs, (MEAN, STD)


def linear_probe(folder, file):
    """MAE's main_linprobe.py: a batch norm without weights before the classifier."""
    theirs = classifier("token")
    norm = torch.nn.BatchNorm1d(128, affine=False, eps=1e-6)
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    theirs.head = torch.nn.Sequential(norm, theirs.head).eval()
    torch.save({"model": theirs.state_dict()}, file)
    return theirs, (MEAN, STD)


def of_transformers(folder, file):
    shape = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    shape |= {"intermediate_size": 512, "image_size": 32, "patch_size": 8, "num_labels": 10}
    theirs = transformers.ViTForImageClassification(transformers.ViTConfig(**shape)).eval()
    torch.nn.init.normal_(theirs.classifier.weight)
    theirs.save_pretrained(folder / "hf")
    (folder / "hf" / "model.safetensors").rename(file)
    (folder / "hf" / "config.json").rename(file.with_name("config.json"))
    return lambda images: theirs(images).logits, (torch.tensor(0.5), torch.tensor(0.5))


def of_torchvision(folder, file):
    theirs = torchvision.models.VisionTransformer(32, 8, 4, 4, 128, 512, num_classes=10).eval()
    torch.nn.init.normal_(theirs.heads.head.weight)
    torch.save(theirs.state_dict(), file)
    return theirs, (MEAN, STD)


@torch.no_grad()
@pytest.mark.parametrize("write", [ddp, linear_probe, of_transformers, of_torchvision])
def test_classifiers_by_other_names(write, sets, classes, tmp_path):
    torch.manual_seed(1)
    file = tmp_path / "given.bin"
    theirs, (mean, std) = write(tmp_path, file)
    flags = ["--backbone", "vit_mini", "--classes", str(classes), "--init", "x"]
    assert run(file, "imagenet1k", sets, tmp_path / "out", *flags) == 0
    table = pd.read_csv(tmp_path / "out" / "given-imagenet1k" / "predictions.csv")
    images = [eval_crop(sets / "imagenet1k" / "val" / name, 32, 0.875) for name in table.file]
    logits = theirs((torch.stack(images) / 255 - mean) / std)
    assert logits.argmax(dim=1).tolist() == table.class_1.tolist()
    assert len(set(table.class_1)) > 1


@torch.no_grad()
def test_tested_at_its_own_size_unless_a_flag_says_otherwise(sets, classes, tmp_path):
    theirs, file = timm.models.VisionTransformer(**SHAPE | {"img_size": 64}, num_classes=10), None
    torch.nn.init.normal_(theirs.eval().head.weight)
    file = tmp_path / "large.pth"
    torch.save(theirs.state_dict(), file)
    flags = ["--backbone", "vit_mini", "--classes", str(classes), "--init", "x"]
    assert run(file, "imagenet1k", sets, tmp_path, *flags) == 0
    table = pd.read_csv(tmp_path / "large-imagenet1k" / "predictions.csv")
    images = [eval_crop(sets / "imagenet1k" / "val" / name, 64, 0.875) for name in table.file]
    logits = theirs((torch.stack(images) / 255 - MEAN) / STD)
    assert logits.argmax(dim=1).tolist() == table.class_1.tolist()
    record = json.loads((tmp_path / "large-imagenet1k" / "record.json").read_text())
    assert (record["recipe"]["image_size"], record["deviations"]) == (64, [])
    assert any("a test crop of 0.875" in what for what in record["checkpoint"]["assumed"])
    more = ["--image-size", "32", "--test-crop-ratio", "1", "--name", "small"]
    assert run(file, "imagenet1k", sets, tmp_path, *flags, *more) == 0
    record = json.loads((tmp_path / "small" / "record.json").read_text())
    assert record["deviations"] == ["image_size 64 -> 32"]
    assert record["recipe"]["test_crop_ratio"] == 1
    assert not any("crop" in what for what in record["checkpoint"]["assumed"])
