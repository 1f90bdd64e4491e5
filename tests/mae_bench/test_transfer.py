"""From pre-training to the report, on a world of a few images."""

import shutil
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_runs import SMALL

import backbones
import mae_bench
from backbones import BackboneError
from backbones.baselines import BASELINES, Release
from mae_bench.errors import RunError
from mae_bench.pretraining.masked import PICTURE_FILE
from mae_bench.run.files import BACKBONE_FILE, MAE_FILE
from mae_bench.setup import PRETRAINING, checkpoint_of
from results import parse_record, read_records
from results.origins import made

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
    assert said.splitlines()[-1].startswith(f"{record.protocol} with {record.backbone} from ")
    assert str(tmp_path / "scratch" / "model.safetensors") in said
    (table,) = mae_bench.report(tmp_path)
    kinds = [column.kind for column in table.columns]
    # Fine-tuning beside its gain over training from scratch, and linear probing.
    assert kinds == ["label", "label", "measured", "difference", "measured"]
    written = (tmp_path / "report.md").read_text()
    assert "Miniature world" in written
    assert "not comparable with any published number" in written


def test_a_record_tells_what_its_weights_were_pre_trained_on(world, pretrained, tmp_path):
    """Both files of a pre-training do; a file that says nonsense is refused in one line."""
    before = parse_record((pretrained / "record.json").read_bytes())
    for name in (BACKBONE_FILE, MAE_FILE):
        checkpoint = transfer_identity(pretrained / name)
        assert checkpoint.is_traced
        assert (checkpoint.recipe_hash, checkpoint.seed) == (before.recipe_hash, before.seed)
        data = before.data
        assert (checkpoint.data.name, checkpoint.data.fingerprint) == (data.name, data.fingerprint)
        assert checkpoint.origin == made(before)
    tensors = load_file(pretrained / BACKBONE_FILE)
    with safe_open(pretrained / BACKBONE_FILE, "pt") as opened:
        metadata = opened.metadata()
    file = tmp_path / "odd.safetensors"
    for odd in ("{", "[1]", '{"seed": -1}', '{"data": "photos"}', '{"x": 1}', "[" * 100_000):
        save_file(tensors, file, metadata | {PRETRAINING: odd})
        with pytest.raises(RunError, match="metadata's pretraining is not as mae-bench") as caught:
            transfer_identity(file)
        assert "\n" not in str(caught.value)


def transfer_identity(file: Path):
    return checkpoint_of(backbones.load("vit_mini", file, image_size=32)[1])


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


