"""Checkpoints of plain ViTs in dense ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from dense_networks import SHARED, TINY, VITDET, build, images_for
from torch import Tensor

import backbones
from backbones import Dense
from backbones.checkpoint import save
from backbones.loading import load_into, read


@pytest.fixture(autouse=True)
def tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network that nevertheless takes the way of large ones through `linear`."""
    monkeypatch.setattr("backbones.linear.LEAST_WORK", 1)
    monkeypatch.setitem(backbones.SIZES, "tiny", TINY)


RELATIVE = "relative position, starts at zero"


def plain_file(
    folder: Path, change: Callable[[dict[str, Tensor]], object] = lambda _: None
) -> Path:
    """An encoder as the MAE release has it, with 4 x 4 positions and a class token."""
    torch.manual_seed(0)
    state = backbones.create("tiny", 32).state_dict()
    state = {key: value + 0.05 * torch.randn_like(value) for key, value in state.items()}
    change(state)
    torch.save({"model": state}, folder / "mae.pth")
    return folder / "mae.pth"


def refusal(file: Path, dense: Dense | None = VITDET, image_size: int = 80) -> str:
    with pytest.raises(backbones.BackboneError) as error:
        backbones.load("tiny", file, image_size, dense=dense)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_loads_a_plain_encoder(tmp_path: Path) -> None:
    file = plain_file(tmp_path)
    state = torch.load(file)["model"]
    vit, report = backbones.load("tiny", file, 80, dense=VITDET)
    relative = [key for key in vit.state_dict() if "rel_pos" in key]
    assert len(relative) == 8
    assert report.fresh == dict.fromkeys(relative, RELATIVE)
    assert report.skipped == {
        "cls_token": "class token: not used in dense prediction",
        "norm.weight": "final norm: maps are taken before it",
        "norm.bias": "final norm: maps are taken before it",
    }
    assert report.resized == {"pos_embed": "17 -> 16 positions, class row dropped"}
    assert report.loaded == sorted(set(state) - set(report.skipped))
    state["pos_embed"] = state["pos_embed"][:, 1:]
    for key, value in vit.state_dict().items():
        expected = torch.zeros_like(value) if key in relative else state[key]
        assert torch.equal(value, expected), key
    assert str(report).splitlines()[-4:] == [
        "  resized pos_embed: 17 -> 16 positions, class row dropped",
        "  skipped 1 on purpose: class token: not used in dense prediction",
        "  skipped 2 on purpose: final norm: maps are taken before it",
        "  8 not in the file: relative position, starts at zero",
    ]


def test_maps_equal_those_of_the_plain_vit_without_class_token(tmp_path: Path) -> None:
    """At the grid of pre-training, the dense ViT is the plain one minus a token."""
    file = plain_file(tmp_path)
    plain, _ = backbones.load("tiny", file, 32)
    vit, _ = backbones.load("tiny", file, 32, dense=Dense())
    x = plain.patch_embed(images_for(vit)) + plain.pos_embed[:, 1:]
    for block in plain.blocks:
        x = block(x)
    (own,) = vit.feature_maps(images_for(vit), [3])
    torch.testing.assert_close(own.flatten(2).transpose(1, 2), x, rtol=1e-5, atol=1e-5)


def test_positions_resized_at_loading(tmp_path: Path) -> None:
    """Once at loading or in every forward pass: the same maps."""
    file = plain_file(tmp_path)
    late, _ = backbones.load("tiny", file, 80, dense=Dense())
    early, report = backbones.load("tiny", file, 80, dense=Dense(resize_position="load"))
    assert early.pos_embed.shape == (1, 100, 32)
    assert report.resized == {"pos_embed": "17 -> 100 positions, class row dropped, bicubic"}
    images = images_for(late)
    assert torch.equal(*(vit.feature_maps(images, [3])[0] for vit in (late, early)))


def test_larger_patches(tmp_path: Path) -> None:
    """A shrunken analogue of ViT-H's 14 x 14 to 16 x 16; a file of such patches loads exactly."""
    file, dense = plain_file(tmp_path), Dense(patch_size=10)
    vit, report = backbones.load("tiny", file, 80, dense=dense)
    weight = torch.load(file)["model"]["patch_embed.proj.weight"]
    expected = F.interpolate(weight, size=(10, 10), mode="bicubic", align_corners=False)
    assert torch.equal(vit.patch_embed.proj.weight, expected)
    assert report.resized["patch_embed.proj.weight"] == "8 x 8 -> 10 x 10 pixels, bicubic"
    save(vit.state_dict(), tmp_path / "own.safetensors", {"backbone": "tiny"})
    again, report = backbones.load("tiny", tmp_path / "own.safetensors", 80, dense=dense)
    assert torch.equal(again.patch_embed.proj.weight, expected)
    assert report.resized == {}


