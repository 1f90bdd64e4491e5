"""Sliding windows against mmsegmentation's, and views put together."""

import dataclasses
import warnings

import pytest
import torch
import torch.nn.functional as F
from mmseg_twin import copy_weights, encoder_decoder, randomise
from torch import Tensor, nn

from tasks.ade20k import slide as module
from tasks.ade20k.recipes import recipe
from tasks.ade20k.slide import at_size, classes, rows_at_size, slide, starts
from tasks.ade20k.upernet import UperNet, resize

SIDE, CLASSES = 32, 5
RECIPE = dataclasses.replace(
    recipe("ade20k", "vit_mini", "upernet-512-160k"), head_channels=8, aux_channels=8
)


class Pyramid(nn.Module):
    """A backbone of any size: four maps from one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 8, 8)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self.conv(images)
        return found, found.sin(), found.cos(), found.tanh()


def by_mmseg(stride: int):
    """Its slide inference, and the same network's logits function."""
    torch.manual_seed(0)
    backbone, ours = Pyramid(), UperNet(RECIPE, 16, CLASSES)
    randomise(ours)
    theirs = encoder_decoder(
        RECIPE, 16, CLASSES, mode="slide", crop_size=(SIDE, SIDE), stride=(stride, stride)
    )
    copy_weights(ours, theirs)
    theirs.backbone = backbone
    ours.eval(), theirs.eval()

    class Config(dict):
        __getattr__ = dict.__getitem__

    theirs.test_cfg = Config(theirs.test_cfg)

    def run(image: Tensor) -> Tensor:
        meta = [{"ori_shape": image.shape[1:], "img_shape": image.shape[1:]}]
        return theirs.slide_inference(image[None], meta)[0]

    return run, lambda windows: resize(ours(backbone(windows)), windows.shape[-2:])


@pytest.mark.parametrize("size", [(32, 32), (32, 53), (70, 41), (64, 75)])
@pytest.mark.parametrize("stride", [21, 32, 8])
@torch.no_grad()
def test_equals_mmseg(size, stride):
    theirs, logits = by_mmseg(stride)
    image = torch.randn(3, *size)
    expected = theirs(image)
    for batch_size in (1, 3):
        found = slide(logits, image, SIDE, stride, batch_size)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        assert torch.equal(found.argmax(0), expected.argmax(0))


@torch.no_grad()
def test_every_window_is_whole_and_no_batch_too_large():
    seen: list[tuple[int, ...]] = []

    def logits(windows: Tensor) -> Tensor:
        seen.append(tuple(windows.shape))
        return windows

    image = torch.randn(3, 20, 75)
    found = slide(logits, image, SIDE, 21, 2)
    torch.testing.assert_close(found, image)  # a short side is padded, and cut again
    assert seen == [(2, 3, 32, 32), (2, 3, 32, 32)]


def test_starts():
    assert starts(512, 512, 341) == [0]
    assert starts(513, 512, 341) == [0, 1]
    assert starts(683, 512, 341) == [0, 171]
    assert starts(853, 512, 341) == [0, 341]
    assert starts(854, 512, 341) == [0, 341, 342]


def test_one_view_takes_the_largest_logit_at_the_images_size():
    torch.manual_seed(0)
    logits = torch.randn(CLASSES, 9, 12)
    size = (20, 31)
    expected = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0].argmax(0)
    found = classes([(logits, False)], size)
    assert found.dtype == torch.uint8
    assert torch.equal(found.long(), expected)


def test_several_views_are_merged_as_by_mmseg():
    """Its own class, given the logits at the image's size; ours resizes and mirrors before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmengine.structures import PixelData
        from mmseg.models.segmentors import SegTTAModel
        from mmseg.structures import SegDataSample
    torch.manual_seed(0)
    views = [(3 * torch.randn(CLASSES, 9, 12), False), (3 * torch.randn(CLASSES, 14, 20), True)]
    size = (20, 31)
    samples = []
    for logits, mirrored in views:
        whole = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
        sample = SegDataSample(metainfo={"img_path": ""})
        sample.seg_logits = PixelData(data=(whole.flip(-1) if mirrored else whole))
        samples.append(sample)
    model = SegTTAModel.__new__(SegTTAModel)
    nn.Module.__init__(model)
    model.module = nn.Module()
    model.module.out_channels = CLASSES
    (merged,) = model.merge_preds([samples])
    assert torch.equal(classes(views, size).long(), merged.pred_sem_seg.data[0])


@pytest.mark.parametrize("size", [(20, 31), (61, 7), (5, 90), (9, 12), (128, 96)])
@pytest.mark.parametrize("count", [1, 3])
def test_large_images_are_put_together_by_bands(monkeypatch, size, count):
    """The same classes, and logits that differ by rounding alone, from F.interpolate's."""
    torch.manual_seed(count)
    views = [(3 * torch.randn(CLASSES, 9 + n, 12), n == 1) for n in range(count)]
    whole = classes(views, size)
    monkeypatch.setattr(module, "MOST_LOGITS", 0)
    monkeypatch.setattr(module, "BAND_LOGITS", 3 * CLASSES * size[1])
    assert torch.equal(classes(views, size), whole)
    for view in views:
        rows = rows_at_size(*view, size, 2, 5)
        torch.testing.assert_close(rows, at_size(*view, size)[:, 2:5], rtol=1e-5, atol=1e-5)
