"""Pre-training with every setting of the paper's Table 1 that can be chosen."""

from pathlib import Path

import pytest
import torch
from small_runs import SMALL_MAE, flags

import backbones
import mae_bench
from mae_bench.cli import call
from mae_bench.pretraining.data import BlockMasked
from mae_bench.pretraining.masked import MaskedPretraining
from mae_bench.recipes import override, recipe

BLOCKS = {"mask": "block", "mask_ratio": 0.5}
TOKENS = {"target": "pca", "encoder_mask_tokens": True, "mask": "grid"}


JITTER = {"augmentation": "crop_random_jitter", "colour_jitter": 0.2}


@pytest.mark.parametrize("settings", [BLOCKS, TOKENS, {"augmentation": "none"}, JITTER])
def test_a_run_tells_its_settings_and_its_weights_load(settings, world: Path, tmp_path: Path):
    options = {**SMALL_MAE, **settings}
    record = mae_bench.pretrain(data=world / "unlabelled", out=tmp_path, name="run", **options)
    assert {name: record.recipe[name] for name in settings} == settings
    told = [each.field for each in record.changed]
    assert set(settings) <= set(told)
    backbones.load("vit_mini", tmp_path / "run" / "backbone.safetensors", 32)
    assert (tmp_path / "run" / "reconstructions.png").stat().st_size > 1000


def test_blocks_depend_on_seed_epoch_and_index_alone(world: Path) -> None:
    base = override(recipe("pretrain", "vit_mini", "mae"), BLOCKS)
    task = MaskedPretraining(base, [world / "unlabelled"], seed=3)
    assert isinstance(task.train_data, BlockMasked)
    keys = [(0, 5), (1, 5), (0, 6)]
    noise = task.train_data.__getitems__(keys)["noise"]
    alone = task.train_data.__getitems__(keys[1:2])["noise"]
    assert torch.equal(noise[1], alone[0])
    assert len({tuple(row.tolist()) for row in noise}) == 3
    assert ((noise >= 0.5).sum(dim=1) == 8).all()


def test_components_are_fitted_to_the_same_sample_each_time(world: Path) -> None:
    base = override(recipe("pretrain", "vit_mini", "mae"), {"target": "pca"})
    assert not base.to_dict()["norm_pix"]
    one, other = (MaskedPretraining(base, [world / "unlabelled"], seed=3) for _ in range(2))
    assert one.mae.components is not None
    assert other.mae.components is not None
    assert torch.equal(one.mae.components.basis, other.mae.components.basis)
    assert one.mae.components.mean.abs().sum() > 0


def test_a_target_without_normalised_pixels_switches_them_off() -> None:
    """ViT-B's protocol normalises; one flag away is the row of the paper's Table 1d."""
    base = recipe("pretrain", "vit_b", "mae")
    assert override(base, {"target": "pca"}).to_dict()["norm_pix"] is False
    assert override(base, {"mask": "block"}).to_dict()["norm_pix"] is True


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["--mask", "grid", "--mask-ratio", "0.5"],
            "mask_ratio is 0.5; expected 0.75 with mask grid",
        ),
        (["--target", "pca", "--norm-pix"], "norm_pix is True; expected False with target pca"),
        (["--mask", "blocks"], "--mask"),
        (
            ["--mask", "grid", "--image-size", "40"],
            "image_size is 40; expected an even number of patches each way with mask grid (of 5 x",
        ),
        (["--mask-ratio", "0.99"], "mask_ratio is 0.99; expected one that leaves and removes some"),
        (["--image-size", "8"], "mask_ratio is 0.75; expected one that leaves and removes some"),
        (["--target", "tokens"], "--target"),
        (["--decoder-heads", "3"], "decoder_dim is 64; expected a multiple of 4 and of"),
        (
            ["--augmentation", "none", "--min-crop-area", "0.9"],
            "min_crop_area is 0.9; with augmentation none it has no effect: leave it out",
        ),
        (["--fixed-crop", "0.5"], "fixed_crop is 0.5; with augmentation crop_random it has no"),
        (
            ["--augmentation", "crop_fixed", "--colour-jitter", "0.2"],
            "colour_jitter is 0.2; with augmentation crop_fixed it has no effect",
        ),
        (["--augmentation", "crop_random", "--pooling", "cls"], "pretrain --method supervised"),
        (
            ["--layer-decay", "0.75"],
            "layer_decay is 0.75; with a pre-training without labels it has no effect: leave it",
        ),
        (["--protocol", "finetune"], "does not take --protocol finetune; transfer and"),
        (["--heads", "4"], "--format to --grid say how a checkpoint is read"),
        (["--backbone", "timm:beit_base_patch16_224"], "cannot be a masked autoencoder's encoder"),
    ],
)
def test_settings_that_exclude_each_other_end_in_one_line(
    settings, message, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["pretrain", *flags(data=world / "unlabelled", out=tmp_path), *settings]
    assert call(argv) == 2
    said = capsys.readouterr()
    assert message in (said.out + said.err).replace("\n", " ")
    assert not list(tmp_path.iterdir())


def test_a_decoder_of_another_setting_is_refused_as_a_start(
    pretrained: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the encoder sees mask tokens, the token is as wide as the encoder."""
    small = {k: v for k, v in SMALL_MAE.items() if k.startswith("decoder")}
    words = {"data": world / "unlabelled", "out": tmp_path, "checkpoint": pretrained, **small}
    assert call(["pretrain", *flags(**words), "--encoder-mask-tokens"]) == 2
    said = capsys.readouterr().err
    assert (
        "does not fit the decoder of vit_mini: shapes mask_token (1, 1, 32) for (1, 1, 128)" in said
    )
    assert not list(tmp_path.iterdir())
