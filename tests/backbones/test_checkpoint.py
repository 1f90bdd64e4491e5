"""Checkpoints: strict loading, what the report says, every refusal, and timm as a reader."""

import argparse
import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

import backbones
from backbones.checkpoint import describe, file_sha256, read_tensors, save
from backbones.loading import load_into, read
from backbones.vit import ViT


@pytest.fixture(autouse=True)
def tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    size = backbones.Size(embed_dim=32, depth=2, num_heads=2, patch_size=4)
    monkeypatch.setitem(backbones.SIZES, "tiny", size)


def build(image_size: int = 16, seed: int = 0) -> ViT:
    torch.manual_seed(seed)
    vit = backbones.create("tiny", image_size)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return vit


def refusal(file: Path, name: str = "tiny", image_size: int = 16) -> str:
    """The one line that `backbones.load` refuses the file with; it names the file."""
    with pytest.raises(backbones.BackboneError) as error:
        backbones.load(name, file, image_size)
    message = str(error.value)
    assert "\n" not in message
    assert str(file) in message
    return message


def assert_equal(vit: ViT, state: dict[str, Tensor]) -> None:
    assert set(vit.state_dict()) == set(state)
    for key, value in vit.state_dict().items():
        assert torch.equal(value, state[key]), key


# --- What loads -------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["model", "bare", "safetensors", "reference training state"])
def test_loads_every_layout(layout: str, tmp_path: Path) -> None:
    state, file = build().state_dict(), tmp_path / "backbone.pth"
    if layout == "model":
        torch.save({"model": state}, file)
    elif layout == "bare":
        torch.save(state, file)
    elif layout == "safetensors":
        file = tmp_path / "backbone.safetensors"
        save(state, file, {"backbone": "tiny"})
    else:  # what facebookresearch/mae, util/misc.py writes while it trains
        arguments = argparse.Namespace(lr=1e-3, output_dir="out", norm_pix_loss=True)
        content = {"model": state, "optimizer": {"state": {}}, "epoch": 3, "args": arguments}
        torch.save(content, file)
    vit, report = backbones.load("tiny", str(file), 16)
    assert_equal(vit, state)
    assert report.file == file.name
    assert report.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert report.loaded == sorted(state)
    assert report.resized == report.skipped == {}


def test_half_precision_is_loaded_as_float(tmp_path: Path) -> None:
    state, file = build().state_dict(), tmp_path / "half.pth"
    torch.save({key: value.half() for key, value in state.items()}, file)
    vit, _ = backbones.load("tiny", file, 16)
    assert_equal(vit, {key: value.half().float() for key, value in state.items()})


