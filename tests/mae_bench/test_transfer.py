"""From pre-training to the report, on a world of a few images."""

from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from small_runs import SMALL

import backbones
import mae_bench
from mae_bench.errors import RunError
from mae_bench.pretrain import BACKBONE_FILE, MAE_FILE, PICTURE_FILE
from results import read_records

TRANSFER = {**SMALL, "epochs": 1}


def test_pretrain_transfer_report(world: Path, pretrained: Path, tmp_path: Path, capsys):
    """The three commands after one another, every protocol."""
    for protocol in ("finetune", "linear", "scratch"):
        record = mae_bench.transfer(
            protocol=protocol,
            checkpoint=None if protocol == "scratch" else pretrained / BACKBONE_FILE,
            data=world / "imagenet1k",
            out=tmp_path,
            name=protocol,
            **TRANSFER,
        )
        assert record.protocol == f"imagenet1k/{protocol}@1"
        assert record.init == ("scratch" if protocol == "scratch" else "mae")
        assert 0 <= record.metrics["top1"] <= record.metrics["top5"] <= 100
        assert record.data.miniature
        assert not record.data.standard
        assert "epochs 40 -> 1" in record.deviations
    said = capsys.readouterr().out
    assert "to repeat" in said
    assert str(tmp_path / "scratch" / "model.safetensors") in said
    (table,) = mae_bench.report(tmp_path)
    assert [column.kind for column in table.columns] == ["label"] * 2 + ["measured"] * 3
    written = (tmp_path / "report.md").read_text()
    assert "Miniature world" in written
    assert "not comparable with any published number" in written


def test_a_finished_run_is_not_repeated(world: Path, tmp_path: Path, capsys):
    def once():
        return mae_bench.transfer(
            protocol="scratch", data=world / "imagenet1k", out=tmp_path, name="one", **TRANSFER
        )

    first = once()
    before = (tmp_path / "one" / "log.jsonl").stat().st_mtime_ns
    assert once() == first
    assert (tmp_path / "one" / "log.jsonl").stat().st_mtime_ns == before
    assert "nothing to do" in capsys.readouterr().out
    assert [record.name for record in read_records(tmp_path)[0]] == ["one"]


def test_limit_marks_the_record(world: Path, tmp_path: Path):
    record = mae_bench.transfer(
        protocol="scratch",
        data=world / "imagenet1k",
        out=tmp_path,
        name="few",
        limit=16,
        **TRANSFER,
    )
    assert "limited to 16 images" in record.deviations
    assert record.data.train_images == 16


def test_frozen_backbone_stays_as_it_was(world: Path, pretrained: Path, tmp_path: Path):
    mae_bench.transfer(
        protocol="linear",
        checkpoint=pretrained / BACKBONE_FILE,
        data=world / "imagenet1k",
        out=tmp_path,
        name="probe",
        **TRANSFER,
    )
    before = load_file(pretrained / BACKBONE_FILE)
    after = load_file(tmp_path / "probe" / "model.safetensors")
    for name, value in before.items():
        assert torch.equal(after[f"backbone.{name}"], value), name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"protocol": "finetune"}, "needs --checkpoint"),
        ({"protocol": "scratch", "checkpoint": "x.pth"}, "leave out --checkpoint"),
        ({"protocol": "scratch", "epoch": 3}, "did you mean epochs"),
        ({"protocol": "scratch", "image_size": 30}, "not divisible by the patch size"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(arguments, said, world, tmp_path):
    with pytest.raises((RunError, backbones.BackboneError), match=said):
        mae_bench.transfer(data=world / "imagenet1k", out=tmp_path / "runs", **arguments)
    assert not (tmp_path / "runs").exists()


def test_timm_loads_what_pretrain_writes(pretrained: Path):
    """The round trip: our file into timm's model, equal features."""
    size = backbones.size_of("vit_mini")
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=32,
        patch_size=size.patch_size,
        embed_dim=size.embed_dim,
        depth=size.depth,
        num_heads=size.num_heads,
        num_classes=0,
        global_pool="token",
    ).eval()
    timm.models.load_checkpoint(theirs, str(pretrained / BACKBONE_FILE), strict=True)
    ours, report = backbones.load("vit_mini", pretrained / BACKBONE_FILE, image_size=32)
    assert report.metadata["method"] == "mae"
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            ours.eval()(images), theirs.forward_features(images), rtol=1e-5, atol=1e-5
        )


def test_pretrain_keeps_everything_it_names(pretrained: Path):
    assert {BACKBONE_FILE, MAE_FILE, PICTURE_FILE, "record.json", "log.jsonl"} <= {
        file.name for file in pretrained.iterdir()
    }
    tensors = load_file(pretrained / MAE_FILE)
    assert {"mask_token", "decoder_embed.weight", "blocks.0.attn.qkv.weight"} <= set(tensors)
    with Image.open(pretrained / PICTURE_FILE) as picture:
        assert picture.format == "PNG"
