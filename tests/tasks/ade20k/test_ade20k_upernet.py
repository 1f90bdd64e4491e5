"""UperNet's losses and logits against mmsegmentation's own segmentor, and its start."""

import dataclasses
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from mmseg_twin import copy_weights, encoder_decoder, randomise
from torch import nn

from tasks.ade20k.recipes import recipe
from tasks.ade20k.upernet import UperNet
from tasks.errors import TaskError
from tasks.norms import SyncBatchNorm

DIM, CLASSES, SIDE = 16, 7, 32
RECIPE = dataclasses.replace(
    recipe("ade20k", "vit_mini", "upernet-512-160k"), head_channels=12, aux_channels=8
)


@pytest.fixture(scope="module")
def both() -> tuple[UperNet, nn.Module]:
    ours = UperNet(RECIPE, DIM, CLASSES)
    randomise(ours)
    theirs = encoder_decoder(RECIPE, DIM, CLASSES)
    copy_weights(ours, theirs)
    return ours, theirs


def inputs() -> tuple[list[torch.Tensor], torch.Tensor]:
    torch.manual_seed(1)
    maps = [torch.randn(2, DIM, 4, 4) for _ in range(4)]
    labels = torch.randint(0, CLASSES, (2, SIDE, SIDE), dtype=torch.uint8)
    labels[0, :10] = 255
    return maps, labels


def test_losses_and_gradients_are_mmsegs(both):
    """With dropout drawn alike, batch statistics, and pixels that do not count in the mean."""
    ours, theirs = (module.train() for module in both)
    maps, labels = inputs()
    theirs.backbone.maps = tuple(maps)
    samples = [
        SimpleNamespace(gt_sem_seg=SimpleNamespace(data=label.long()[None])) for label in labels
    ]
    torch.manual_seed(2)
    expected = theirs.loss(torch.zeros(2, 3, SIDE, SIDE), samples)
    torch.manual_seed(2)
    found = ours.losses(maps, labels)
    torch.testing.assert_close(found["loss_seg"], expected["decode.loss_ce"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["loss_aux"], expected["aux.loss_ce"], rtol=1e-5, atol=1e-6)
    sum(found.values()).backward()
    (expected["decode.loss_ce"] + expected["aux.loss_ce"]).backward()
    gradients = [[p.grad for p in module.parameters()] for module in both]
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def test_logits_are_mmsegs(both):
    ours, theirs = (module.eval() for module in both)
    maps, _ = inputs()
    theirs.backbone.maps = tuple(maps)
    with torch.no_grad():
        found, expected = ours(maps), theirs(torch.zeros(2, 3, SIDE, SIDE))
    assert found.shape == (2, CLASSES, 16, 16)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_mean_is_over_all_pixels():
    """So that a crop full of pixels that do not count has no loss, and half of one half of it."""
    ours = UperNet(RECIPE, DIM, CLASSES).eval()
    maps, labels = inputs()
    labels[:] = 3
    whole = ours.losses(maps, labels)
    labels[:, : SIDE // 2] = 255
    half = ours.losses(maps, labels)
    assert 0 < half["loss_seg"] < whole["loss_seg"]
    labels[:] = 255
    assert all(loss == 0 for loss in ours.losses(maps, labels).values())


def test_the_start():
    """mmsegmentation draws the classifiers with std 0.01 (BaseDecodeHead's init_cfg)."""
    torch.manual_seed(0)
    ours = UperNet(dataclasses.replace(RECIPE, head_channels=256), DIM, 150)
    assert ours.head.conv_seg.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not ours.head.conv_seg.bias.any()
    assert not ours.aux.conv_seg.bias.any()
    assert ours.head.init_cfg == {
        "type": "Normal", "std": 0.01, "override": {"name": "conv_seg"}
    }  # fmt: skip
    norms = [m for m in ours.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) > 10
    assert all(isinstance(norm, SyncBatchNorm) for norm in norms)


def test_two_classes_are_two_channels():
    assert UperNet(RECIPE, DIM, 2).head.conv_seg.out_channels == 2


def test_it_is_silent():
    code = (
        "from tasks.ade20k.upernet import UperNet; from tasks.ade20k.recipes import recipe;"
        "UperNet(recipe('ade20k', 'vit_mini', 'upernet-512-160k'), 16, 2)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert ran.stdout == ran.stderr == b""


def test_a_missing_library_is_named_with_its_fix(monkeypatch):
    monkeypatch.setitem(sys.modules, "mmseg.models.decode_heads", None)
    with pytest.raises(TaskError, match=r"ade20k needs mmsegmentation .*pip install") as error:
        UperNet(RECIPE, DIM, CLASSES)
    assert "\n" not in str(error.value)
