"""ADE20K as a task: it learns, trains every weight, and decays what mmsegmentation decays."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from ade20k_world import draw, few_images
from torch import nn

import backbones
from mae_bench.optim import parameter_groups
from tasks.ade20k.recipes import recipe
from tasks.ade20k.task import Ade20k
from tasks.errors import TaskError
from tasks.task import Scoring


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = draw(tmp_path_factory.mktemp("drawn"), 24)
    return few_images(source, tmp_path_factory.mktemp("four") / "ade20k", 4)


def make(root: Path, **changes: Any) -> Ade20k:
    found = dataclasses.replace(recipe("ade20k", "vit_mini", "upernet-512-160k"), **changes)
    torch.manual_seed(0)
    vit = backbones.create("vit_mini", **found.backbone_options())
    return Ade20k(found, vit, root, seed=0)


@pytest.mark.slow
def test_four_images_are_learnt_by_heart(four):
    """From random weights, each image whole in one window and as it is, to mIoU 90 and above."""
    task = make(
        four, image_size=96, scale=(96, 96), stride=96, ratio_range=(1.0, 1.0), flip_prob=0.0,
        photometric=False, dropout=0.0, max_class_share=1.0, head_channels=64,
    )  # fmt: skip
    batch = task.train_data.__getitems__([(0, index) for index in range(4)])
    steps, rate = 280, 4e-3
    optimizer = torch.optim.AdamW(task.parameters(), lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1
    )
    score = 0.0
    for step in range(1, steps + 1):
        task(batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 40 == 0:
            score = task.evaluate(Scoring(workers=0, batch_size=4)).metrics["miou"]
            if score >= 90:
                break
            task.train()
    assert score >= 90


def test_losses_sum_and_every_weight_trains(four):
    task = make(four)
    losses = task(task.train_data.__getitems__([(0, 0), (0, 1)]))
    assert set(losses) == {"loss", "loss_seg", "loss_aux"}
    torch.testing.assert_close(losses["loss"], losses["loss_seg"] + losses["loss_aux"])
    losses["loss"].backward()
    without = [name for name, p in task.named_parameters() if p.grad is None]
    assert without == []
    assert task.backbone.blocks[0].attn.relative_position_bias_table.grad.any()


def test_padding_is_zero_after_normalisation(four):
    task = make(four)
    images = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    found = task.normalise(images, torch.tensor([[50, 40]]))
    inside = (255 - 255 * torch.tensor([0.485, 0.456, 0.406])) / (
        255 * torch.tensor([0.229, 0.224, 0.225])
    )
    torch.testing.assert_close(found[0, :, 49, 39], inside)
    assert found[0, :, 50:].abs().sum() == found[0, :, :, 40:].abs().sum() == 0
    torch.testing.assert_close(task.normalise(images[0])[:, 63, 63], inside)


def settings(task: Ade20k) -> dict[str, tuple[float, float]]:
    """Parameter name -> (learning-rate factor, weight decay)."""
    names = {parameter: name for name, parameter in task.named_parameters()}
    return {
        names[parameter]: (group["lr_scale"], group["weight_decay"])
        for group in parameter_groups(task, task.recipe)
        for parameter in group["params"]
    }


def test_rates_and_decay_by_hand(four):
    """mmsegmentation's LearningRateDecayOptimizerConstructor on four blocks: 0.65^(5 - layer)."""
    found = settings(make(four, layer_decay=0.65))
    expected = {
        "backbone.pos_embed": (5, 0.05),
        "backbone.cls_token": (5, 0.05),
        "backbone.patch_embed.proj.weight": (5, 0.05),
        "backbone.patch_embed.proj.bias": (5, 0),
        "backbone.blocks.0.attn.relative_position_bias_table": (4, 0.05),
        "backbone.blocks.0.attn.qkv.weight": (4, 0.05),
        "backbone.blocks.3.norm1.weight": (1, 0),
        "backbone.blocks.3.mlp.fc2.bias": (1, 0),
        "segmenter.neck.upsample_4x.0.weight": (0, 0.05),
        "segmenter.neck.upsample_4x.1.weight": (0, 0),
        "segmenter.head.conv_seg.weight": (0, 0.05),
        "segmenter.head.conv_seg.bias": (0, 0),
        "segmenter.aux.convs.0.bn.weight": (0, 0),
    }
    for name, (power, decay) in expected.items():
        assert found[name] == (pytest.approx(0.65**power), decay), name


