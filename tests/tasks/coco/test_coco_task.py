"""COCO as a task: training, groups, normalisation, and what two protocols learn by heart."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from coco_world import few_images
from torch import nn

import backbones
from mae_bench.optim import parameter_groups
from tasks import build
from tasks.coco.recipes import CocoRecipe, recipe
from tasks.coco.task import Coco
from tasks.errors import TaskError
from tasks.task import Scoring

PROTOCOLS = ("mask_rcnn-vitdet", "mask_rcnn-fpn")


@pytest.fixture(scope="session")
def four(coco_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_images(coco_world, tmp_path_factory.mktemp("four") / "coco", 4)


def make(root: Path, protocol: str = "mask_rcnn-vitdet", **changes: Any) -> Coco:
    found = dataclasses.replace(recipe("coco", "vit_mini", protocol), **changes)
    torch.manual_seed(0)
    vit = backbones.create("vit_mini", **found.backbone_options())
    task = build("coco", found, vit, root, seed=0)
    assert isinstance(task, Coco)
    return task


@pytest.mark.slow
def test_four_images_are_learnt_by_heart(four, tmp_path):
    """From random weights, one at a time, without jitter: box AP 90, mask AP 80 and above."""
    few = {"proposals": 30, "rpn_candidates": (60, 60), "mask_head_convs": 2}
    task = make(four, min_scale=1.0, max_scale=1.0, flip_prob=0.0, **few)
    steps, rate = 900, 7e-4
    optimizer = torch.optim.AdamW(task.parameters(), lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1
    )
    for step in range(steps):
        torch.manual_seed(step)
        task(task.train_data.__getitems__([(0, step % 4)]))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if (step + 1) % 150 == 0:
            scores = task.evaluate(Scoring(workers=0, batch_size=4)).metrics
            if scores["ap_box"] >= 90 and scores["ap_mask"] >= 80:
                break
            task.train()
    assert scores["ap_box"] >= 90
    assert scores["ap_mask"] >= 80


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_losses_sum_and_every_weight_trains(four, protocol):
    task = make(four, protocol)
    batch = task.train_data.__getitems__([(0, 0), (0, 1)])
    losses = task(batch)
    names = {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}
    assert set(losses) == {"loss"} | names
    total = sum(losses[name] for name in names)
    torch.testing.assert_close(losses["loss"], total)
    losses["loss"].backward()
    without = [name for name, p in task.named_parameters() if p.grad is None]
    assert without == []


def test_padding_is_zero_after_normalisation(four):
    """Not black before it: detectron2 pads normalised images."""
    task = make(four)
    images = torch.full((1, 3, 96, 96), 255, dtype=torch.uint8)
    found = task.normalise(images, torch.tensor([[50, 70]]))
    inside = (255 - 255 * torch.tensor([0.485, 0.456, 0.406])) / (
        255 * torch.tensor([0.229, 0.224, 0.225])
    )
    torch.testing.assert_close(found[0, :, 49, 69], inside)
    assert found[0, :, 50:].abs().sum() == found[0, :, :, 70:].abs().sum() == 0


def decayed(task: Coco) -> set[str]:
    groups = parameter_groups(task, task.recipe)
    kept = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    return {name for name, p in task.named_parameters() if id(p) in kept}


def test_what_decays_is_detectron2s(four):
    """By its own function, on modules of the kinds that it looks for.

    The names differ, so what is compared is each parameter's fate by its owner's kind: torch's
    norm layers and pos_embed are exempt, biases and relative positions are not. The channel-wise
    norms of pyramid and heads are torch norms here and none in detectron2, where they decay.
    """
    solver = pytest.importorskip("detectron2.solver.build")
    task = make(four)
    groups = solver.get_default_optimizer_params(
        task.backbone,
        base_lr=1.0,
        weight_decay=0.1,
        weight_decay_norm=0.0,
        overrides={"pos_embed": {"weight_decay": 0.0}},
    )
    theirs = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    ours = decayed(task)
    for name, parameter in task.backbone.named_parameters():
        assert (f"backbone.{name}" in ours) == (id(parameter) in theirs), name
    others = {n for n, _ in task.named_parameters() if not n.startswith("backbone.")}
    assert others <= ours


def test_no_decay_of_the_other_recipes(four):
    """ViT-H's decays everything; the FPN protocol's spares norms, positions and bias tables."""
    everything = make(four, no_decay=())
    assert decayed(everything) == {name for name, _ in everything.named_parameters()}
    task = make(four, "mask_rcnn-fpn")
    spared = {name for name, _ in task.named_parameters()} - decayed(task)
    norms = {
        f"{name}.{each}"
        for name, module in task.named_modules()
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d))
        for each in ("weight", "bias")
    }
    assert spared == norms | {"backbone.pos_embed", "backbone.rel_pos_global"}


def test_layer_rates_are_detectron2s(four):
    """0.7 to the power of the layers above; the formula is get_vit_lr_decay_rate's."""
    rate = pytest.importorskip("detectron2.modeling.backbone.vit").get_vit_lr_decay_rate
    task = make(four, layer_decay=0.7)
    scale = {
        id(p): group["lr_scale"]
        for group in parameter_groups(task, task.recipe)
        for p in group["params"]
    }
    for name, parameter in task.named_parameters():
        theirs = name.replace("backbone.", "backbone.net.")
        assert scale[id(parameter)] == pytest.approx(rate(theirs, 0.7, task.backbone.depth)), name


def test_own_data_count_their_own_epochs(four):
    """The recipe's 118,000 images are an epoch of the official data alone."""
    task = make(four, epoch_images=118_000)
    assert task.epoch_images is None
    facts = task.data_facts()
    assert (facts["train_images"], facts["val_images"], facts["standard"]) == (4, 4, False)


def test_a_missing_engine_is_named_with_its_fix(four, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tasks.coco.detectron2_engine", None)
    with pytest.raises(TaskError, match=r"--engine detectron2: .*pip install"):
        make(four, engine="detectron2")


def test_the_detectron2_engine_trains_and_scores(four):
    pytest.importorskip("detectron2")
    task = make(four, engine="detectron2", rpn_batch=16, roi_batch=16)
    losses = task(task.train_data.__getitems__([(0, 0), (0, 1)]))
    losses["loss"].backward()
    assert [name for name, p in task.named_parameters() if p.grad is None] == []
    assert "ap_box" in task.evaluate(Scoring(workers=0, batch_size=2)).metrics


def test_both_engines_score_alike(four):
    """The whole way from images to AP, with equal weights that find something."""
    pytest.importorskip("detectron2")
    from tasks.coco.detectron2_engine import from_torchvision

    ours = make(four, score_threshold=0.0)
    theirs = make(four, engine="detectron2", score_threshold=0.0)
    state = ours.state_dict()
    engine = {k.removeprefix("detector."): v for k, v in state.items() if k.startswith("detector.")}
    theirs.detector.load_state_dict(from_torchvision(engine))
    for part in ("backbone", "pyramid"):
        getattr(theirs, part).load_state_dict(getattr(ours, part).state_dict())
    one, other = (
        task.evaluate(Scoring(workers=0, batch_size=2)).metrics for task in (ours, theirs)
    )
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value == pytest.approx(other[name], abs=1e-6), name


def test_recipes_are_frozen_and_typed():
    found = recipe("coco", "vit_b", "mask_rcnn-vitdet")
    assert isinstance(found, CocoRecipe)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.proposals = 5
