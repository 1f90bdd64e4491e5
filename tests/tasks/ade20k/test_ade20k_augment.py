"""Resize, crop, mirror and colours against mmsegmentation's own transforms with equal draws."""

import sys
from typing import Any

import mmcv
import numpy as np
import pytest
import torch
from ade20k_files import stripes
from mmcv.transforms import RandomResize
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PhotoMetricDistortion, RandomCrop, RandomFlip, Resize
from mmseg.structures import SegDataSample
from mmseg.utils import stack_batch
from pictures import picture

from tasks.ade20k import augment
from tasks.ade20k.augment import (
    Augment,
    distort,
    draw_crop,
    fitted_size,
    pad_image,
    pad_labels,
    resize_for_test,
)

CROP, SCALE, RATIO, SHARE = 64, (256, 64), (0.5, 2.0), 0.75
SHAPES = [(150, 203), (40, 60), (203, 150), (64, 64), (30, 300), (33, 9)]


class Scripted(np.random.Generator):
    """A generator that gives known numbers."""

    def __init__(self, numbers: list[float]) -> None:
        super().__init__(np.random.PCG64())
        self.numbers = iter(numbers)

    def random(self) -> float:  # type: ignore[override]
        return next(self.numbers)

    def integers(self, low: int, high: int | None = None) -> int:  # type: ignore[override]
        return int(next(self.numbers))

    def uniform(self, low: float, high: float) -> float:  # type: ignore[override]
        return next(self.numbers)


