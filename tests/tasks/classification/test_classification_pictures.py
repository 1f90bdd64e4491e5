"""The sheet of a classifier's answers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

from tasks.classification import layout, pictures
from tasks.classification.accuracy import Report, answers, finish
from tasks.classification.pictures import LABEL, MOST_CELL, classified_sheet, matrix, tile, worst

NAMES = tuple(f"class {i}" for i in range(100))


def test_cells_are_sklearns_confusion_matrix():
    """In shades from white to DARK."""
    rng = np.random.default_rng(0)
    targets, answers = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    drawn = np.asarray(matrix(targets, answers, np.arange(4), NAMES)).astype(float)
    expected = confusion_matrix(targets, answers, normalize="true")
    corner = LABEL + np.arange(4) * MOST_CELL + 2  # where no number is
    shades = drawn[corner][:, corner, 0]
    assert (255 - shades) / 255 == pytest.approx(expected, abs=1 / 255)


def test_of_many_classes_those_with_the_most_errors_are_shown():
    targets = np.repeat(np.arange(100), 10)
    answers = targets.copy()
    answers[targets == 70] = 71
    assert {70, 71} <= set(worst(targets, answers, 100).tolist())
    assert len(worst(targets, answers, 100)) == pictures.MOST_SHOWN
    few = np.array([5, 9])
    assert worst(few, few, 100).tolist() == [5, 9]


def test_bars_are_as_long_as_probabilities_and_blue_for_the_true_class():
    pixels = np.full((64, 64, 3), 128, np.uint8)
    best, shares = np.array([3, 1]), np.array([0.75, 0.25])
    drawn = np.asarray(tile(pixels, 1, best, shares, NAMES))
    beside = drawn[:, pictures.SIDE + pictures.MARGIN :]

    def longest(colour):
        return (beside == colour).all(-1).any(0).nonzero()[0].max() + 1

    assert longest(pictures.OTHER) == pytest.approx(0.75 * pictures.ANSWERS, abs=2)
    assert longest(pictures.TRUE) == pytest.approx(0.25 * pictures.ANSWERS, abs=2)


def test_a_run_keeps_the_sheet(world: Path, tmp_path: Path) -> None:
    data = layout.read("imagenet1k", world / "imagenet1k")
    logits = torch.randn(len(data.val), 10)
    rows = torch.arange(len(data.val))
    part = answers(logits, torch.from_numpy(data.val.targets), rows)
    report = Report(data.val.names, data.classes, folder=tmp_path, images=data.val)
    finish([part], report)
    assert (tmp_path / "predictions.png").stat().st_size > 10_000


@pytest.mark.parametrize("hits", [0, 12, 24])
def test_a_sheet_of_any_answers(hits: int, world: Path, tmp_path: Path):
    data = layout.read("imagenet1k", world / "imagenet1k")
    targets = data.val.targets
    first = np.where(np.arange(len(targets)) < hits, targets, (targets + 1) % 10)
    best = np.stack([first, (first + 3) % 10], axis=1)
    shares = np.tile([0.7, 0.2], (len(targets), 1))
    index = np.arange(len(targets))
    classified_sheet(index, targets, best, shares, data.val, data.classes, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as sheet:
        assert (sheet.format, sheet.mode) == ("PNG", "RGB")
        assert np.asarray(sheet).std() > 10
