"""Batches: what lies where, what they depend on, and what happens to files that are not right."""

import copy
import pickle
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from ade20k_files import own, save_label, save_pair, small, stripes
from PIL import Image
from small_worlds import draw
from torch.utils.data import DataLoader

from tasks.ade20k.augment import Augment, resize_for_test
from tasks.ade20k.data import EvalImages, TrainImages, decode_pair
from tasks.ade20k.labels import read_label
from tasks.ade20k.layout import SegmentationData, read
from tasks.errors import TaskError
from tasks.images import UnreadableImage, decode

SIZE = 64
VIEW = (SIZE, (256, 64), (0.5, 2.0), 0.75, 0.5, True)


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> SegmentationData:
    """The miniature twin of ADE20K."""
    world = draw(tmp_path_factory.mktemp("world"), ade20k_train=12, ade20k_val=5)
    return read(world / "ade20k")


def test_a_training_batch_is_views_of_its_images(mini: SegmentationData) -> None:
    data = TrainImages(mini, *VIEW, seed=3)
    keys = [(epoch, index) for epoch in (0, 7) for index in range(len(data))]
    batch = data.__getitems__(keys)
    assert set(batch) == {"images", "sizes", "labels", "index", "skipped"}
    assert batch["images"].shape == (len(keys), 3, SIZE, SIZE)
    assert batch["images"].dtype == batch["labels"].dtype == torch.uint8
    assert batch["labels"].shape == (len(keys), SIZE, SIZE)
    assert batch["sizes"].dtype == batch["index"].dtype == torch.int64
    assert batch["index"].tolist() == [index for _, index in keys]
    assert batch["skipped"] == []
    seen = set()
    for row, (epoch, index) in enumerate(keys):
        pixels, labels = decode_pair(mini.train, index, mini.rule)
        expected, expected_labels = Augment(*VIEW)(
            pixels, labels, np.random.default_rng([3, epoch, index])
        )
        height, width = batch["sizes"][row].tolist()
        assert (height, width) == expected_labels.shape
        image, label = batch["images"][row].permute(1, 2, 0).numpy(), batch["labels"][row].numpy()
        np.testing.assert_array_equal(image[:height, :width], expected)
        np.testing.assert_array_equal(label[:height, :width], expected_labels)
        for beyond, value in ((image, 0), (label, 255)):
            assert (beyond[height:] == value).all()
            assert (beyond[:, width:] == value).all()
        seen |= set(np.unique(label).tolist())
    assert len(seen) > 6
    assert max(seen - {255}) < len(mini.classes)
    assert (batch["sizes"] < SIZE).any()