def share_draws(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Let mmsegmentation draw what `default_rng(seed)` gives."""
    rng = np.random.default_rng(seed)

    def choice(options: list[Any], p: list[float]) -> Any:
        return options[0] if rng.random() < p[0] else options[1]

    monkeypatch.setattr(np.random, "random_sample", rng.random)
    monkeypatch.setattr(np.random, "randint", rng.integers)
    monkeypatch.setattr(np.random, "uniform", rng.uniform)
    monkeypatch.setattr(np.random, "choice", choice)


def pixels_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.array(picture(height, width, seed))


def labels_of(height: int, width: int, seed: int) -> np.ndarray:
    """Blocks of a few classes and unlabelled ones; every other seed has one class on most."""
    rng = np.random.default_rng(seed)
    values = np.array([0, 3, 149, 255], dtype=np.uint8)
    chances = [0.9, 0.04, 0.03, 0.03] if seed % 2 else [0.3, 0.3, 0.2, 0.2]
    blocks = values[rng.choice(4, (5, 7), p=chances)]
    rows, columns = np.arange(height) * 5 // height, np.arange(width) * 7 // width
    return np.ascontiguousarray(blocks[rows][:, columns])


def mmseg_results(pixels: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    return {
        "img": np.ascontiguousarray(pixels[:, :, ::-1]),
        "img_shape": labels.shape,
        "gt_seg_map": labels,
        "seg_fields": ["gt_seg_map"],
    }


def rgb(results: dict[str, Any]) -> np.ndarray:
    return results["img"][:, :, ::-1]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_whole_view_is_mmsegs(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    view = Augment(CROP, SCALE, RATIO, SHARE, flip_prob=0.5)
    steps = [
        RandomResize(scale=SCALE, ratio_range=RATIO, keep_ratio=True),
        RandomCrop(crop_size=(CROP, CROP), cat_max_ratio=SHARE),
        RandomFlip(prob=0.5),
        PhotoMetricDistortion(),
    ]
    sizes = set()
    for seed in range(40):
        pixels, labels = pixels_of(*shape, seed), labels_of(*shape, seed)
        found, found_labels = view(pixels, labels, np.random.default_rng(seed))
        results = mmseg_results(pixels, labels)
        with monkeypatch.context() as patch:
            share_draws(patch, seed)
            for step in steps:
                results = step(results)
        np.testing.assert_array_equal(found, rgb(results))
        np.testing.assert_array_equal(found_labels, results["gt_seg_map"])
        assert found.shape == (*found_labels.shape, 3)
        assert max(found_labels.shape) <= CROP
        sizes.add(found_labels.shape)
    assert (CROP, CROP) in sizes or shape in [(30, 300), (33, 9)]


def test_the_recipes_own_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, labels = pixels_of(300, 431), labels_of(300, 431, 0)
    for seed in range(3):
        view = Augment(512, (2048, 512), RATIO, SHARE, 0.5, photometric=False)
        found, found_labels = view(pixels, labels, np.random.default_rng(seed))
        results = mmseg_results(pixels, labels)
        with monkeypatch.context() as patch:
            share_draws(patch, seed)
            for step in (
                RandomResize(scale=(2048, 512), ratio_range=RATIO, keep_ratio=True),
                RandomCrop(crop_size=(512, 512), cat_max_ratio=SHARE),
                RandomFlip(prob=0.5),
            ):
                results = step(results)
        np.testing.assert_array_equal(found, rgb(results))
        np.testing.assert_array_equal(found_labels, results["gt_seg_map"])


def test_colours_are_mmsegs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every kind of colour, greys and primaries included."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels[:8] = pixels[:8, :, :1]
    pixels[8:16] = np.where(pixels[8:16] > 127, 255, 0)
    changed = 0
    for seed in range(60):
        found = distort(pixels, np.random.default_rng(seed))
        with monkeypatch.context() as patch:
            share_draws(patch, seed)
            results = PhotoMetricDistortion()(mmseg_results(pixels, pixels[:, :, 0]))
        np.testing.assert_array_equal(found, rgb(results))
        changed += not np.array_equal(found, pixels)
    assert 50 < changed < 60


@pytest.mark.parametrize(
    ("numbers", "before", "after"),
    [
        ([0, 0, 0, 0, 0], (10, 20, 30), (10, 20, 30)),
        ([1, 20.5, 0, 0, 0, 0], (0, 100, 250), (20, 120, 255)),
        ([1, -20.5, 0, 0, 0, 0], (0, 100, 250), (0, 79, 229)),
        ([0, 1, 1, 1.5, 0, 0], (3, 100, 250), (4, 150, 255)),
        ([0, 0, 0, 0, 1, 0.5], (3, 100, 250), (1, 50, 125)),
        # Pure red turned by 10 of 180: 20 degrees, a third of the way to yellow.
        ([0, 0, 0, 1, 10, 0], (255, 0, 0), (255, 85, 0)),
        # Turned by -10: the hue wraps round to 340 degrees.
        ([0, 0, 0, 1, -10, 0], (255, 0, 0), (255, 0, 85)),
        # Half the saturation of pure red: 127 of 255 are kept, 128 of white come in.
        ([0, 0, 1, 0.5, 0, 0], (255, 0, 0), (255, 128, 128)),
    ],
)
def test_colours_by_hand(
    numbers: list[float], before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    """Draws: brightness, whether contrast is first, then it, saturation, hue, else contrast."""
    pixels = np.full((2, 3, 3), before, dtype=np.uint8)
    rng = Scripted(numbers)
    assert distort(pixels, rng)[1, 2].tolist() == list(after)
    assert next(rng.numbers, None) is None
    assert pixels[0, 0].tolist() == list(before)


def test_sizes_are_mmcvs() -> None:
    for height in (1, 2, 7, 64, 256, 300, 511, 683, 2000):
        for width in (3, 64, 255, 512, 683, 1025, 4000):
            for scale in ((2048, 512), (1024, 256), (4096, 1024), (2663, 665), (512, 2048)):
                width_height = mmcv.rescale_size((width, height), scale)
                expected = tuple(max(side, 1) for side in width_height[::-1])
                assert fitted_size(height, width, scale) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 683), (512, 683)),
        ((256, 256), (512, 512)),
        ((683, 512), (683, 512)),
        ((100, 1000), (205, 2048)),
        ((1, 5000), (1, 2048)),
    ],
)
def test_sizes_by_hand(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted_size(*size, (2048, 512)) == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_the_resize_of_the_test_is_mmsegs(shape: tuple[int, int]) -> None:
    pixels = pixels_of(*shape)
    results = Resize(scale=(512, 128), keep_ratio=True)(mmseg_results(pixels, pixels[:, :, 0]))
    found = resize_for_test(pixels, (512, 128))
    np.testing.assert_array_equal(found.transpose(1, 2, 0), rgb(results))


# Crops


def test_a_crop_of_one_class_is_drawn_again() -> None:
    labels = stripes((1, 2), height=10, width=20)
    rng = Scripted([0, 0, 0, 6])
    assert draw_crop(rng, labels, 8, 0.75) == (0, 6)
    rng = Scripted([2, 0])
    assert draw_crop(rng, labels, 8, 1.0) == (2, 0)


def test_the_share_is_below_not_at_the_limit() -> None:
    labels = stripes((1, 2), height=8, width=16)
    assert draw_crop(Scripted([0, 2, 0, 4]), labels, 8, 0.75) == (0, 4)  # 6 of 8 columns are 1
    assert draw_crop(Scripted([0, 3]), labels, 8, 0.75) == (0, 3)


def test_unlabelled_pixels_do_not_count() -> None:
    labels = stripes((255, 255, 255, 255, 255, 255, 1, 2), height=8, width=8)
    assert draw_crop(Scripted([0, 0]), labels, 8, 0.75) == (0, 0)
    blank = np.full((8, 9), 255, np.uint8)
    assert draw_crop(Scripted([0, 0] * 10 + [0, 1]), blank, 8, 0.75) == (0, 1)


def test_the_last_crop_is_taken_unseen() -> None:
    labels = stripes((1, 1), height=9, width=9)
    rng = Scripted([0, 0] * augment.TRIES + [1, 1])
    assert draw_crop(rng, labels, 8, 0.75) == (1, 1)
    assert next(rng.numbers, None) is None


def test_chances() -> None:
    """Half are mirrored, ratios are uniform, and nothing is when it should not be."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    labels = stripes((1, 2), height=8, width=8)
    never, always = (Augment(8, (8, 8), (1.0, 1.0), 1.0, prob, False) for prob in (0.0, 1.0))
    half = Augment(8, (8, 8), (1.0, 1.0), 1.0, 0.5, False)
    flips = [half(pixels, labels, np.random.default_rng(n))[1][0, 0] == 2 for n in range(400)]
    assert 160 < sum(flips) < 240
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(never(pixels, labels, rng)[1], labels)
    np.testing.assert_array_equal(always(pixels, labels, rng)[1], labels[:, ::-1])
    scales = np.array([augment.draw_scale(rng, (2048, 512), RATIO) for _ in range(2000)])
    assert scales.min(axis=0).tolist() >= [1024, 256]
    assert scales.max(axis=0).tolist() <= [4096, 1024]
    assert abs(scales[:, 1].mean() - 640) < 15


# Padding


def test_padding_is_mmsegs() -> None:
    pixels, labels = pixels_of(40, 60), labels_of(40, 60, 0)
    mean, std = torch.tensor([123.7, 116.3, 103.5]), torch.tensor([58.4, 57.1, 57.4])
    normalised = (torch.from_numpy(pixels.transpose(2, 0, 1)) - mean[:, None, None]) / (
        std[:, None, None]
    )
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.from_numpy(labels)[None]))
    images, samples = stack_batch([normalised], [sample], size=(CROP, CROP))
    padded = torch.from_numpy(pad_image(pixels, CROP).copy())
    inside = torch.zeros(CROP, CROP)
    inside[:40, :60] = 1
    ours = (padded - mean[:, None, None]) / std[:, None, None] * inside
    assert torch.equal(ours, images[0])
    expected = samples[0].gt_sem_seg.data[0].numpy()
    np.testing.assert_array_equal(pad_labels(labels, CROP), expected)


def test_a_missing_opencv_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    augment.opencv.cache_clear()
    with pytest.raises(augment.TaskError, match=r"^OpenCV cannot be imported \(.*\); expected"):
        augment.opencv()
