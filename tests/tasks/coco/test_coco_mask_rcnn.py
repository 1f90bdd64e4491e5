"""The torchvision engine against numbers that detectron2 gave, and against detectron2 itself."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from detectron2_numbers import (
    FILE,
    NUM_CLASSES,
    build,
    case,
    compute,
    detectron2_levels,
    inputs,
    noise,
    our_levels,
)
from torch import Tensor

from tasks.coco.mask_rcnn import Anchors, MaskRCNN, pool
from tasks.coco.pyramid import LEVELS
from tasks.coco.recipes import CocoRecipe, recipe

EXPECTED = json.loads(FILE.read_text())
PROTOCOLS = ("mask_rcnn-vitdet", "mask_rcnn-fpn")


@pytest.fixture(scope="module")
def numbers() -> dict[str, Any]:
    vit, pyramid, detector = build()
    return compute(our_levels(vit.eval(), pyramid.eval()), detector)


def test_features_are_detectron2s(numbers):
    for name, expected in EXPECTED["features"].items():
        assert numbers["features"][name] == pytest.approx(expected, rel=1e-4, abs=1e-5), name


def test_losses_are_detectron2s(numbers):
    assert numbers["losses"].keys() == EXPECTED["losses"].keys()
    for name, expected in EXPECTED["losses"].items():
        assert numbers["losses"][name] == pytest.approx(expected, rel=2e-5), name


def test_detections_are_detectron2s(numbers):
    for ours, expected in zip(numbers["detections"], EXPECTED["detections"], strict=True):
        assert ours["labels"] == expected["labels"]
        np.testing.assert_allclose(ours["boxes"], expected["boxes"], atol=2e-3)
        np.testing.assert_allclose(ours["scores"], expected["scores"], atol=1e-5)
        np.testing.assert_allclose(ours["mask_sums"], expected["mask_sums"], rtol=1e-4)


def test_the_pinned_case_is_no_easy_one():
    """Every loss is at work, several classes are found, and boxes reach the image's edge."""
    assert all(value > 1e-4 for value in EXPECTED["losses"].values())
    labels = {label for each in EXPECTED["detections"] for label in each["labels"]}
    assert len(labels) > 1
    assert any(box[0] == 0 for each in EXPECTED["detections"] for box in each["boxes"])


def test_the_fixture_is_what_detectron2_computes():
    pytest.importorskip("detectron2")
    from tasks.coco.detectron2_engine import Detectron2MaskRCNN, from_torchvision

    vit, pyramid, detector = build()
    engine = Detectron2MaskRCNN(case(), NUM_CLASSES)
    engine.load_state_dict(from_torchvision(detector.state_dict()))
    found = compute(detectron2_levels(vit.eval(), pyramid.eval()), engine)
    for name, expected in EXPECTED["losses"].items():
        assert found["losses"][name] == pytest.approx(expected, rel=1e-6), name
    for one, other in zip(found["detections"], EXPECTED["detections"], strict=True):
        np.testing.assert_allclose(one["boxes"], other["boxes"], rtol=1e-6, atol=1e-5)


def small(protocol: str, **changes: Any) -> CocoRecipe:
    """The published recipe of ViT-B with narrow heads, at 256 pixels."""
    narrow = {"image_size": 256, "pyramid_channels": 32, "box_head_dim": 48, **changes}
    return dataclasses.replace(recipe("coco", "vit_b", protocol), **narrow)


def random_levels(recipe: CocoRecipe) -> dict[str, Tensor]:
    side = 4 * recipe.image_size // recipe.patch_size
    shape = (2, recipe.pyramid_channels)
    return {
        name: noise((*shape, side >> i, side >> i), i).requires_grad_()
        for i, name in enumerate(LEVELS)
    }


def engines(recipe: CocoRecipe) -> tuple[MaskRCNN, Any]:
    """Both, with equal and loud weights."""
    pytest.importorskip("detectron2")
    from tasks.coco.detectron2_engine import Detectron2MaskRCNN, from_torchvision

    torch.manual_seed(0)
    ours, theirs = MaskRCNN(recipe, 7), Detectron2MaskRCNN(recipe, 7)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if any(word in name for word in ("bbox_pred", "cls", "mask_fcn_logits")):
                parameter.normal_(std=0.05)
    theirs.load_state_dict(from_torchvision(ours.state_dict()))
    return ours, theirs


