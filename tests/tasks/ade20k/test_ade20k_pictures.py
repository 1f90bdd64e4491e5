"""Sheets of segmentations: colours as in the legend, numbers as mmsegmentation's."""

import numpy as np
import pytest
import torch
from mmseg.utils import ade_palette

from tasks.ade20k.datasets import IGNORED
from tasks.ade20k.evaluation import areas, figures
from tasks.ade20k.pictures import ERROR, SIDE, colours, compared, iou, legend, wrong
from tasks.pictures import class_colour


class Data:
    def __init__(self, official, count):
        self.official, self.classes = official, tuple(f"c{i}" for i in range(count))


def test_ade20k_has_its_own_colours():
    assert colours(Data(True, 150))[:150].tolist() == ade_palette()
    own = colours(Data(False, 150))
    assert own[3].tolist() == list(class_colour(3))
    assert own[IGNORED].tolist() == [0, 0, 0]


def test_iou_of_an_image_is_mmsegmentations():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (30, 40)).astype(np.uint8)
    labels[:4] = IGNORED
    predicted = np.where(rng.random((30, 40)) < 0.6, labels, 3).astype(np.uint8)
    predicted[predicted == IGNORED] = 6
    found = areas(torch.from_numpy(predicted), torch.from_numpy(labels), 8)
    assert iou(labels, predicted) == pytest.approx(figures(found)[0]["miou"], abs=1e-4)
    assert iou(np.full((3, 3), IGNORED, np.uint8), predicted[:3, :3]) is None


def test_predictions_are_drawn_in_the_colours_of_the_legend():
    """And the photograph shows through nowhere."""
    palette = colours(Data(False, 4))
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[:, SIDE // 2 :] = 1
    labels[:10] = IGNORED
    predicted = np.where(labels == 1, 2, labels).astype(np.uint8)
    predicted[predicted == IGNORED] = 2
    plain, truth, found, errors = (
        np.asarray(each)[:SIDE] for each in compared(image, labels, predicted, palette)
    )
    assert (plain == image).all()
    seen = {tuple(pixel) for pixel in found.reshape(-1, 3).tolist()}
    assert seen == {class_colour(0), class_colour(2), (255, 255, 255)}
    assert (0, 0, 0) in {tuple(pixel) for pixel in truth[:9].reshape(-1, 3).tolist()}
    red = (errors == ERROR).all(-1)
    assert red[12:, SIDE // 2 :].all()
    assert not red[:, : SIDE // 2 - 1].any()
    assert not red[:9].any()
    assert wrong(labels, predicted) == "50.0 % of labelled pixels"
    square = np.asarray(legend([("two", palette[2])], 200))[4, 16]
    assert tuple(square.tolist()) == class_colour(2)