def test_positions_are_resized(tmp_path: Path) -> None:
    """The formula is the reference's (util/pos_embed.py), written out once more."""
    source, file = build(image_size=16), tmp_path / "backbone.pth"
    torch.save(source.state_dict(), file)
    vit, report = backbones.load("tiny", file, image_size=28)
    grid = source.pos_embed[:, 1:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(7, 7), mode="bicubic", align_corners=False)
    expected = torch.cat([source.pos_embed[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
    assert torch.equal(vit.pos_embed, expected)
    assert report.resized == {"pos_embed": "17 -> 50 positions, bicubic"}
    assert "pos_embed" in report.loaded
    assert "resized pos_embed: 17 -> 50 positions, bicubic" in str(report)


def test_report_reads_well(tmp_path: Path) -> None:
    state, file = build().state_dict(), tmp_path / "full.pth"
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 32)}
    torch.save({"model": state | decoder}, file)
    _, report = backbones.load("tiny", file, 16)
    assert report.skipped == dict.fromkeys(decoder, "MAE decoder")
    assert str(report).splitlines() == [
        f"full.pth (sha256 {file_sha256(file)[:12]}): {len(state)} tensors loaded, 100% of the "
        "parameters of",
        "    tiny",
        "  format mae_full: facebookresearch/mae, models_mae.py",
        "    (mae_pretrain_vit_*_full.pth)",
        "  2 heads, layer norm eps 1e-06, pixel mean 0.485 0.456 0.406 and deviation",
        "    0.229 0.224 0.225; its own classifier reads the mean of the patches",
        "  assumed: 2 heads, as tiny has; no tensor shows them",
        "  skipped 2 on purpose: MAE decoder",
    ]
    as_json = json.loads(json.dumps(report.to_dict()))
    assert as_json["coverage"] == 1
    assert as_json["skipped"] == report.skipped
    assert as_json["pixel_mean"] == [0.485, 0.456, 0.406]


def test_metadata_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "backbone.safetensors"
    metadata = describe({"backbone": "tiny", "epochs": 3, "norm_pix": True})
    assert metadata == {"backbone": "tiny", "epochs": "3", "norm_pix": "true"}
    save(build().state_dict(), file, metadata)
    _, report = backbones.load("tiny", file, 16)
    assert metadata.items() <= report.metadata.items()
    assert report.metadata["format"] == "pt"  # other readers ask for it


def test_saved_file_is_plain_safetensors(tmp_path: Path) -> None:
    state, file = build().state_dict(), tmp_path / "backbone.safetensors"
    save(state, file, {})
    assert [path.name for path in tmp_path.iterdir()] == [file.name]  # nothing temporary is left
    read = safetensors.torch.load_file(file)
    assert all(torch.equal(read[key], value) for key, value in state.items())


def test_timm_reads_our_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vit, file = backbones.create("vit_b"), tmp_path / "backbone.safetensors"
    save(vit.state_dict(), file, {"backbone": "vit_b"})
    twin = timm.create_model("vit_base_patch16_224", num_classes=0, checkpoint_path=str(file))
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        tokens, expected = vit.eval()(images), twin.eval().forward_features(images)
    torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-5)


def test_crash_while_saving_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "backbone.safetensors"
    save({"a": torch.zeros(3)}, file, {})
    before = file.read_bytes()

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        save({"a": torch.ones(3)}, file, {})
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


# --- What does not ----------------------------------------------------------------------------


def test_missing_key(tmp_path: Path) -> None:
    state, file = build().state_dict(), tmp_path / "backbone.pth"
    del state["blocks.1.norm2.bias"]
    torch.save(state, file)
    message = refusal(file)
    assert "missing blocks.1.norm2.bias; unexpected none" in message


def test_unexpected_keys(tmp_path: Path) -> None:
    state, file = build().state_dict(), tmp_path / "backbone.pth"
    torch.save(state | {"neck.weight": torch.zeros(10, 32), "neck.bias": torch.zeros(10)}, file)
    assert "missing none; unexpected neck.bias, neck.weight" in refusal(file)


def test_many_keys_are_counted(tmp_path: Path) -> None:
    state, file = build().state_dict(), tmp_path / "backbone.pth"
    torch.save({key: state[key] for key in ("patch_embed.proj.weight", "pos_embed")}, file)
    assert f" and {len(state) - 2 - 4} more; unexpected none" in refusal(file)


def test_mask_token_without_a_decoder_is_left_out_with_a_word(tmp_path: Path) -> None:
    """DINOv2's files have one."""
    file = tmp_path / "backbone.pth"
    torch.save(build().state_dict() | {"mask_token": torch.zeros(1, 1, 32)}, file)
    _, report = backbones.load("tiny", file, 16)
    assert report.skipped == {"mask_token": "mask token of the pre-training"}
    assert "skipped 1 on purpose: mask token of the pre-training" in str(report)


def test_wrong_shape(tmp_path: Path) -> None:
    state, file = build().state_dict(), tmp_path / "backbone.pth"
    state["blocks.0.mlp.fc1.weight"] = torch.zeros(64, 32)
    torch.save(state, file)
    assert "shapes blocks.0.mlp.fc1.weight (64, 32) for (128, 32)" in refusal(file)


