"""Probes from the command line to the record."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from small_runs import flags

import backbones
import mae_bench
from mae_bench.cli import call
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.run.files import BACKBONE_FILE
from mae_bench.transfer import MODEL_FILE
from tasks.classification import probe
from tasks.classification.layout import read
from tasks.errors import TaskError
from tasks.images import eval_crop

ALONE = Execution(workers=0)
NEIGHBOURS = {"neighbours": (5, 20), "headline_neighbours": 20}


def run(world: Path, pretrained: Path, out: Path, protocol: str, **changes):
    given = NEIGHBOURS if protocol == "knn" else {}
    common = {"data": world / "imagenet1k", "out": out, "execution": ALONE}
    common["checkpoint"] = pretrained / BACKBONE_FILE
    return mae_bench.transfer(protocol=protocol, **common | given | changes)


def feature_files(out: Path) -> list[str]:
    return sorted(file.name for file in (out / "features").glob("*.safetensors"))


def test_both_probes_on_one_extraction(world, pretrained, tmp_path, capsys):
    knn = run(world, pretrained, tmp_path, "knn")
    assert "features of" not in capsys.readouterr().out
    files = feature_files(tmp_path)
    assert len(files) == 2
    assert knn.protocol == "imagenet1k/knn@1"
    assert knn.metrics.keys() == {
        *("top1", "top5", "per_class", "top1_k5", "top1_k5_majority", "top1_k20_majority")
    }
    assert knn.intervals.keys() == knn.metrics.keys()
    assert knn.deviations == ["neighbours (10, 20, 100, 200) -> (5, 20)"]
    folder = tmp_path / knn.name
    assert not (folder / MODEL_FILE).exists()
    assert (folder / "predictions.csv").exists()

    logistic = run(world, pretrained, tmp_path, "logistic")
    said = capsys.readouterr().out
    assert "features of 48 train images" in said
    assert "features of 24 val images" in said
    assert "l2 0.001: held-out top-1 " in said
    assert feature_files(tmp_path) == files
    assert logistic.deviations == []
    assert logistic.checkpoint == knn.checkpoint
    assert logistic.cost.seconds > 0
    folder = tmp_path / logistic.name
    assert f"weights    {folder / MODEL_FILE}" in said
    with safe_open(folder / MODEL_FILE, framework="pt") as opened:
        assert opened.metadata()["protocol"] == "imagenet1k/logistic@1"
        assert opened.get_tensor("head.1.weight").shape == (10, 128)
    mae_bench.report(tmp_path)  # to which the folder of features is no run
    assert "features" not in capsys.readouterr().out


def test_the_same_call_again_and_an_interrupted_one(
    world, pretrained, tmp_path, capsys, monkeypatch
):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(probe, "score_neighbours", stop)
        with pytest.raises(KeyboardInterrupt):
            run(world, pretrained, tmp_path, "knn")
    capsys.readouterr()
    record = run(world, pretrained, tmp_path, "knn")
    assert "features of 48 train images" in capsys.readouterr().out
    assert run(world, pretrained, tmp_path, "knn") == record
    assert "nothing to do" in capsys.readouterr().out


def test_random_features_are_to_be_asked_for(world, pretrained, tmp_path):
    data, out = world / "imagenet1k", tmp_path / "runs"
    with pytest.raises(
        RunError, match=r"--protocol knn needs --checkpoint FILE: .* --init scratch"
    ):
        mae_bench.transfer(protocol="knn", data=data, out=out, **NEIGHBOURS)
    with pytest.raises(RunError, match="--init scratch starts from random weights; leave out"):
        run(world, pretrained, out, "knn", init="scratch")
    assert not out.exists()
    record = mae_bench.transfer(
        protocol="knn", data=data, out=out, init="scratch", execution=ALONE, **NEIGHBOURS
    )
    assert record.init == "scratch"
    assert record.checkpoint is None
    other = mae_bench.transfer(
        protocol="knn", data=data, out=out, init="scratch", seed=1, execution=ALONE, **NEIGHBOURS
    )
    assert len(feature_files(out)) == 4
    assert other.name != record.name


def test_a_linear_probe_says_scratch_by_its_protocol(world, tmp_path):
    with pytest.raises(RunError, match="to start from random weights: --protocol scratch"):
        mae_bench.transfer(
            protocol="linear", data=world / "imagenet1k", init="scratch", out=tmp_path
        )


def test_the_features_are_those_of_the_checkpoint(world, pretrained, tmp_path):
    """The class token of a test image, by hand."""
    run(world, pretrained, tmp_path, "knn")
    vit, _ = backbones.load("vit_mini", pretrained / BACKBONE_FILE, image_size=32)
    (file,) = (tmp_path / "features").glob("*-val-*.safetensors")
    with safe_open(file, framework="pt") as opened:
        values = opened.get_tensor("values")
    data = read("imagenet1k", world / "imagenet1k")
    image = eval_crop(data.val.path(7), 32, 0.875).float().div(255)
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in (vit.pixel_mean, vit.pixel_std))
    with torch.no_grad():
        token = vit.eval()(((image - mean) / std)[None])[0, 0]
    torch.testing.assert_close(values[7], token, rtol=1e-4, atol=1e-5)


def test_limit_and_no_convergence_mark_the_record(world, pretrained, tmp_path, capsys):
    record = run(world, pretrained, tmp_path, "logistic", limit=20, l2=(1e-3,), max_iter=1)
    assert "limited to 20 images" in record.deviations
    assert any("logistic regression not converged" in each for each in record.deviations)
    assert "note: logistic regression not converged" in capsys.readouterr().out
    assert record.data.train_images == 20


def test_unreadable_images_are_counted(world, pretrained, tmp_path):
    data = tmp_path / "data" / "imagenet1k"
    shutil.copytree(world / "imagenet1k", data)
    for split in ("train", "val"):
        sorted((data / split).rglob("*.JPEG"))[0].write_bytes(b"no image")
    record = run(world, pretrained, tmp_path / "runs", "knn", data=data)
    assert record.skipped_images == 2
    assert [line.partition(":")[0] for line in record.unreadable] == ["train", "test"]
    strict = Execution(workers=0, max_bad_images=0)
    with pytest.raises(TaskError, match=r"1 of 48 training images .*--max-bad-images is 0"):
        run(world, pretrained, tmp_path / "runs", "knn", data=data, name="no", execution=strict)


def test_the_command_line(world, pretrained, tmp_path, capsys):
    common = flags(
        data=world / "imagenet1k",
        checkpoint=pretrained / BACKBONE_FILE,
        out=tmp_path,
        workers=0,
        protocol="knn",
    )
    assert call(["transfer", *common]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mae-bench: error: neighbours has 200, but there are 48 training images")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())
    few = ["--neighbours", "1", "5", "--headline-neighbours", "5", "--pooling", "patches"]
    assert call(["transfer", *common, *few, "--name", "few"]) == 0
    record = mae_bench.transfer(
        protocol="knn",
        data=world / "imagenet1k",
        checkpoint=pretrained / BACKBONE_FILE,
        out=tmp_path,
        name="few",
        neighbours=(1, 5),
        headline_neighbours=5,
        pooling="patches",
    )
    assert "top1_k1" in record.metrics
    assert "few is finished; nothing to do" in capsys.readouterr().out
    assert call(["transfer", *common, "--neighbours", "5"]) == 2
    assert "headline_neighbours is 20; expected one of neighbours (5,)" in capsys.readouterr().err