def test_rates_and_decay_are_mmsegs(four):
    """By its own constructor, on parameters under the names that it looks for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmseg.engine.optimizers import layer_decay_optimizer_constructor as theirs
    task = make(four, layer_decay=0.65)
    renamed = {
        name.replace("backbone.blocks.", "backbone.layers.").replace("segmenter.", ""): name
        for name, _ in task.named_parameters()
    }

    class MAE:
        """What the constructor asks the backbone's class to be called."""

    class Model:
        backbone = MAE()

        def named_parameters(self):
            return ((new, task.get_parameter(old)) for new, old in renamed.items())

    constructor = theirs.LearningRateDecayOptimizerConstructor(
        {"optimizer": {"type": "AdamW", "lr": 1.0, "weight_decay": 0.05}},
        {"num_layers": 4, "decay_rate": 0.65, "decay_type": "layer_wise"},
    )
    groups: list[dict] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "print_log", lambda *_, **__: None)
        constructor.add_params(groups, Model())
    expected = {
        renamed[name]: (group["lr_scale"], group["weight_decay"])
        for group in groups
        for name in group["param_names"]
    }
    found = settings(task)
    assert found.keys() == expected.keys()
    for name, (scale, decay) in expected.items():
        assert found[name] == (pytest.approx(scale), decay), name


def test_no_decay_of_the_other_kinds(four):
    kinds = ("one_dimensional", "bias", "pos_embed", "cls_token", "relative_position")
    found = settings(make(four, no_decay=kinds))
    tables = [f"backbone.blocks.{i}.attn.relative_position_bias_table" for i in range(4)]
    for name in ("backbone.pos_embed", "backbone.cls_token", *tables):
        assert found[name][1] == 0
    assert found["backbone.blocks.0.attn.qkv.weight"][1] == 0.05
    assert all(decay == 0.05 for _, decay in settings(make(four, no_decay=())).values())


def test_scores_and_files(four, tmp_path):
    task = make(four).train()
    found = task.evaluate(Scoring(workers=0, batch_size=4, folder=tmp_path)).metrics
    assert set(found) == {"miou", "macc", "aacc"}
    assert task.training
    kept = {file.name for file in tmp_path.iterdir()}
    assert kept == {"per_class.csv", "predictions.png", "predictions"}
    assert len(list((tmp_path / "predictions").iterdir())) == 4
    again = task.evaluate(Scoring(workers=0, batch_size=1)).metrics
    assert again == pytest.approx(found, abs=1e-2)


def test_scales_and_mirror_images(four):
    """Below 1, the shortest side stays a crop's; a network that ignores mirroring is symmetric."""
    task = make(four, scale=(384, 96), test_scales=(0.5, 1.0, 1.5), test_flip=True)
    assert task.test_scales() == [(384, 64), (384, 96), (576, 144)]
    assert set(task.evaluate(Scoring(workers=0, batch_size=8)).metrics) == {"miou", "macc", "aacc"}
    image = torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8)
    with torch.no_grad():
        task.eval()
        one = task.predict([image], (96, 128), 8)
        other = task.predict([image.flip(-1)], (96, 128), 8)
    assert (one.flip(-1) == other).float().mean() > 0.99


def test_own_data_count_their_own_epochs(four):
    """The recipe's 16,000 images are an epoch of the official data alone."""
    task = make(four, epoch_images=16_000)
    assert task.epoch_images is None
    facts = task.data_facts()
    assert (facts["train_images"], facts["val_images"], facts["standard"]) == (4, 4, False)
    assert (facts["name"], facts["classes"]) == ("ade20k", 16)


def test_missing_data_are_named(tmp_path):
    with pytest.raises(TaskError, match="does not exist"):
        make(tmp_path / "nowhere")


def test_unreadable_images_are_counted(four, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "ADEChallengeData2016").symlink_to(four)
    broken = few_images(tmp_path / "source", tmp_path / "broken", 3)
    task = make(broken)
    (broken / task.data.val.names[1]).write_bytes(b"no image")
    (left_out,) = task.evaluate(Scoring(workers=0, batch_size=8)).unreadable
    assert left_out.reason.startswith("is not an")


def test_heads_have_synchronised_norms_alone(four):
    task = make(four)
    kinds = {type(m).__name__ for m in task.modules() if isinstance(m, nn.BatchNorm2d)}
    assert kinds == {"SyncBatchNorm"}
