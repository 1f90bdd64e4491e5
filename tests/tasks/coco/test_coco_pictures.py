"""Sheets of detections: outlines only, names that do not lie on each other."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage

from tasks.coco import pictures
from tasks.coco.pictures import SIDE, counted, outline, outlined, overlap, thick

DATA = SimpleNamespace(classes=("cat", "dog"), category_ids=[1, 2], masks=True)


def truth():
    known = COCO()
    known.dataset = {
        "images": [{"id": 1, "width": SIDE, "height": SIDE}],
        "annotations": [],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    known.createIndex()
    return known


def instance(x, y, w, h, score=0.9):
    ring = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {
        "image_id": 1, "category_id": 1, "bbox": [x, y, w, h], "segmentation": [ring],
        "score": score,
    }  # fmt: skip


def test_an_outline_is_the_mask_without_its_erosion():
    mask = np.random.default_rng(0).random((40, 50)) < 0.8
    cross = ndimage.generate_binary_structure(2, 1)
    assert (outline(mask) == mask & ~ndimage.binary_erosion(mask, cross)).all()
    assert (thick(mask) == ndimage.binary_dilation(mask, cross)).all()


def test_the_inside_of_an_object_keeps_its_colours():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    drawn = np.asarray(outlined(image, [instance(100, 100, 200, 200)], truth(), DATA))
    assert (drawn[130:270, 130:270] == np.asarray(image)[130:270, 130:270]).all()
    assert (drawn[200, 96:106] != np.asarray(image)[200, 96:106]).any()


def test_names_do_not_collide(monkeypatch):
    kept = []
    real = pictures.name_box

    def spy(draw, each, corners, taken, data, size):
        real(draw, each, corners, taken, data, size)
        kept[:] = taken

    monkeypatch.setattr(pictures, "name_box", spy)
    rng = np.random.default_rng(0)
    crowd = [instance(*rng.uniform(80, 120, 2), 60, 60, score) for score in rng.random(40)]
    outlined(Image.new("RGB", (SIDE, SIDE)), crowd, truth(), DATA)
    assert 3 <= len(kept) < 40
    assert not any(overlap(a, b) for a, b in itertools.combinations(kept, 2))
    assert all(x0 >= 0 and y0 >= 0 and x1 <= SIDE and y1 <= SIDE for x0, y0, x1, y1 in kept)


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "1 object"), (2, "2 objects"), (201, "201 objects, 200 of them drawn")],
)
def test_what_is_drawn_is_counted(number, words):
    assert counted([instance(0, 0, 9, 9)] * number) == words
