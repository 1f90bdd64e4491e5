"""Mask targets, pasting and run lengths, by hand and against detectron2 and pycocotools."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask

from tasks.coco import masks as module
from tasks.coco.masks import Bitmap, crop_targets, draw, paste, runs

SQUARE = [np.array([[2.0, 2.0], [10.0, 2.0], [10.0, 10.0], [2.0, 10.0]])]


def test_a_square_in_its_own_box_fills_it():
    target = crop_targets([SQUARE], torch.tensor([[2.0, 2.0, 10.0, 10.0]]), 4)
    assert target.all()


def test_half_a_square_by_hand():
    """A box twice as wide as the square, which lies in its left half."""
    (target,) = crop_targets([SQUARE], torch.tensor([[2.0, 2.0, 18.0, 10.0]]), 4)
    assert target.tolist() == [[True, True, False, False]] * 4


def test_a_bitmap_in_a_shifted_box_by_hand():
    bitmap = np.zeros((12, 12), bool)
    bitmap[2:10, 2:10] = True
    (target,) = crop_targets([bitmap], torch.tensor([[6.0, 2.0, 14.0, 10.0]]), 4)
    assert target.tolist() == [[True, True, False, False]] * 4


def test_a_bitmap_is_kept_as_run_lengths():
    pixels = np.random.default_rng(0).random((90, 70)) > 0.8
    bitmap = Bitmap.of(pixels)
    assert bitmap == Bitmap.of(pixels.copy()) != Bitmap.of(~pixels)
    assert bitmap.shape == (90, 70)
    np.testing.assert_array_equal(np.asarray(bitmap), pixels)
    box = torch.tensor([[3.3, 5.1, 44.0, 61.7]])
    assert torch.equal(crop_targets([bitmap], box, 28), crop_targets([pixels], box, 28))
    large = np.zeros((1024, 1024), bool)
    large[100:900, 300:700] = True
    assert len(pickle.dumps(Bitmap.of(large))) < 10_000


def test_targets_equal_detectron2s():
    pytest.importorskip("detectron2")
    from detectron2.structures import BitMasks, PolygonMasks

    rng = np.random.default_rng(0)
    polygons, bitmaps, boxes = [], [], []
    for _ in range(40):
        rings = [rng.uniform(0, 60, (rng.integers(3, 9), 2)) for _ in range(rng.integers(1, 3))]
        polygons.append(rings)
        bitmaps.append(draw([ring.ravel().tolist() for ring in rings], 64, 64))
        x, y = rng.uniform(0, 40, 2)
        boxes.append([x, y, x + rng.uniform(0.01, 30), y + rng.uniform(0.01, 30)])
    box = torch.tensor(boxes)
    theirs = PolygonMasks([[ring.ravel() for ring in rings] for rings in polygons])
    assert torch.equal(crop_targets(polygons, box, 28), theirs.crop_and_resize(box, 28))
    theirs = BitMasks(np.stack(bitmaps))
    assert torch.equal(crop_targets(bitmaps, box, 28), theirs.crop_and_resize(box, 28))


def test_a_full_mask_pastes_its_box():
    """Of a box at half pixels, the pixels whose centres lie inside."""
    pasted = coco_mask.decode(paste(torch.ones(4, 4), torch.tensor([1.6, 2.0, 5.4, 7.0]), 10, 10))
    rows, columns = np.nonzero(pasted)
    assert (rows.min(), columns.min()) == (2, 2)
    assert (rows.max(), columns.max()) == (6, 4)
    assert pasted.sum() == 5 * 3


def drawn(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks of random probabilities, and boxes in an image 90 wide and 70 high."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(count, 28, 28, generator=generator)
    corner = 60 * torch.rand(count, 2, generator=generator)
    box = torch.cat([corner, corner + 0.3 + 40 * torch.rand(count, 2, generator=generator)], dim=1)
    box = torch.minimum(box, torch.tensor([90.0, 70.0, 90.0, 70.0]))
    box[:3] = torch.tensor([[0.0, 0.0, 90.0, 70.0], [89.5, 69.5, 90.0, 70.0], [3.0, 3.0, 3.2, 9.0]])
    kept = (box[:, 2:] > box[:, :2]).all(dim=1)
    return masks[kept], box[kept]


@pytest.mark.parametrize("pixels", [2**20, 300, 1])
def test_pasting_is_one_lookup_of_each_pixel_centre(monkeypatch, pixels):
    """All pixels of the image by one call of torch, cut at 0.5; by stripes of any width."""
    monkeypatch.setattr(module, "STRIPE_PIXELS", pixels)
    masks, boxes = drawn(40)
    masks[:2] = 1.0  # a full one touches both ends of its columns, and of the image's
    for mask, box in zip(masks, boxes, strict=True):
        x = (torch.arange(90) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
        y = (torch.arange(70) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
        whole = F.grid_sample(mask[None, None], grid, align_corners=False)[0, 0] >= 0.5
        encoded = coco_mask.encode(np.asfortranarray(whole.numpy().astype(np.uint8)))
        assert paste(mask, box, 70, 90) == {**encoded, "counts": encoded["counts"].decode()}


def test_pasting_equals_detectron2s():
    pytest.importorskip("detectron2")
    from detectron2.layers import paste_masks_in_image

    masks, boxes = drawn(50)
    theirs = paste_masks_in_image(masks, boxes, (70, 90)).numpy()
    for mask, box, their in zip(masks, boxes, theirs, strict=True):
        np.testing.assert_array_equal(coco_mask.decode(paste(mask, box, 70, 90)), their)


def test_a_mask_of_a_photograph_is_pasted_by_stripes(monkeypatch):
    """No part that is ever made is as large as the image."""
    seen: list[int] = []

    def counted(inside: np.ndarray, *place: int) -> np.ndarray:
        seen.append(inside.size)
        return runs(inside, *place)

    monkeypatch.setattr(module, "runs", counted)
    rle = paste(torch.ones(28, 28), torch.tensor([2.0, 2.0, 4000.0, 3900.0]), 4000, 4096)
    assert coco_mask.area(rle) == pytest.approx(3998 * 3898, rel=0.04)
    assert max(seen) <= module.STRIPE_PIXELS
    assert sum(seen) >= 3998 * 3898


def test_an_empty_mask_has_one_run():
    rle = paste(torch.zeros(4, 4), torch.tensor([1.0, 1.0, 5.0, 5.0]), 10, 10)
    assert coco_mask.decode(rle).sum() == 0
    assert coco_mask.area(rle) == 0
