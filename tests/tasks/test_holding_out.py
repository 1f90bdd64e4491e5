"""Training images divided into those to train on and those to choose by."""

import numpy as np
import pytest
from pycocotools.coco import COCO

import tasks
from tasks.coco.evaluation import ground_truth
from tasks.errors import TaskError
from tasks.holding_out import hold_out, hold_out_images


def test_hold_out_takes_its_share_of_each_class() -> None:
    counts = [1, 2, 4, 10, 26, 0, 100]
    targets = np.repeat(np.arange(len(counts)), counts)
    held = hold_out(targets, 0.1, seed=3)
    taken = [int(held[targets == each].sum()) for each in range(len(counts))]
    assert taken == [0, 1, 1, 1, 3, 0, 10]
    assert np.array_equal(held, hold_out(targets, 0.1, seed=3))
    assert not np.array_equal(held, hold_out(targets, 0.1, seed=4))
    most = hold_out(targets, 0.99, seed=3)
    assert [int((~most)[targets == each].sum()) for each in (1, 2, 3)] == [1, 1, 1]


def test_nothing_to_hold_out() -> None:
    with pytest.raises(TaskError, match=r"no class has two training images.*single --l2"):
        hold_out(np.arange(4), 0.1, seed=0)
    with pytest.raises(TaskError, match="1 training images: none can be held out"):
        hold_out_images(1, 0.1, seed=0)


@pytest.mark.parametrize("task", ["imagenet1k", "coco", "ade20k"])
def test_a_data_set_is_divided_without_its_test_images(
    task, world, coco_world, ade20k_world
) -> None:
    root = {"imagenet1k": world, "coco": coco_world, "ade20k": ade20k_world}[task] / task
    whole = tasks.face_of(task).read(task, root)
    parts = whole.divided(0.25, seed=1)
    train, val = ({str(part.path(row)) for row in range(len(part))} for part in split(parts))
    before, test = ({str(part.path(row)) for row in range(len(part))} for part in split(whole))
    assert train
    assert val
    assert not train & val
    assert not val & test
    every = whole.all_train if task == "coco" else whole.train  # the test has empty images too
    assert len(val) == pytest.approx(len(every) / 4, abs=len(whole.classes) or 1)
    assert train | val >= before
    again, other = whole.divided(0.25, seed=1), whole.divided(0.25, seed=2)
    assert list(again.val.names) == list(parts.val.names) != list(other.val.names)
    assert again.fingerprint == parts.fingerprint
    assert len({whole.fingerprint, parts.fingerprint, other.fingerprint}) == 3
    assert not parts.standard


def split(data):
    return data.train, data.val


def test_held_out_images_of_a_class_are_its_share(world) -> None:
    whole = tasks.face_of("imagenet1k").read("imagenet1k", world / "imagenet1k")
    parts = whole.divided(0.5, seed=0)
    held, rest = (np.bincount(part.targets) for part in (parts.val, parts.train))
    assert np.abs(held - rest).max() <= 1


def test_background_images_that_are_held_out_stay_out(coco_world) -> None:
    whole = tasks.face_of("coco").read("coco", coco_world / "coco")
    parts = whole.divided(0.5, seed=0)
    held = set(parts.val.image_ids.tolist())
    assert not held & set(parts.with_background().train.image_ids.tolist())


def test_sizes_of_held_out_objects_are_those_of_the_file(coco_world) -> None:
    """Their areas are counted from outlines, which is how the file has them."""
    whole = tasks.face_of("coco").read("coco", coco_world / "coco")
    parts = whole.divided(0.5, seed=0)
    ours = ground_truth(parts).dataset["annotations"]
    (file,) = (coco_world / "coco").rglob("instances_train2017.json")
    theirs = COCO(file).anns.values()
    areas = {(each["image_id"], *map(round, each["bbox"])): each["area"] for each in theirs}
    assert ours
    for each in ours:
        known = areas[each["image_id"], *map(round, each["bbox"])]
        assert each["area"] == pytest.approx(known, rel=0.1, abs=20)