def test_timm_creates_a_model_from_what_pretrain_writes(pretrained: Path):
    """As its users do: by name, with the file as `checkpoint_path`."""
    theirs = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=128,
        depth=4,
        num_heads=4,
        num_classes=0,
        checkpoint_path=str(pretrained / BACKBONE_FILE),
    ).eval()
    ours, _ = backbones.load("vit_mini", pretrained / BACKBONE_FILE, image_size=32)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs.forward_features(images)
        torch.testing.assert_close(ours.eval()(images), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours(images)[:, 0], theirs(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_checkpoint_in_the_references_format(dtype, world, pretrained, tmp_path, capsys):
    """Encoder and decoder under "model", in any precision: the classifier starts from them."""
    full = {key: value.to(dtype) for key, value in load_file(pretrained / MAE_FILE).items()}
    file = tmp_path / "mae_pretrain_vit_mini_full.pth"
    torch.save({"model": full}, file)
    record = mae_bench.transfer(
        data=world / "imagenet1k", checkpoint=file, protocol="linear", out=tmp_path, **TRANSFER
    )
    assert record.init == "mae_pretrain_vit_mini_full"
    assert record.checkpoint.file == file.name
    assert "on purpose: MAE decoder" in capsys.readouterr().out
    kept = load_file(tmp_path / record.name / "model.safetensors")
    for key in ("blocks.3.mlp.fc1.weight", "norm.weight", "cls_token"):
        assert torch.equal(kept[f"backbone.{key}"], full[key].float()), key


def test_a_run_at_another_image_size(world, pretrained, tmp_path, capsys):
    """Positions are resized, which is said."""
    record = mae_bench.transfer(
        data=world / "imagenet1k",
        checkpoint=pretrained / BACKBONE_FILE,
        out=tmp_path,
        image_size=40,
        **TRANSFER,
    )
    assert "resized pos_embed: 17 -> 26 positions" in capsys.readouterr().out
    assert "image_size 32 -> 40" in record.deviations


def test_two_checkpoints_are_two_runs(world, pretrained, tmp_path):
    """The folder belongs to one file's bytes, whatever the file is called."""
    common = {"data": world / "imagenet1k", "out": tmp_path, "name": "run", **TRANSFER}
    mae_bench.transfer(checkpoint=pretrained / BACKBONE_FILE, **common)
    tensors = load_file(pretrained / BACKBONE_FILE)
    tensors["cls_token"] += 1
    torch.save(tensors, tmp_path / "changed.pth")
    with pytest.raises(RunError, match=r"holds a different run \(.*sha256"):
        mae_bench.transfer(checkpoint=tmp_path / "changed.pth", init="mae", **common)


def test_unreadable_images_are_counted_in_the_record(world, tmp_path, capsys):
    """One of the training and one of the test images, of which the table says it once."""
    shutil.copytree(world / "imagenet1k", tmp_path / "data")
    spoilt = [sorted((tmp_path / "data" / split).rglob("*.JPEG"))[0] for split in ("train", "val")]
    for length, file in zip((200, 210), spoilt, strict=True):
        file.write_bytes(file.read_bytes()[:length])
    record = mae_bench.transfer(
        data=tmp_path / "data", protocol="scratch", out=tmp_path, name="run", **TRANSFER
    )
    assert record.skipped_images == 2
    assert "unreadable" not in record.metrics
    said = capsys.readouterr().out
    assert "left out an unreadable image, 1 of at most 50: train/" in said
    assert spoilt[0].name in said
    _, _, after = said.partition("evaluating")
    assert "".join(after.split()).count(spoilt[1].name) == 1
    assert not any("cannot be read" in note for note in record.data_notes)


def test_pretrain_keeps_everything_it_names(pretrained: Path):
    assert {BACKBONE_FILE, MAE_FILE, PICTURE_FILE, "record.json", "log.jsonl"} <= {
        file.name for file in pretrained.iterdir()
    }
    tensors = load_file(pretrained / MAE_FILE)
    assert {"mask_token", "decoder_embed.weight", "blocks.0.attn.qkv.weight"} <= set(tensors)
    with Image.open(pretrained / PICTURE_FILE) as picture:
        assert picture.format == "PNG"


def test_released_weights_by_name(world, tmp_path, monkeypatch, capsys):
    """A baseline's file is found by its name, in a folder given or in the usual one."""
    vit = backbones.create("vit_mini", image_size=32)
    release = Release("mae_mini.pth", "https://example.org/mae_mini.pth", note="of another world")
    monkeypatch.setitem(BASELINES["mae"], "vit_mini", release)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    usual = tmp_path / "cache" / "mae-bench" / "weights"
    common = {"data": world / "imagenet1k", "out": tmp_path / "runs", "init": "mae", **SMALL}
    common["backbone"] = "vit_mini"
    with pytest.raises(BackboneError, match=rf"{usual}/mae_mini.pth: not there; `mae-bench wei"):
        mae_bench.transfer(**common)
    usual.mkdir(parents=True)
    torch.save({"model": vit.state_dict()}, usual / "mae_mini.pth")
    record = mae_bench.transfer(**common)
    assert record.init == "mae"
    assert record.checkpoint.file == "mae_mini.pth"
    said = capsys.readouterr().out.replace("\n", "")
    assert "mae_mini.pth (of another world)" in said
    other = usual.rename(tmp_path / "weights")
    again = mae_bench.transfer(**common, checkpoint=other, name="again")
    assert again.checkpoint == record.checkpoint
    assert again.metrics == record.metrics
