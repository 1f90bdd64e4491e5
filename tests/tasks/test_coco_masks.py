"""Mask targets, pasting and run lengths, by hand and against detectron2 and pycocotools."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from tasks.coco.masks import crop_targets, draw, paste, run_lengths

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
    pasted = paste(torch.ones(1, 4, 4), torch.tensor([[1.6, 2.0, 5.4, 7.0]]), 10, 10)[0]
    assert pasted.nonzero().min(dim=0).values.tolist() == [2, 2]
    assert pasted.nonzero().max(dim=0).values.tolist() == [6, 4]
    assert pasted.sum() == 5 * 3


def test_pasting_equals_detectron2s():
    pytest.importorskip("detectron2")
    from detectron2.layers import paste_masks_in_image

    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(50, 28, 28, generator=generator)
    corner = 60 * torch.rand(50, 2, generator=generator)
    box = torch.cat([corner, corner + 0.3 + 40 * torch.rand(50, 2, generator=generator)], dim=1)
    box = torch.minimum(box, torch.tensor([90.0, 70.0, 90.0, 70.0]))
    box[:3] = torch.tensor([[0.0, 0.0, 90.0, 70.0], [89.5, 69.5, 90.0, 70.0], [3.0, 3.0, 3.2, 9.0]])
    kept = (box[:, 2:] > box[:, :2]).all(dim=1)
    assert torch.equal(
        paste(masks[kept], box[kept], 70, 90),
        paste_masks_in_image(masks[kept], box[kept], (70, 90)),
    )


def test_run_lengths_decode_to_the_masks():
    masks = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(1)) > 0.5
    for rle, mask in zip(run_lengths(masks), masks, strict=True):
        assert isinstance(rle["counts"], str)
        assert (coco_mask.decode(rle) == mask.numpy()).all()
    assert run_lengths(masks[:0]) == []
