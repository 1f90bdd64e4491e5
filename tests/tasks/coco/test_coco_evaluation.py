"""COCO's metrics from saved predictions, against pycocotools and hand-made detections."""

import contextlib
import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from coco_world import few_images
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from tasks.coco import layout
from tasks.coco.data import EvalImages
from tasks.coco.evaluation import FIGURES, Scored, score, to_results, write_per_class
from tasks.coco.mask_rcnn import Detections
from tasks.task import Scoring

SIDE = 96
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(coco_world: Path, tmp_path_factory) -> layout.CocoData:
    return layout.read(few_images(coco_world, tmp_path_factory.mktemp("six") / "coco", 6))


class Oracle:
    """Detections made of the ground truth, spoilt a little; `skill` 1 spoils nothing."""

    def __init__(self, data: layout.CocoData, skill: float) -> None:
        self.data, self.skill = data, skill
        self.images = EvalImages(data.val, SIDE)
        self.known = {
            self.images[[index]]["images"][0].sum().item(): index for index in range(len(data.val))
        }

    def __call__(self, images: Tensor, sizes: Tensor) -> list[Detections]:
        return [self.one(*each) for each in zip(images, sizes.tolist(), strict=True)]

    def one(self, image: Tensor, size: list[int]) -> Detections:
        index = self.known[image.sum().item()]
        rng = np.random.default_rng(index)
        height, width = self.data.val.sizes[index]
        boxes, labels, masks = [], [], []
        for each in self.data.val.annotations(index):
            x, y, w, h = each["bbox"] * np.tile([size[1] / width, size[0] / height], 2)
            boxes.append(np.array([x, y, x + w, y + h]) + (1 - self.skill) * rng.normal(0, 3, 4))
            labels.append(each["label"] if rng.random() < self.skill else 0)
            masks.append(self.mask(each["segmentation"], each["bbox"]))
        return Detections(
            torch.tensor(np.array(boxes), dtype=torch.float32).clamp(0, SIDE),
            torch.tensor(rng.uniform(0.1, 1, len(boxes)), dtype=torch.float32),
            torch.tensor(labels),
            torch.stack(masks),
        )

    def mask(self, polygons: Any, box: np.ndarray) -> Tensor:
        from tasks.coco.masks import draw

        rings = [((ring - box[:2]) * (112 / box[2:])).ravel().tolist() for ring in polygons]
        return torch.from_numpy(draw(rings, 112, 112)).float()


def run(data, skill: float, folder: Path | None = None, **changes: Any) -> Scored:
    how = Scoring(**{"batch_size": 2, "workers": 0, "folder": folder} | changes)
    return score(Oracle(data, skill), EvalImages(data.val, SIDE), data, CPU, how)


def rescored(truth: Path, predictions: list[dict], kind: str) -> COCOeval:
    """The figures of pycocotools alone, from the annotation file and saved predictions."""
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO(str(truth))
        evaluation = COCOeval(index, index.loadRes(predictions), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def test_the_truth_itself_is_found(data, tmp_path):
    found = run(data, 1.0).metrics
    assert found["ap_box"] == pytest.approx(100)
    assert found["ap_mask"] > 90  # drawn at 112 x 112 inside the box, and pasted back
    assert found["ap_mask_50"] == pytest.approx(100)


@pytest.mark.parametrize("name", ["box", "mask"])
def test_saved_predictions_score_the_same_with_pycocotools_alone(data, tmp_path, name):
    found = run(data, 0.8, tmp_path).metrics
    predictions = json.loads((tmp_path / "predictions.json").read_text())
    kind = {"box": "bbox", "mask": "segm"}[name]
    if kind == "segm":  # as detectron2 does: the area is the mask's then
        predictions = [{k: v for k, v in each.items() if k != "bbox"} for each in predictions]
    evaluation = rescored(data.val.json_file, predictions, kind)
    expected = {
        f"ap_{name}{figure}": 100 * value
        for figure, value in zip(FIGURES, evaluation.stats, strict=False)
        if value > -1
    }
    ours = {key: value for key, value in found.items() if key.startswith(f"ap_{name}")}
    assert ours == pytest.approx(expected, abs=1e-9)
    assert 10 < ours[f"ap_{name}"] < 99


def test_per_class_figures_are_those_of_each_class_alone(data, tmp_path):
    run(data, 0.8, tmp_path)
    predictions = json.loads((tmp_path / "predictions.json").read_text())
    with (tmp_path / "per_class.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == list(data.classes)
    present = {e["category_id"] for e in json.loads(data.val.json_file.read_text())["annotations"]}
    for row in rows:
        number = int(row["category_id"])
        if number not in present:
            assert row["ap_box"] == row["ap_mask"] == ""
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            index = COCO(str(data.val.json_file))
            alone = COCOeval(index, index.loadRes(predictions), "bbox")
            alone.params.catIds = [number]
            alone.evaluate()
            alone.accumulate()
            alone.summarize()
        assert float(row["ap_box"]) == pytest.approx(100 * alone.stats[0])


def test_results_are_in_the_images_own_pixels(data):
    """An image half as large as the network's input; a box cut to the image, one dropped."""
    height, width = data.val.sizes[0].tolist()
    size = [2 * height, 2 * width]
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0], [-4.0, -4.0, 9e9, 8.0], [3.0, 3.0, 3.0, 9.0]])
    found = Detections(
        boxes, torch.tensor([0.5, 0.25, 0.1]), torch.tensor([3, 0, 1]), torch.ones(3, 4, 4)
    )
    one, other = to_results(found, 0, size, data)
    assert one["bbox"] == [5, 10, 10, 20]
    assert one["category_id"] == data.category_ids[3]
    assert one["image_id"] == data.val.image_ids[0]
    assert one["segmentation"]["size"] == [height, width]
    assert other["bbox"] == [0, 0, width, 4]
    assert one["score"] == 0.5


