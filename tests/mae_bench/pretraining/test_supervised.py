"""`pretrain --method supervised` is training from scratch, and both serve as weights."""

from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file
from small_runs import SMALL, flags

import backbones
from mae_bench import pretrain, transfer
from mae_bench.cli import call
from results import Record

KNN = {"protocol": "knn", "neighbours": (2,), "headline_neighbours": 2}


@pytest.fixture(scope="module")
def both(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record, Record]:
    """Where the runs lie: one by each command, of the same numbers."""
    out = tmp_path_factory.mktemp("supervised")
    how = {"data": world / "imagenet1k", "out": out, "seed": 3, **SMALL}
    made = pretrain(method="supervised", **how)
    return out, made, transfer("imagenet1k", "vit_mini", "scratch", name="scratch", **how)


def test_it_is_training_from_scratch_to_the_bit(both) -> None:
    out, made, scratch = both
    assert made.name == "pretrain-supervised-vit_mini-seed3"
    ours, theirs = (load_file(out / r.name / "model.safetensors") for r in (made, scratch))
    assert ours.keys() == theirs.keys()
    assert all(value.equal(theirs[key]) for key, value in ours.items())
    assert {"top1", "top5", "per_class"} <= made.metrics.keys()
    assert {k: made.metrics[k] for k in scratch.metrics} == scratch.metrics
    assert made.kind == "pretrain"
    assert made.protocol == "pretrain/supervised@1"
    numbers = {k: v for k, v in made.recipe.items() if k != "protocol"}
    assert numbers == {k: v for k, v in scratch.recipe.items() if k != "protocol"}


def test_the_encoder_is_the_classifiers_backbone(both) -> None:
    out, made, _ = both
    kept = load_file(out / made.name / "backbone.safetensors")
    whole = load_file(out / made.name / "model.safetensors")
    fitting = {k.removeprefix("backbone."): v for k, v in whole.items() if "head" not in k}
    assert kept.keys() == fitting.keys()
    vit, report = backbones.load("vit_mini", out / made.name / "backbone.safetensors", 32)
    assert report.coverage == 1
    assert all(v.equal(kept[k]) for k, v in vit.state_dict().items() if k in kept)


@pytest.mark.parametrize("which", [1, 2])
def test_what_starts_from_it_is_called_supervised(both, which, world: Path, tmp_path: Path) -> None:
    """A run of `transfer --protocol scratch` as well."""
    run = both[which]
    data = world / "imagenet1k"
    record = transfer(checkpoint=both[0] / run.name, data=data, out=tmp_path, **KNN)
    assert record.init == "supervised"
    assert record.checkpoint is not None
    assert record.checkpoint.is_traced
    assert record.checkpoint.recipe_hash == run.recipe_hash
    assert record.checkpoint.data is not None
    assert record.checkpoint.data.fingerprint == run.data.fingerprint
    assert record.checkpoint.seed == 3


def test_other_trained_classifiers_are_not(both, world: Path, tmp_path: Path) -> None:
    data, weights = world / "imagenet1k", both[0] / both[1].name
    how = {"data": data, "out": tmp_path, "checkpoint": weights, **SMALL}
    record = transfer("imagenet1k", protocol="finetune", name="tuned", **how)
    with safe_open(tmp_path / record.name / "model.safetensors", "pt") as file:
        assert "method" not in file.metadata()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"data": "unlabelled"}, "expected"),
        ({"checkpoint": "x.pth"}, "--checkpoint: --method supervised starts from random weights"),
        ({"mask_ratio": 0.5}, "pretrain --method mae would"),
        ({"mixup": -1}, "recipe field mixup is -1.0; expected at least 0"),
        ({"data": "nowhere"}, "no such folder"),
    ],
)
def test_what_does_not_fit_is_one_line(words, said, world: Path, tmp_path: Path, capsys) -> None:
    given = {"data": "imagenet1k"} | words
    given["data"] = str(world / given["data"])
    argv = ["pretrain", "--method", "supervised", *flags(out=tmp_path, **given)]
    assert call(argv) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
