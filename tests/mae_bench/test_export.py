"""`mae-bench export`: what other libraries read gives the run's own predictions."""

import json
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from PIL import Image
from small_runs import SMALL_CLASSIFIER

import mae_bench
from mae_bench.cli import call
from tasks.images import eval_crop


@pytest.fixture
def image(world: Path) -> Path:
    return sorted((world / "imagenet1k" / "val").rglob("*.JPEG"))[0]


def predicted(run: Path, image: Path, tmp_path: Path) -> np.ndarray:
    """The run's five largest probabilities for an image, as `predict` says."""
    (row,) = mae_bench.predict(run, image, tmp_path / "predicted")
    return np.array([each["probability"] for each in row["classes"]])


def best(logits: torch.Tensor) -> np.ndarray:
    return logits.softmax(1).topk(5).values[0].detach().numpy()


def test_timm_reads_the_model_and_its_transform(classifier, image, tmp_path, capsys):
    import timm

    place = tmp_path / "timm"
    assert call(["export", str(classifier), "--to", "timm", "--output", str(place)]) == 0
    assert f'timm.create_model("local-dir:{place}", pretrained=True)' in capsys.readouterr().out
    model = timm.create_model(f"local-dir:{place}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    found = best(model(transform(Image.open(image).convert("RGB"))[None]))
    assert found == pytest.approx(predicted(classifier, image, tmp_path), abs=2e-3)
    names = json.loads((place / "config.json").read_text())["label_names"]
    assert names == (classifier / "classes.txt").read_text().splitlines()


def test_transformers_reads_the_model_and_its_processor(
    classifier,
    image,
    tmp_path,
):
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    place = mae_bench.export(classifier, "hf", tmp_path / "hf")
    model = AutoModelForImageClassification.from_pretrained(place).eval()
    processor = AutoImageProcessor.from_pretrained(place)
    pixels = processor(Image.open(image).convert("RGB"), return_tensors="pt")
    found = best(model(**pixels).logits)
    assert found == pytest.approx(predicted(classifier, image, tmp_path), abs=5e-3)
    first = (classifier / "classes.txt").read_text().splitlines()[0]
    assert model.config.id2label[0] == first


@pytest.mark.parametrize("to", ["torch", "onnx"])
def test_a_program_takes_any_number_of_images(to, classifier, image, tmp_path):
    place = mae_bench.export(classifier, to, tmp_path / to)
    how = json.loads((place / "preprocessing.json").read_text())
    assert (how["resize_shorter_side"], how["center_crop"]) == (36, 32)
    images = torch.stack([eval_crop(image, 32, 0.875)] * 3)
    if to == "torch":
        logits = torch.export.load(place / "model.pt2").module()(images)
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(place / "model.onnx")
        (name,) = [each.name for each in session.get_inputs()]
        logits = torch.from_numpy(session.run(None, {name: images.numpy()})[0])
    assert logits.shape == (3, 10)
    expected = predicted(classifier, image, tmp_path)
    assert best(logits) == pytest.approx(expected, abs=1e-5)


def test_the_batch_norm_of_a_linear_probe_goes_into_its_layer(world, pretrained, tmp_path, image):
    """And its class token is what timm reads too."""
    import timm

    how: dict[str, Any] = {**SMALL_CLASSIFIER, "protocol": "linear", "checkpoint": pretrained}
    mae_bench.transfer(data=world / "imagenet1k", out=tmp_path, **how)
    place = mae_bench.export(tmp_path / "run", "timm", tmp_path / "timm")
    model = timm.create_model(f"local-dir:{place}", pretrained=True).eval()
    assert model.global_pool == "token"
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ))  # fmt: skip
    pixels = (eval_crop(image, 32, 0.875) / 255 - mean) / std
    expected = predicted(tmp_path / "run", image, tmp_path)
    assert best(model(pixels[None])) == pytest.approx(expected, abs=1e-4)


def test_what_gives_other_logits_is_not_kept(classifier, tmp_path, monkeypatch, capsys):
    from tasks.classification import exporting

    real = exporting.write_timm

    def slip(model, classes, folder):
        how, predict = real(model, classes, folder)
        return how, lambda images: predict(images) + 0.01

    monkeypatch.setitem(exporting.WRITERS, "timm", slip)
    argv = ["export", str(classifier), "--to", "timm", "--output", str(tmp_path / "x")]
    assert call(argv) == 2
    assert "gives other logits" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lacking", ["onnxscript", "onnxruntime"])
def test_the_extra_for_onnx_is_named(classifier, tmp_path, monkeypatch, capsys, lacking):
    monkeypatch.setitem(sys.modules, lacking, None)
    argv = ["export", str(classifier), "--to", "onnx", "--output", str(tmp_path / "x")]
    assert call(argv) == 2
    complaint = capsys.readouterr().err
    assert "pip install 'mae-bench[onnx]'" in complaint
    assert complaint.count("\n") == 1
    assert not list(tmp_path.iterdir())
    settings = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    extra = settings["project"]["optional-dependencies"]["onnx"]
    assert {Requirement(line).name for line in extra} == {"onnx", "onnxscript", "onnxruntime"}


def test_bad_input_is_one_line(classifier, tmp_path, capsys):
    there = tmp_path / "there"
    there.mkdir()
    assert call(["export", str(classifier), "--to", "hf", "--output", str(there)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert call(["export", str(tmp_path / "no"), "--to", "hf"]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert call(["export", str(classifier), "--to", "tensorflow"]) == 2
    assert "--to" in capsys.readouterr().err
    shutil.rmtree(there)
