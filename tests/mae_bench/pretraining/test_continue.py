"""`pretrain --checkpoint`: what is taken of a file, what is drawn anew, and that it is said."""

from pathlib import Path

import pytest
import torch
from small_worlds import draw

import backbones
from backbones.posembed import sincos_2d
from backbones.reading import Reading
from mae_bench import pretrain
from mae_bench.pretraining.autoencoder import MaskedAutoencoder

SMALL = {"decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2}


def autoencoder(seed: int, size: int = 32, **changed: int) -> MaskedAutoencoder:
    torch.manual_seed(seed)
    return MaskedAutoencoder("vit_mini", size, **SMALL | changed)


def test_encoder_and_decoder_are_the_files(tmp_path: Path) -> None:
    theirs, mine = autoencoder(0), autoencoder(1)
    torch.save({"model": theirs.checkpoint(), "epoch": 3}, tmp_path / "full.pth")
    report = mine.continue_from(tmp_path / "full.pth", Reading())
    assert all(v.equal(theirs.state_dict()[k]) for k, v in mine.state_dict().items())
    assert not mine.encoder.pos_embed.requires_grad
    assert "and its decoder" in str(report)
    assert "2 heads of the decoder" in str(report)
    assert report.skipped == {}


def test_of_an_encoder_alone_the_decoder_is_drawn_anew(tmp_path: Path) -> None:
    theirs, mine = autoencoder(0), autoencoder(1)
    drawn = {k: v.clone() for k, v in mine.state_dict().items() if "decoder" in k}
    torch.save({"model": theirs.encoder.state_dict()}, tmp_path / "encoder.pth")
    report = mine.continue_from(tmp_path / "encoder.pth", Reading())
    assert all(
        v.equal(mine.encoder.state_dict()[k]) for k, v in theirs.encoder.state_dict().items()
    )
    assert all(v.equal(mine.state_dict()[k]) for k, v in drawn.items())
    assert "the decoder is drawn anew" in str(report)


def test_fixed_positions_are_computed_at_another_size(tmp_path: Path) -> None:
    theirs, mine = autoencoder(0), autoencoder(1, size=64)
    torch.save({"model": theirs.checkpoint()}, tmp_path / "full.pth")
    report = mine.continue_from(tmp_path / "full.pth", Reading())
    assert mine.encoder.pos_embed.equal(sincos_2d(128, 8))
    assert mine.decoder_pos_embed.equal(sincos_2d(32, 8))
    assert "fixed positions computed for 8 x 8 patches" in str(report)


def test_another_decoder_is_refused(tmp_path: Path) -> None:
    torch.save({"model": autoencoder(0).checkpoint()}, tmp_path / "full.pth")
    with pytest.raises(backbones.BackboneError, match="does not fit the decoder of vit_mini"):
        autoencoder(1, decoder_depth=2).continue_from(tmp_path / "full.pth", Reading())


def test_a_run_is_known_by_what_it_started_from(tmp_path: Path) -> None:
    world = draw(tmp_path / "world", unlabelled_train=16)
    more = {**SMALL, "epochs": 1, "warmup_epochs": 0, "batch_size": 8, "device_batch": 8}
    first = pretrain(data=world / "unlabelled", out=tmp_path, name="first", **more)
    assert first.checkpoint is None
    file = tmp_path / "first" / "mae.safetensors"
    second = pretrain(data=world / "unlabelled", out=tmp_path, checkpoint=file, **more)
    assert (second.init, second.name) == ("mae", "pretrain-vit_mini-after-mae-seed0")
    assert second.checkpoint is not None
    assert second.checkpoint.recipe_hash == first.recipe_hash
