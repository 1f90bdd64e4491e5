"""Large-scale jitter against Pillow, shapely, pycocotools and detectron2's own loader."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from pictures import picture
from PIL import Image
from pycocotools import mask as mask_api

from tasks.coco import augment
from tasks.coco.augment import Jitter, draw_jitter, jitter_image, jitter_instances, resize_for_test

SCALE = (0.1, 2.0)
BILINEAR, NEAREST = Image.Resampling.BILINEAR, Image.Resampling.NEAREST


class Scripted(np.random.Generator):
    """A generator that gives known numbers."""

    def __init__(self, numbers: list[float]) -> None:
        super().__init__(np.random.PCG64())
        self.numbers = iter(numbers)

    def random(self) -> float:  # type: ignore[override]
        return next(self.numbers)

    def uniform(self, low: float, high: float) -> float:  # type: ignore[override]
        return low + (high - low) * next(self.numbers)


def annotation(segmentation: Any, **changes: Any) -> dict[str, Any]:
    return {"label": 4, "bbox": None, "iscrowd": 0, "segmentation": segmentation} | changes


def ring(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=float).reshape(-1, 2)


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    return mask_api.encode(np.asfortranarray(mask, dtype=np.uint8))


def rasterise(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """By pycocotools; bool (height, width)."""
    if not polygons:
        return np.zeros((height, width), bool)
    rles = mask_api.frPyObjects([each.ravel().tolist() for each in polygons], height, width)
    return mask_api.decode(mask_api.merge(rles)).astype(bool)


def stars(rng: np.random.Generator, height: int, width: int, count: int) -> list[dict[str, Any]]:
    """Instances of one or two jagged polygons, some of them over the border, some crossing."""
    found = []
    for number in range(count):
        polygons = []
        for _ in range(1 + number % 2):
            angles = rng.random(12) * 2 * np.pi
            if number % 3:
                angles.sort()
            radii = rng.uniform(0.05, 0.4, 12) * min(height, width)
            centre = rng.random(2) * (width, height)
            polygons.append(centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1))
        found.append(annotation(polygons, label=number))
    return found


# What is drawn


def test_draws_flip_then_scale_then_one_position_for_both_axes() -> None:
    plan = draw_jitter(Scripted([0.49, 0.5, 0.25]), 400, 300, 128, SCALE, 0.5)
    # 1.05 * 128 = 134.4 for the longer side, 100.8 for the shorter; 0.25 * (134 - 128) = 1.5.
    assert plan == Jitter((400, 300), True, (134, 101), (2, 0), 128)
    assert plan.crop == (128, 101)
    assert not draw_jitter(Scripted([0.5, 0.5, 0.25]), 400, 300, 128, SCALE, 0.5).flip
    large = draw_jitter(Scripted([0.9, 1.0, 0.5]), 100, 100, 128, SCALE, 0.5)
    assert (large.resized, large.offset, large.crop) == ((256, 256), (64, 64), (128, 128))
    assert large.source_box == (25, 25, 75, 75)


def test_a_side_is_a_pixel_at_least() -> None:
    plan = draw_jitter(Scripted([0.9, 0.0, 0.5]), 2, 1000, 128, SCALE, 0.5)
    assert plan.resized == (1, 13)
    assert jitter_image(np.zeros((2, 1000, 3), np.uint8), plan).shape == (1, 13, 3)
    assert resize_for_test(np.zeros((2, 1000, 3), np.uint8), 64).shape == (3, 1, 64)


# Images


def test_the_crop_is_that_of_pillows_whole_resize() -> None:
    """Never more than 2 of 255 off, more than 1 in less than a hundred-thousandth.

    Pillow keeps the box in single precision, chooses the order of axes by what it resizes, and
    rounds in between.
    """
    rng = np.random.default_rng(0)
    differences = np.zeros(256, dtype=int)
    shapes = set()
    for number in range(60):
        height, width = rng.integers(40, 300, 2).tolist()
        size = int(rng.choice([64, 128, 320]))
        image = picture(height, width, number)
        plan = draw_jitter(rng, height, width, size, SCALE, 0.5)
        found = jitter_image(np.asarray(image), plan)
        if plan.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        whole = np.asarray(image.resize(plan.resized[::-1], BILINEAR))
        (top, left), (h, w) = plan.offset, plan.crop
        expected = whole[top : top + size, left : left + size]
        assert found.shape == expected.shape == (h, w, 3)
        assert found.dtype == np.uint8
        gap = np.abs(found.astype(int) - expected)
        if plan.crop == plan.resized:
            assert not gap.any()
        differences += np.bincount(gap.ravel(), minlength=256)
        shapes.add((plan.flip, plan.crop == plan.resized))
    assert len(shapes) == 4
    assert differences[3:].sum() == 0
    assert differences[2] < 1e-5 * differences.sum()
    assert differences[1] < 0.03 * differences.sum()


def test_padding_is_zero_and_channels_last() -> None:
    pixels = np.full((3, 5, 3), 7, np.uint8)
    padded = augment.pad(pixels, 8)
    assert padded.shape == (3, 8, 8)
    assert padded[:, :3, :5].min() == 7
    assert padded.sum() == 7 * pixels.size
    assert padded.strides == (1, 24, 3)


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [((480, 640), 1024, (768, 1024)), ((640, 427), 1024, (1024, 683)), ((50, 50), 64, (64, 64))],
)
def test_test_images_fit_the_square(shape: tuple, size: int, expected: tuple) -> None:
    image = picture(*shape)
    found = resize_for_test(np.asarray(image), size)
    assert found.shape == (3, *expected)
    whole = np.asarray(image.resize(expected[::-1], BILINEAR))
    np.testing.assert_array_equal(found.transpose(1, 2, 0), whole)


# Instances


def test_a_square_by_hand() -> None:
    """In an image 40 wide, mirrored, doubled, and cut from (10, 20) to (42, 52)."""
    plan = Jitter((30, 40), flip=True, resized=(60, 80), offset=(20, 10), size=32)
    square = annotation([ring(2, 4, 12, 4, 12, 14, 2, 14)])
    # x from 28..38 over 56..76 to 46..66: outside. So a second one, x 20..30 over 40..60 to 30..50.
    inside = annotation([ring(10, 4, 20, 4, 20, 14, 10, 14)], label=5)
    crowd = annotation([ring(10, 4, 20, 4, 20, 14, 10, 14)], iscrowd=1)
    boxes, labels, masks = jitter_instances([square, crowd, inside], plan)
    # y from 4..14 over 8..28 to -12..8.
    assert boxes.tolist() == [[30, 0, 32, 8]]
    assert boxes.dtype == np.float32
    assert labels.tolist() == [5]
    assert labels.dtype == np.int64
    assert len(masks) == len(masks[0]) == 1
    assert sorted(masks[0][0].tolist()) == [[30, 0], [30, 8], [32, 0], [32, 8]]


def test_boxes_are_of_what_is_left() -> None:
    """A triangle, cut: its box is smaller than the cut box, the example of detectron2's mapper."""
    plan = Jitter((4, 4), flip=False, resized=(4, 4), offset=(0, 1), size=2)
    boxes, _, _ = jitter_instances([annotation([ring(0, 0, 2, 0, 0, 2)])], plan)
    assert boxes.tolist() == [[0, 0, 1, 1]]