@pytest.mark.parametrize("bitmaps", [False, True])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_losses_and_gradients_equal_detectron2s(protocol, bitmaps):
    """With sampling: both draw the same anchors and proposals from one seed."""
    setup = small(protocol, rpn_batch=64, roi_batch=64)
    ours, theirs = engines(setup)
    _, _, targets = inputs()
    for target in targets:
        target["boxes"] = 3 * target["boxes"]
        target["masks"] = [[3 * ring for ring in mask] for mask in target["masks"]]
    if bitmaps:
        block = np.zeros((256, 256), bool)
        block[40:150, 24:99] = True
        targets[0]["masks"] = [block, block.T]
    targets[1] = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "masks": []}
    sizes = torch.tensor([[256, 256], [200, 256]])
    results = []
    for engine in (ours, theirs):
        levels = random_levels(setup)
        torch.manual_seed(5)
        losses = engine.losses(levels, torch.zeros(2, 3, 256, 256), sizes, targets)
        torch.stack(list(losses.values())).sum().backward()
        results.append((losses, {name: level.grad for name, level in levels.items()}))
    (losses, grads), (their_losses, their_grads) = results
    for name, value in their_losses.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-5, atol=1e-6, msg=name)
    for name, grad in their_grads.items():
        scale = grad.abs().max().item()
        torch.testing.assert_close(grads[name], grad, rtol=1e-4, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_detections_equal_detectron2s(protocol):
    setup = small(protocol)
    ours, theirs = (engine.eval() for engine in engines(setup))
    sizes = torch.tensor([[256, 230], [180, 256]])
    images = torch.zeros(2, 3, 256, 256)
    with torch.no_grad():
        levels = random_levels(setup)
        found, expected = (each.detect(levels, images, sizes) for each in (ours, theirs))
    for one, other in zip(found, expected, strict=True):
        assert len(one.boxes) == 100
        assert torch.equal(one.labels, other.labels)
        torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-6)
        torch.testing.assert_close(one.masks, other.masks, rtol=0, atol=1e-5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_initial_weights_are_spread_as_detectron2s(protocol):
    """Deviation and largest value of every tensor, over thousands of draws."""
    pytest.importorskip("detectron2")
    from tasks.coco.detectron2_engine import Detectron2MaskRCNN, from_torchvision

    setup = small(protocol, pyramid_channels=128, box_head_dim=256)
    torch.manual_seed(1)
    ours = from_torchvision(MaskRCNN(setup, 80).state_dict())
    theirs = Detectron2MaskRCNN(setup, 80).state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if value.numel() < 300:  # biases and norms, which are constants
            assert torch.equal(ours[name], value), name
        else:
            assert ours[name].std() == pytest.approx(value.std().item(), rel=0.15), name
            assert ours[name].abs().max() == pytest.approx(value.abs().max().item(), rel=0.4), name


def test_anchors_by_hand():
    """Area size², height / width as given, around the cell's corner, not rounded."""
    (anchors,) = Anchors([(10,)], [(0.5, 1.0, 2.0)]).cell_anchors
    root = 2**0.5
    expected = [[-5 * root, -5 / root, 5 * root, 5 / root], [-5, -5, 5, 5]]
    expected.append([-5 / root, -5 * root, 5 / root, 5 * root])
    torch.testing.assert_close(anchors, torch.tensor(expected), rtol=1e-6, atol=0)


def test_regions_come_from_the_level_of_their_size():
    """With patch 16: 112 pixels from p3, 224 from p4, 448 from p5, larger ones from p5 too."""
    levels = [torch.full((1, 1, 256 >> i, 256 >> i), float(i)) for i in range(4)]
    sides = [10.0, 111.0, 112.5, 223.0, 224.5, 447.0, 449.0, 900.0]
    boxes = torch.tensor([[0.0, 0.0, side, side] for side in sides])
    pooled = pool(levels, [boxes], 2, patch_size=16)
    assert pooled[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_images_without_things_still_train_every_weight():
    """So that several processes agree on which gradients there are."""
    setup = small("mask_rcnn-fpn")
    torch.manual_seed(0)
    engine = MaskRCNN(setup, 3)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "masks": []}
    sizes = torch.tensor([[256, 256], [100, 40]])
    losses = engine.losses(random_levels(setup), torch.zeros(2, 3, 256, 256), sizes, [empty] * 2)
    torch.stack(list(losses.values())).sum().backward()
    assert losses["loss_mask"] == 0
    assert losses["loss_rpn_cls"] > 0
    for name, parameter in engine.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_bf16_keeps_pixels():
    """Boxes of a large image are not rounded to what bfloat16 can hold."""
    setup = small("mask_rcnn-vitdet")
    engine = MaskRCNN(setup, 3).eval()
    levels, sizes = random_levels(setup), torch.tensor([[251, 253]] * 2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = {name: level.bfloat16() for name, level in levels.items()}
        found, _ = engine.propose(
            {name: level.float() for name, level in half.items()},
            torch.zeros(2, 3, 256, 256),
            sizes,
            None,
        )
        detections = engine.detect(half, torch.zeros(2, 3, 256, 256), sizes)
    assert all(each.dtype == torch.float32 for boxes in detections for each in boxes[:2])
    assert any(not torch.equal(boxes, boxes.bfloat16().float()) for boxes in found)