def test_patches_of_14_to_16_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ViT-H's, as ViTDet takes it: positions stay those of 4 x 4 patches of 14 pixels."""
    size = backbones.Size(embed_dim=32, depth=2, num_heads=2, patch_size=14, pretrain_image=56)
    monkeypatch.setitem(backbones.SIZES, "tiny14", size)
    torch.manual_seed(0)
    plain, file = backbones.create("tiny14", 56), tmp_path / "mae.pth"
    torch.save({"model": plain.state_dict()}, file)
    vit, report = backbones.load("tiny14", file, 64, dense=Dense(patch_size=16))
    weight = plain.patch_embed.proj.weight
    expected = F.interpolate(weight, size=(16, 16), mode="bicubic", align_corners=False)
    assert torch.equal(vit.patch_embed.proj.weight, expected)
    assert torch.equal(vit.pos_embed, plain.pos_embed[:, 1:])
    assert report.resized["patch_embed.proj.weight"] == "14 x 14 -> 16 x 16 pixels, bicubic"
    assert vit.feature_maps(torch.zeros(1, 3, 64, 64), [1])[0].shape == (1, 32, 4, 4)


def test_patches_of_neither_size_are_refused(tmp_path: Path) -> None:
    def other(state: dict[str, Tensor]) -> None:
        state["patch_embed.proj.weight"] = torch.zeros(32, 3, 14, 14)

    file = plain_file(tmp_path, other)
    for dense in (Dense(patch_size=10), Dense()):
        assert "shapes patch_embed.proj.weight (32, 3, 14, 14) for" in refusal(file, dense)


def test_decoder_is_skipped(tmp_path: Path) -> None:
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 32)}
    _, report = backbones.load(
        "tiny", plain_file(tmp_path, lambda state: state.update(decoder)), 80, dense=VITDET
    )
    assert {key: report.skipped[key] for key in decoder} == dict.fromkeys(decoder, "MAE decoder")


@pytest.mark.parametrize("dense", [VITDET, SHARED], ids=["decomposed", "shared"])
def test_own_checkpoint_loads_exactly(dense: Dense, tmp_path: Path) -> None:
    source, file = build(dense), tmp_path / "dense.safetensors"
    save(source.state_dict(), file, {"backbone": "tiny"})
    vit, report = backbones.load("tiny", file, 80, dense=dense)
    assert report.loaded == sorted(source.state_dict())
    assert report.fresh == report.skipped == report.resized == {}
    for key, value in source.state_dict().items():
        assert torch.equal(vit.state_dict()[key], value), key


def test_fresh_positions_overwrite_old_ones(tmp_path: Path) -> None:
    vit = build()
    load_into(vit, *read(plain_file(tmp_path)))
    assert not any(p.any() for key, p in vit.named_parameters() if "rel_pos" in key)


@pytest.mark.parametrize(
    "key", ["fc_norm.weight", "extra.weight", "rel_pos_window", "blocks.0.attn.rel_pos_x"]
)
def test_unexpected_keys_are_refused(key: str, tmp_path: Path) -> None:
    file = plain_file(tmp_path, lambda state: state.update({key: torch.zeros(3)}))
    assert f"unexpected {key}" in refusal(file)


def test_missing_keys_are_refused(tmp_path: Path) -> None:
    file = plain_file(tmp_path, lambda state: state.pop("blocks.1.attn.qkv.bias"))
    assert "missing blocks.1.attn.qkv.bias; unexpected none" in refusal(file)


def test_half_a_set_of_relative_positions_is_refused(tmp_path: Path) -> None:
    state, file = build().state_dict(), tmp_path / "half.pth"
    del state["blocks.2.attn.rel_pos_w"]
    torch.save(state, file)
    assert "missing blocks.2.attn.rel_pos_w; unexpected none" in refusal(file)


def test_relative_positions_of_another_kind_or_window_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "dense.pth"
    torch.save(build().state_dict(), file)
    message = refusal(file, SHARED)
    assert "missing rel_pos_global, rel_pos_window" in message
    assert "unexpected blocks.0.attn.rel_pos_h" in message
    assert "rel_pos_h (7, 16) for (9, 16)" in refusal(file, Dense(5, (1, 3), "decomposed"))
    assert "missing cls_token" in refusal(file, None, 32)


def test_positions_that_are_no_square(tmp_path: Path) -> None:
    file = plain_file(tmp_path, lambda state: state.update(pos_embed=torch.zeros(1, 19, 32)))
    assert "19 positions; expected a square or 1 + a square" in refusal(file)
