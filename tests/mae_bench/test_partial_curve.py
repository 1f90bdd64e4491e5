"""`--protocol partial:all`: a run for each point, continued where it stopped."""

import json
from pathlib import Path

import pytest
from small_runs import SMALL, SMALL_MAE, flags

import mae_bench
from mae_bench.cli import call
from mae_bench.errors import RunError

POINTS = ["0", "0.5", "1", "2", "4"]


@pytest.fixture(scope="module")
def weights(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("weights")
    mae_bench.pretrain(data=world / "unlabelled", out=out, name="mae", **SMALL_MAE)
    return out / "mae" / "backbone.safetensors"


def test_a_whole_curve(world, weights, tmp_path, capsys):
    asked = {"task": "imagenet1k", "data": world / "imagenet1k", "checkpoint": weights}
    words = [*flags(**asked, out=tmp_path, **SMALL), "--protocol", "partial:all"]
    assert call(["transfer", *words]) == 0
    runs = [tmp_path / f"imagenet1k-partial-{k}-vit_mini-mae-seed0" for k in POINTS]
    assert sorted(tmp_path.iterdir()) == sorted(runs)
    for k, run in zip(POINTS, runs, strict=True):
        record = json.loads((run / "record.json").read_text())
        assert record["protocol"] == f"imagenet1k/partial-{k}@2"
        assert record["recipe"]["trained_blocks"] == float(k)
        assert not any("trained_blocks" in line for line in record["deviations"])
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith(tuple("12345"))][:1]
    assert all(f"{i}/5  partial:{k}" in said for i, k in enumerate(POINTS, start=1))

    stamps = {run: (run / "record.json").stat().st_mtime_ns for run in runs}
    (runs[3] / "record.json").unlink()
    assert call(["transfer", *words]) == 0
    again = {run: (run / "record.json").stat().st_mtime_ns for run in runs}
    assert [run for run in runs if again[run] != stamps[run]] == [runs[3]]


def test_points_of_one_curve_have_a_name_each(world, weights, tmp_path):
    """And stochastic depth all but the one without a trained block."""
    common = {"data": world / "imagenet1k", "checkpoint": weights, "out": tmp_path, **SMALL}
    records = mae_bench.partial_curve(name="c", drop_path=0.1, **common)
    assert [record.name for record in records] == [f"c-partial-{k}" for k in POINTS]
    assert [record.recipe["drop_path"] for record in records] == [0.0, 0.1, 0.1, 0.1, 0.1]


def test_what_a_curve_refuses(world, weights, capsys):
    assert call(["transfer", "--task", "coco", "--protocol", "partial:all"]) == 2
    assert "unknown protocol 'partial:all'" in capsys.readouterr().err
    with pytest.raises(RunError, match="sets trained_blocks for each run; leave it out"):
        mae_bench.partial_curve(trained_blocks=1.0)
    assert call(["transfer", "--protocol", "partial:all", "--trained-blocks", "1"]) == 2
    assert "transfer does not take --trained-blocks 1" in capsys.readouterr().err
    assert call(["transfer", "--protocol", "partial:5", "--checkpoint", str(weights)]) == 2
    said = capsys.readouterr().err
    assert "partial:5: expected partial:K with K the number of last blocks to train" in said
