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