def test_wider_position_table(tmp_path: Path) -> None:
    state, file = build(image_size=28).state_dict(), tmp_path / "backbone.pth"
    state["pos_embed"] = torch.zeros(1, 50, 48)
    torch.save(state, file)
    assert "shapes pos_embed (1, 17, 48) for (1, 17, 32)" in refusal(file)


def test_positions_that_are_no_square(tmp_path: Path) -> None:
    state, file = build().state_dict(), tmp_path / "backbone.pth"
    state["pos_embed"] = torch.zeros(1, 18, 32)
    torch.save(state, file)
    assert "18 positions; expected 1 + a square" in refusal(file)


def test_another_backbone(tmp_path: Path) -> None:
    file = tmp_path / "backbone.safetensors"
    save(build().state_dict(), file, {"backbone": "tiny"})
    assert "holds a tiny; asked for vit_mini" in refusal(file, "vit_mini", 32)
    other = tmp_path / "unnamed.safetensors"
    save(build().state_dict(), other, {})
    assert "does not fit vit_mini" in refusal(other, "vit_mini", 32)


@pytest.mark.parametrize("part", [0, 1e-4, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_at(part: float, suffix: str, tmp_path: Path) -> None:
    state, file = build().state_dict(), tmp_path / f"backbone{suffix}"
    if suffix == ".pth":
        torch.save({"model": state}, file)
    else:
        save(state, file, {"backbone": "tiny"})
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    assert "truncated" in refusal(file)


def test_damage_inside_a_torch_file(tmp_path: Path) -> None:
    file = tmp_path / "backbone.pth"
    torch.save({"model": build().state_dict()}, file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    content[-200:-100] = bytes(100)
    file.write_bytes(bytes(content))
    assert "truncated" in refusal(file)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
def test_text_file(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"notes{suffix}"
    file.write_text("<html>Not found</html>\n" * 20)
    assert "truncated" in refusal(file)


@pytest.mark.parametrize("suffix", ["", ".pth", ".safetensors"])
def test_missing_file_and_directory(suffix: str, tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / f"nothing{suffix}")
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    assert "is a folder" in refusal(folder)


class Touch:
    """Writes a file when unpickled; what a hostile checkpoint would do."""

    def __init__(self, file: Path) -> None:
        self.file = str(file)

    def __reduce__(self) -> tuple:
        return (open, (self.file, "w"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    file, victim = tmp_path / "backbone.pth", tmp_path / "victim"
    torch.save({"model": build().state_dict(), "extra": Touch(victim)}, file)
    assert "needs pickle (Unsupported global: GLOBAL " in refusal(file)
    file.write_bytes(pickle.dumps(Touch(victim)))
    refusal(file)
    assert not victim.exists()


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(3),
        [1, 2],
        {"model": {"a": 1}},
        {0: torch.zeros(1)},
    ],
    ids=["tensor", "list", "numbers", "no names"],
)
def test_torch_file_of_something_else(content: object, tmp_path: Path) -> None:
    file = tmp_path / "backbone.pth"
    torch.save(content, file)
    assert "holds no state dict" in refusal(file)


def test_network_is_untouched_by_a_refused_file(tmp_path: Path) -> None:
    vit, file = build(), tmp_path / "backbone.pth"
    before = {key: value.clone() for key, value in vit.state_dict().items()}
    other = build(seed=3).state_dict()
    other["norm.weight"] = torch.zeros(7)
    torch.save(other, file)
    with pytest.raises(backbones.BackboneError):
        load_into(vit, *read(file))
    assert_equal(vit, before)


def test_read_tensors_takes_safetensors_under_any_name(tmp_path: Path) -> None:
    file = tmp_path / "backbone.bin"
    save({"a": torch.arange(3)}, file, {"x": "y"})
    tensors, metadata = read_tensors(file)
    assert torch.equal(tensors["a"], torch.arange(3))
    assert metadata["x"] == "y"