def test_no_instances() -> None:
    plan = Jitter((30, 40), flip=False, resized=(30, 40), offset=(0, 0), size=64)
    for annotations in ([], [annotation([ring(0, 0, 9, 0, 9, 9)], iscrowd=1)]):
        boxes, labels, masks = jitter_instances(annotations, plan)
        assert (boxes.shape, labels.shape, masks) == ((0, 4), (0,), [])
        assert (boxes.dtype, labels.dtype) == (np.float32, np.int64)


def test_the_annotations_stay_as_they_are() -> None:
    plan = Jitter((30, 40), flip=True, resized=(60, 80), offset=(20, 10), size=32)
    outline = ring(10, 4, 20, 4, 20, 14)
    outline.setflags(write=False)
    jitter_instances([annotation([outline])], plan)
    assert outline.tolist() == [[10, 4], [20, 4], [20, 14]]


def test_polygons_are_cut_as_shapely_cuts_each_alone() -> None:
    rng = np.random.default_rng(1)
    vanished = split = 0
    for _ in range(25):
        height, width = rng.integers(40, 300, 2).tolist()
        plan = draw_jitter(rng, height, width, 128, SCALE, 0.5)
        things = stars(rng, height, width, 7)
        found = augment.jitter_polygons([each["segmentation"] for each in things], plan)
        top, left = plan.offset
        square = shapely.box(left, top, left + 128, top + 128)
        for thing, polygons in zip(things, found, strict=True):
            parts = []
            for outline in thing["segmentation"]:
                points = outline.copy()
                if plan.flip:
                    points[:, 0] = width - points[:, 0]
                points *= (plan.resized[1] / width, plan.resized[0] / height)
                cut = shapely.Polygon(points).buffer(0.0).intersection(square)
                parts += [p for p in getattr(cut, "geoms", [cut]) if p.area > 0]
            vanished += not parts
            split += len(parts) > len(thing["segmentation"])
            expected = [np.array(p.exterior.coords)[:-1] - (left, top) for p in parts]
            assert len(polygons) == len(expected)
            for ours, theirs in zip(polygons, expected, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    assert vanished > 5
    assert split > 5


def test_bitmaps_are_resized_as_pillow_does_and_cut() -> None:
    rng = np.random.default_rng(2)
    empty = 0
    for _ in range(60):
        height, width = rng.integers(1, 200, 2).tolist()
        mask = np.asarray(picture(height, width, int(rng.integers(99))).convert("L")) > 128
        if rng.random() < 0.5:
            mask = mask & (rng.random(mask.shape) < 0.001)
        plan = draw_jitter(rng, height, width, 96, SCALE, 0.5)
        boxes, labels, masks = jitter_instances([annotation(run_lengths(mask))], plan)
        whole = Image.fromarray((mask[:, ::-1] if plan.flip else mask).astype(np.uint8))
        resized = np.asarray(whole.resize(plan.resized[::-1], NEAREST)).astype(bool)
        (top, left) = plan.offset
        expected = resized[top : top + 96, left : left + 96]
        assert len(boxes) == len(labels) == len(masks) == expected.any()
        empty += not expected.any()
        if expected.any():
            np.testing.assert_array_equal(masks[0], expected)
            assert masks[0].dtype == bool
            x, y, w, h = mask_api.toBbox(run_lengths(expected))
            assert boxes.tolist() == [[x, y, x + w, y + h]]
    assert empty > 3


def test_polygons_and_bitmaps_keep_their_order() -> None:
    plan = Jitter((20, 20), flip=False, resized=(20, 20), offset=(0, 0), size=20)
    bitmap = np.zeros((20, 20), bool)
    bitmap[2:4, 5:9] = True
    triangle = [ring(0, 0, 9, 0, 9, 9)]
    outside = [ring(30, 30, 39, 30, 39, 39)]
    things = [
        annotation(run_lengths(bitmap), label=1),
        annotation(triangle, label=2),
        annotation(outside, label=3),
        annotation(run_lengths(bitmap), label=4),
    ]
    boxes, labels, masks = jitter_instances(things, plan)
    assert labels.tolist() == [1, 2, 4]
    assert boxes.tolist() == [[5, 2, 9, 4], [0, 0, 9, 9], [5, 2, 9, 4]]
    assert isinstance(masks[1], list)
    np.testing.assert_array_equal(masks[2], bitmap)


# detectron2


def detectron2_view(
    monkeypatch: pytest.MonkeyPatch, file: Path, instances: list[dict], size: int, draws: list
) -> tuple[np.ndarray, Any]:
    """Image (h, w, 3) and instances of detectron2's ViTDet loader, with `draws` from [0, 1)."""
    from detectron2.data import DatasetMapper
    from detectron2.data import transforms as T
    from detectron2.structures import BoxMode

    mapper = DatasetMapper(
        is_train=True,
        augmentations=[
            T.RandomFlip(horizontal=True),
            T.ResizeScale(*SCALE, target_height=size, target_width=size),
            T.FixedSizeCrop(crop_size=(size, size), pad=False),
        ],
        image_format="RGB",
        use_instance_mask=True,
        recompute_boxes=True,
        instance_mask_format=(
            "polygon" if isinstance(instances[0]["segmentation"], list) else "bitmask"
        ),
    )
    annotations = []
    for each in instances:
        outline = each["segmentation"]
        if isinstance(outline, list):
            outline = [polygon.ravel().tolist() for polygon in outline]
        annotations.append(
            {
                "bbox": [0, 0, 1, 1],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": each["label"],
                "segmentation": outline,
                "iscrowd": each["iscrowd"],
            }
        )
    script = iter(draws)
    with monkeypatch.context() as patch:
        patch.setattr(np.random, "uniform", lambda low, high, *_: low + (high - low) * next(script))
        found = mapper({"file_name": str(file), "annotations": annotations})
    assert next(script, None) is None
    return found["image"].permute(1, 2, 0).numpy(), found["instances"]


@pytest.mark.parametrize("kind", ["polygons", "bitmaps"])
def test_equals_detectron2s_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pytest.importorskip("detectron2")
    rng = np.random.default_rng(3)
    file = tmp_path / "image.png"
    seen = lost = 0
    for number in range(30):
        height, width = rng.integers(40, 300, 2).tolist()
        size = int(rng.choice([96, 160]))
        picture(height, width, number).save(file)
        things = stars(rng, height, width, 6)
        if kind == "bitmaps":
            for each in things:
                each["segmentation"] = run_lengths(rasterise(each["segmentation"], height, width))
        things[2]["iscrowd"] = 1
        draws = rng.random(3).tolist()
        image, theirs = detectron2_view(monkeypatch, file, things, size, draws)
        plan = draw_jitter(Scripted(draws), height, width, size, SCALE, 0.5)
        ours = jitter_image(np.asarray(Image.open(file)), plan)
        assert ours.shape == image.shape
        gap = np.abs(ours.astype(int) - image)
        assert gap.max() <= 2
        assert (gap > 1).sum() <= 1
        boxes, labels, masks = jitter_instances(things, plan)
        assert labels.tolist() == theirs.gt_classes.tolist()
        np.testing.assert_allclose(boxes, theirs.gt_boxes.tensor.numpy(), rtol=0, atol=1e-4)
        h, w = plan.crop
        for row, mask in enumerate(masks):
            if isinstance(mask, list):
                their_polygons = [each.reshape(-1, 2) for each in theirs.gt_masks.polygons[row]]
                mask = rasterise(mask, h, w)
                expected = rasterise(their_polygons, h, w)
            else:
                expected = theirs.gt_masks.tensor[row].numpy()
            np.testing.assert_array_equal(mask, expected)
        seen += len(labels)
        lost += 5 - len(labels)
    assert seen > 60
    assert lost > 5


def test_test_sizes_are_detectron2s() -> None:
    transforms = pytest.importorskip("detectron2.data.transforms")
    rng = np.random.default_rng(4)
    for height, width in rng.integers(1, 900, (2000, 2)).tolist():
        for size in (128, 1024):
            expected = transforms.ResizeShortestEdge.get_output_shape(height, width, size, size)
            found = augment.fitted_size(height, width, size)
            assert found == (max(expected[0], 1), max(expected[1], 1))


def test_a_thing_outside_the_crop_vanishes() -> None:
    """The square lies at the upper left, the crop at the lower right."""
    plan = Jitter((40, 60), flip=False, resized=(400, 600), offset=(300, 500), size=100)
    square = np.array([[1.0, 1.0], [5.0, 1.0], [5.0, 5.0]])
    annotation = {"label": 2, "bbox": np.array([1.0, 1, 4, 4]), "iscrowd": 0}
    boxes, labels, masks = jitter_instances([annotation | {"segmentation": [square]}], plan)
    assert boxes.shape == (0, 4)
    assert len(labels) == len(masks) == 0
