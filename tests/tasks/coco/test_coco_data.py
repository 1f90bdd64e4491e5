"""Batches: what lies where, what they depend on, and what happens to files that are not right."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_files import content, image, small, thing, write
from PIL import Image
from torch.utils.data import DataLoader

from tasks import miniature
from tasks.coco.augment import draw_jitter, jitter_image, jitter_instances, resize_for_test
from tasks.coco.data import EvalImages, TrainImages, decode_known
from tasks.coco.layout import CocoData, read
from tasks.errors import TaskError
from tasks.images import UnreadableImage, decode
from tasks.miniature import WorldSizes

SIZE = 96
JITTER = (SIZE, (0.1, 2.0), 0.5)


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    """The miniature twin of COCO."""
    sizes = WorldSizes.only(coco_train=16, coco_val=6)
    root = tmp_path_factory.mktemp("worlds") / "w"
    return read(miniature.make(root, sizes=sizes, workers=1) / "coco")


def test_a_training_batch_is_the_jitter_of_its_images(mini: CocoData) -> None:
    data = TrainImages(mini.train, *JITTER, seed=3)
    keys = [(epoch, index) for epoch in (0, 7) for index in range(len(data))]
    batch = data.__getitems__(keys)
    assert set(batch) == {"images", "sizes", "targets", "index", "skipped"}
    assert batch["images"].shape == (len(keys), 3, SIZE, SIZE)
    assert batch["images"].dtype == torch.uint8
    assert batch["sizes"].dtype == batch["index"].dtype == torch.int64
    assert batch["index"].tolist() == [index for _, index in keys]
    assert batch["skipped"] == []
    counts = []
    for row, (epoch, index) in enumerate(keys):
        pixels = decode(mini.train.path(index))
        rng = np.random.default_rng([3, epoch, index])
        plan = draw_jitter(rng, *pixels.shape[:2], *JITTER)
        height, width = plan.crop
        assert batch["sizes"][row].tolist() == [height, width]
        found = batch["images"][row].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(found[:height, :width], jitter_image(pixels, plan))
        assert not found[height:].any()
        assert not found[:, width:].any()
        boxes, labels, masks = jitter_instances(mini.train.annotations(index), plan)
        target = batch["targets"][row]
        assert torch.equal(target["boxes"], torch.from_numpy(boxes))
        assert torch.equal(target["labels"], torch.from_numpy(labels))
        np.testing.assert_equal(target["masks"], masks)
        if len(boxes):
            assert (boxes >= 0).all()
            assert (boxes[:, 2:] <= SIZE + 1e-4).all()
        counts.append(len(labels))
    assert max(counts) > 3


def test_outlines_lie_on_what_they_outline(tmp_path: Path) -> None:
    """A white square on black, outlined: the jittered outline is the jittered square."""
    small(tmp_path, [thing(1, 1)], [image(1)])
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:30, 10:30] = 255
    split = read(tmp_path).train
    Image.fromarray(pixels).save(tmp_path / "train2017/0001.jpg", quality=100)
    data = TrainImages(split, *JITTER, seed=0)
    batch = data.__getitems__([(epoch, 0) for epoch in range(40)])
    seen = 0
    for picture, target in zip(batch["images"], batch["targets"], strict=True):
        white = picture[0] > 127
        if len(target["boxes"]) == 0:
            assert white.sum() <= SIZE
            continue
        x1, y1, x2, y2 = target["boxes"][0].round().int().tolist()
        inside = torch.zeros_like(white)
        inside[y1:y2, x1:x2] = True
        assert (inside ^ white).sum() <= 2 * (x2 - x1 + y2 - y1)
        seen += 1
    assert seen > 25


def test_a_sample_depends_on_nothing_but_seed_epoch_and_index(mini: CocoData) -> None:
    data = TrainImages(mini.train, *JITTER, seed=1)
    keys = [(0, index) for index in range(6)]
    batch = data.__getitems__(keys)
    backwards = data.__getitems__(keys[::-1])
    assert torch.equal(batch["images"], backwards["images"].flip(0))
    assert torch.equal(batch["targets"][2]["boxes"], backwards["targets"][3]["boxes"])
    others = [data.__getitems__([(1, index) for _, index in keys])]
    others.append(TrainImages(mini.train, *JITTER, seed=2).__getitems__(keys))
    for other in others:
        assert not (batch["images"] == other["images"]).flatten(1).all(dim=1).any()


def test_loading_processes_bring_the_same(mini: CocoData) -> None:
    data = TrainImages(mini.train, *JITTER, seed=1)
    plan = [[(0, 0), (0, 3)], [(0, 2)]]
    loader = DataLoader(data, batch_sampler=plan, collate_fn=lambda b: b, num_workers=1)  # type: ignore[arg-type]
    for keys, batch in zip(plan, loader, strict=True):
        here = data.__getitems__(keys)
        assert torch.equal(batch["images"], here["images"])
        np.testing.assert_equal(
            [each["masks"] for each in batch["targets"]], [e["masks"] for e in here["targets"]]
        )


def test_an_unreadable_training_image_is_replaced_with_its_targets(tmp_path: Path) -> None:
    annotations = [thing(1, 1), thing(2, 2, category_id=7), thing(3, 4)]
    small(tmp_path, annotations, [image(1), image(2), image(4)])
    split = read(tmp_path).train
    (tmp_path / "train2017/0002.jpg").write_bytes(b"not an image")
    data = TrainImages(split, SIZE, (1.0, 1.0), 0.0, seed=0)
    batch = data.__getitems__([(0, 0), (0, 1)])
    assert batch["index"].tolist() == [0, 2]
    assert [each.name for each in batch["skipped"]] == ["0002.jpg"]
    assert [target["labels"].tolist() for target in batch["targets"]] == [[0], [0]]
    assert data.names([2, 1]) == ["0004.jpg", "0002.jpg"]
    (tmp_path / "train2017/0001.jpg").unlink()
    (tmp_path / "train2017/0004.jpg").unlink()
    with pytest.raises(TaskError, match=r"3 image files in a row are unreadable, from 0001\.jpg"):
        data.__getitems__([(0, 0)])


@pytest.mark.parametrize("kind", ["train", "val"])
def test_an_image_of_another_size_counts_as_unreadable(tmp_path: Path, kind: str) -> None:
    small(tmp_path, images=[image(1), image(2)])
    read_data = read(tmp_path)
    name = {"train": "0001.jpg", "val": "0003.jpg"}[kind]
    Image.new("RGB", (40, 60)).save(tmp_path / f"{kind}2017/{name}")
    expected = f"{name} is 40 wide and 60 high; expected 60 and 40 as its annotations say"
    split = getattr(read_data, kind)
    with pytest.raises(UnreadableImage, match=expected):
        decode_known(split, 0)
    if kind == "train":
        batch = TrainImages(split, *JITTER, seed=0).__getitems__([(0, 0)])
    else:
        batch = EvalImages(split, SIZE)[[0]]
    assert [each.name for each in batch["skipped"]] == [name]


def test_train_images_refuse_a_bad_seed(mini: CocoData) -> None:
    with pytest.raises(TaskError, match="seed is -1; expected a whole number"):
        TrainImages(mini.train, *JITTER, seed=-1)


def test_copies_share_and_pickles_keep(mini: CocoData) -> None:
    for data in (TrainImages(mini.train, *JITTER, seed=1), EvalImages(mini.val, SIZE)):
        assert copy.deepcopy(data) is data
        assert len(pickle.loads(pickle.dumps(data))) == len(data)


def test_test_images_are_resized_and_padded(mini: CocoData) -> None:
    data = EvalImages(mini.val, SIZE)
    assert len(data) == 6
    batch = data[[4, 0, 2]]
    assert batch["index"].tolist() == [4, 0, 2]
    assert batch["skipped"] == []
    assert batch["images"].shape == (3, 3, SIZE, SIZE)
    for picture, size, index in zip(batch["images"], batch["sizes"], (4, 0, 2), strict=True):
        expected = resize_for_test(decode(mini.val.path(index)), SIZE)
        height, width = size.tolist()
        assert max(height, width) == SIZE
        np.testing.assert_array_equal(picture[:, :height, :width].numpy(), expected)
        assert picture.sum() == expected.sum()
    assert data.names([1]) == [mini.val.names[1]]


def test_unreadable_test_images_are_left_out(tmp_path: Path) -> None:
    small(tmp_path)
    write(tmp_path, "val", content([image(3), image(4)], [thing(9, 3)]))
    data = EvalImages(read(tmp_path).val, SIZE)
    (tmp_path / "val2017/0003.jpg").write_bytes(b"")
    batch = data[[0, 1]]
    assert batch["index"].tolist() == [1]
    assert [each.name for each in batch["skipped"]] == ["0003.jpg"]
    assert batch["sizes"].tolist() == [[64, 96]]
    none = data[[0]]
    assert none["images"].shape == (0, 3, SIZE, SIZE)
    assert (none["sizes"].shape, none["index"].shape) == ((0, 2), (0,))
    assert none["index"].dtype == torch.int64


def test_the_published_jitter_on_a_thing_in_a_corner(tmp_path: Path) -> None:
    """Scales from a tenth to twice the network's input; views that show nothing are among them."""
    corner = {"segmentation": [[1, 1, 9, 1, 9, 9]], "bbox": [1, 1, 8, 8]}
    small(tmp_path, annotations=[thing(1, 1, **corner), thing(2, 2)])
    data = TrainImages(read(tmp_path).train, SIZE, (0.1, 2.0), 0.5, seed=0)
    counts = []
    for epoch in range(100):
        (target,) = data.__getitems__([(epoch, 0)])["targets"]
        counts.append(len(target["labels"]))
        assert len(target["boxes"]) == len(target["labels"]) == len(target["masks"])
    assert set(counts) == {0, 1}