def test_labels_lie_on_what_they_label(tmp_path: Path) -> None:
    """White where the class is 1, black elsewhere: so is every view."""
    root = own(tmp_path, {"classes": ["black", "white"]})
    pixels = np.zeros((80, 100, 3), np.uint8)
    pixels[20:60, 30:70] = 255
    for stem in "ab":
        for path in (root / "images/train").glob(f"{stem}.*"):
            path.unlink()
        Image.fromarray(pixels).save(root / f"images/train/{stem}.png")
        save_label(root / f"annotations/train/{stem}.png", pixels[:, :, 0] // 255)
    save_pair(root, "val", "c", (0, 1))
    data = TrainImages(read(root), SIZE, (256, 64), (0.5, 2.0), 0.75, 0.5, False, seed=0)
    batch = data.__getitems__([(epoch, 0) for epoch in range(40)])
    for image, label in zip(batch["images"], batch["labels"], strict=True):
        inside = label != 255
        wrong = (image[0] > 127) != (label == 1)
        assert wrong[inside].sum() <= 4 * SIZE
        assert (label == 1).sum() > 100


def test_a_sample_depends_on_nothing_but_seed_epoch_and_index(mini: SegmentationData) -> None:
    data = TrainImages(mini, *VIEW, seed=1)
    keys = [(0, index) for index in range(6)]
    batch = data.__getitems__(keys)
    backwards = data.__getitems__(keys[::-1])
    for key in ("images", "labels"):
        assert torch.equal(batch[key], backwards[key].flip(0))
    others = [data.__getitems__([(1, index) for _, index in keys])]
    others.append(TrainImages(mini, *VIEW, seed=2).__getitems__(keys))
    for other in others:
        assert not (batch["images"] == other["images"]).flatten(1).all(dim=1).any()


def test_loading_processes_bring_the_same(mini: SegmentationData) -> None:
    data = TrainImages(mini, *VIEW, seed=1)
    plan = [[(0, 0), (0, 3)], [(0, 2)]]
    loader = DataLoader(data, batch_sampler=plan, collate_fn=lambda b: b, num_workers=1)  # type: ignore[arg-type]
    for keys, batch in zip(plan, loader, strict=True):
        here = data.__getitems__(keys)
        assert torch.equal(batch["images"], here["images"])
        assert torch.equal(batch["labels"], here["labels"])


def break_image(root: Path) -> None:
    (root / "images/training/tr_2.jpg").write_bytes(b"not an image")


def break_label(root: Path) -> None:
    (root / "annotations/training/tr_2.png").write_bytes(b"")


def shrink_label(root: Path) -> None:
    save_label(root / "annotations/training/tr_2.png", stripes((1, 2), 60, 40))


def colour_label(root: Path) -> None:
    Image.new("RGB", (60, 40)).save(root / "annotations/training/tr_2.png")


def odd_value(root: Path) -> None:
    save_label(root / "annotations/training/tr_2.png", stripes((1, 200)))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (break_image, "tr_2.jpg is not an image in any known format"),
        (break_label, "tr_2.png is empty"),
        (
            shrink_label,
            "tr_2.png is 40 wide and 60 high; expected the size of its image, 60 and 40",
        ),
        (colour_label, "tr_2.png is an image of mode RGB"),
        (odd_value, "tr_2.png has the value 200"),
    ],
)
def test_a_pair_that_is_not_right_is_replaced(tmp_path: Path, damage, said: str) -> None:
    data = read(small(tmp_path))
    damage(tmp_path)
    train = TrainImages(data, *VIEW, seed=0)
    batch = train.__getitems__([(0, 0), (0, 1)])
    assert batch["index"].tolist() == [0, 2]
    assert [each.name for each in batch["skipped"]] == ["images/training/tr_2.jpg"]
    assert batch["labels"].shape == (2, SIZE, SIZE)
    with pytest.raises(UnreadableImage, match=said) as caught:
        train.load(0, 1)
    assert "\n" not in str(caught.value)
    for number in (1, 3):
        (tmp_path / f"images/training/tr_{number}.jpg").unlink()
    with pytest.raises(TaskError, match=r"3 image files in a row are unreadable, from images/trai"):
        train.__getitems__([(0, 0)])


def test_train_images_refuse_a_bad_seed(mini: SegmentationData) -> None:
    with pytest.raises(TaskError, match="seed is -1; expected a whole number"):
        TrainImages(mini, *VIEW, seed=-1)


def test_copies_share_and_pickles_keep(mini: SegmentationData) -> None:
    for data in (TrainImages(mini, *VIEW, seed=1), EvalImages(mini, (256, 64))):
        assert copy.deepcopy(data) is data
        assert len(pickle.loads(pickle.dumps(data))) == len(data)
        assert data.names([1]) == [data.split.names[1]]


def test_test_images_are_resized_and_labels_are_not(mini: SegmentationData) -> None:
    data = EvalImages(mini, (256, 64))
    assert len(data) == 5
    for workers in (0, 1):
        items = list(DataLoader(data, batch_size=None, num_workers=workers))
        assert [item["index"] for item in items] == list(range(5))
        for index, item in enumerate(items):
            assert set(item) == {"image", "label", "index", "skipped"}
            assert item["skipped"] == []
            assert item["image"].dtype == item["label"].dtype == torch.uint8
            expected = resize_for_test(decode(mini.val.path(index)), (256, 64))
            np.testing.assert_array_equal(item["image"].numpy(), expected)
            assert min(item["image"].shape[1:]) == 64
            label = read_label(mini.val.label_path(index), mini.rule)
            np.testing.assert_array_equal(item["label"].numpy(), label)


def test_test_images_that_are_not_right_have_no_pixels(tmp_path: Path) -> None:
    data = EvalImages(read(small(tmp_path)), (256, 64))
    (tmp_path / "annotations/validation/va_1.png").write_bytes(b"")
    first, second = DataLoader(data, batch_size=None)
    assert [each.name for each in first["skipped"]] == ["images/validation/va_1.jpg"]
    assert (first["image"].shape, first["label"].shape) == ((3, 0, 0), (0, 0))
    assert first["index"] == 0
    assert second["skipped"] == []
    assert second["label"].shape == (40, 60)


def test_the_users_ignored_value_becomes_255(tmp_path: Path) -> None:
    data = read(own(tmp_path))
    labels = decode_pair(data.train, 1, data.rule)[1]
    np.testing.assert_array_equal(labels, stripes((2, 255)))


def test_images_decode_as_mmcv_decodes_them(mini: SegmentationData) -> None:
    for index in range(3):
        path = mini.train.path(index)
        np.testing.assert_array_equal(decode(path), mmcv.imread(str(path))[:, :, ::-1])