def test_nothing_found_scores_zero(data, tmp_path):
    nothing = Detections(
        torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), torch.zeros(0, 4, 4)
    )
    found = score(
        lambda images, sizes: [nothing] * len(images), EvalImages(data.val, SIDE), data, CPU,
        Scoring(batch_size=4, workers=0, folder=tmp_path),
    )  # fmt: skip
    assert found.metrics["ap_box"] == found.metrics["ap_mask"] == 0
    assert json.loads((tmp_path / "predictions.json").read_text()) == []
    with Image.open(tmp_path / "predictions.png") as picture:
        assert picture.format == "PNG"


def test_an_unreadable_image_counts_as_one_without_detections(coco_world, tmp_path):
    folder = few_images(coco_world, tmp_path / "coco", 3)
    whole = run(layout.read(folder), 1.0)
    (folder / "val2017" / layout.read(folder).val.names[1]).write_bytes(b"no image")
    spoilt = layout.read(folder)
    oracle = Oracle.__new__(Oracle)
    oracle.data, oracle.skill, oracle.images = spoilt, 1.0, EvalImages(spoilt.val, SIDE)
    oracle.known = {oracle.images[[i]]["images"][0].sum().item(): i for i in (0, 2)}
    found = score(oracle, oracle.images, spoilt, CPU, Scoring(batch_size=2, workers=0))
    (only,) = found.unreadable
    assert only.reason.startswith("is not an image in any known format")
    assert only.name == spoilt.val.names[1]
    assert found.metrics["ap_box"] < whole.metrics["ap_box"]


def test_a_users_file_may_lack_areas_and_crowds(coco_world, tmp_path):
    """And an annotation that reading leaves out is no ground truth."""
    folder = few_images(coco_world, tmp_path / "coco", 3)
    before = run(layout.read(folder), 1.0).metrics
    file = folder / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    for each in content["annotations"]:
        del each["area"], each["iscrowd"]
    broken = content["annotations"][0] | {"id": 10**6, "segmentation": [[1, 1, 5, 5]]}
    content["annotations"].append(broken)
    file.write_text(json.dumps(content))
    after = run(layout.read(folder), 1.0).metrics
    assert after["ap_box"] == pytest.approx(before["ap_box"])
    assert after["ap_mask"] == pytest.approx(before["ap_mask"])


def score_in_process(rank: int, folder: str, store: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    done: list[int] = []
    files = Path(out) if rank == 0 else None
    found = run(layout.read(folder), 0.8, files, on_progress=done.append)
    (Path(out) / f"{rank}").write_text(repr((found.metrics, done)))
    dist.destroy_process_group()


def test_two_processes_predict_each_image_once(coco_world, tmp_path):
    """An odd number of images, which would be padded with one of them elsewhere."""
    folder = few_images(coco_world, tmp_path / "coco", 5)
    alone = tmp_path / "alone"
    alone.mkdir()
    expected = run(layout.read(folder), 0.8, alone).metrics
    arguments = (str(folder), str(tmp_path / "store"), str(tmp_path))
    mp.start_processes(score_in_process, arguments, nprocs=2, start_method="fork")
    done = {0: [4, 5], 1: [4]}
    for rank in (0, 1):
        assert (tmp_path / f"{rank}").read_text() == repr((expected, done[rank]))
    assert (tmp_path / "predictions.json").read_text() == (alone / "predictions.json").read_text()


VALID = [10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]


@pytest.mark.parametrize(
    "changes",
    [
        {"segmentation": [VALID, 5]},
        {"segmentation": [VALID, None]},
        {"segmentation": [VALID, ["a"] * 6]},
        {"segmentation": [VALID, [1e300, 0, 1e300, 1e300, 0, 1e300]]},
        {"segmentation": [VALID, [float("nan")] * 6]},
        {"segmentation": [VALID, [1, 1, 5, 5]]},
        {"area": None},
        {"area": "12"},
        {"area": float("nan")},
        {"iscrowd": None},
    ],
)
def test_what_reading_accepts_can_be_scored(coco_world, tmp_path, changes):
    """With the figures of the annotation's sound part."""
    folder = few_images(coco_world, tmp_path / "coco", 2)
    file = folder / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    sound = {"id": 10**6, "bbox": [10, 10, 20, 20], "segmentation": [VALID], "area": 400.0}
    sound |= {"iscrowd": 0, "image_id": content["images"][0]["id"]}
    sound["category_id"] = content["categories"][0]["id"]
    figures = []
    for each in (sound, sound | changes):
        file.write_text(json.dumps(content | {"annotations": [*content["annotations"], each]}))
        figures.append(run(layout.read(folder), 1.0).metrics)
    assert figures[1] == pytest.approx(figures[0])


def test_the_name_of_a_class_is_no_formula_in_a_spreadsheet(data, tmp_path):
    named = replace(data, classes=("=cmd|' /C calc'!A0", *data.classes[1:]))
    columns = {"ap_box": [None] * len(named.classes)}
    write_per_class(tmp_path / "per_class.csv", named, columns)
    with (tmp_path / "per_class.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["class"] == "'=cmd|' /C calc'!A0"
    assert [row["class"] for row in rows[1:]] == list(data.classes[1:])
