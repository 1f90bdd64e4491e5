"""Data without any outline: boxes alone are trained, predicted and scored."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_files import content, image, thing, write
from coco_world import few_images
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import backbones
from tasks.coco.augment import Jitter, jitter_instances
from tasks.coco.data import EvalImages
from tasks.coco.evaluation import rescore, score
from tasks.coco.layout import BOXES_ALONE, CocoData, read
from tasks.coco.mask_rcnn import Detections
from tasks.coco.recipes import recipe
from tasks.coco.task import Coco
from tasks.task import Scoring

SIDE = 96


@pytest.fixture(scope="module")
def folder(coco_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of the miniature world, of which the outlines are taken away."""
    root = few_images(coco_world, tmp_path_factory.mktemp("boxes") / "coco", 4)
    for split in ("train", "val"):
        file = root / f"annotations/instances_{split}2017.json"
        whole = json.loads(file.read_text())
        for each in whole["annotations"]:
            del each["segmentation"]
        file.write_text(json.dumps(whole))
    return root


@pytest.mark.parametrize("seed", range(20))
def test_boxes_move_as_outlines_of_the_same_rectangles_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    plan = Jitter((80, 120), bool(seed % 2), (100, 130), (7, 12), 64)
    alone: list[dict[str, Any]] = []
    outlined = []
    for label in range(8):
        w, h = rng.uniform(1, 50, 2)
        x, y = rng.uniform(0, 120 - w), rng.uniform(0, 80 - h)
        box = np.array([x, y, w, h])
        ring = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])
        one = {"label": label, "bbox": box, "iscrowd": int(label == 7)}
        alone.append(one | {"segmentation": None})
        outlined.append(one | {"segmentation": [ring]})
    boxes, labels, masks = jitter_instances(alone, plan)
    expected, expected_labels, _ = jitter_instances(outlined, plan)
    np.testing.assert_allclose(boxes, expected, atol=1e-4)
    assert labels.tolist() == expected_labels.tolist()
    assert masks == []


def test_training_has_no_masks_and_the_record_says_so(folder: Path) -> None:
    torch.manual_seed(0)
    made = recipe("coco", "vit_mini", "mask_rcnn-vitdet")
    backbone = backbones.create("vit_mini", **made.backbone_options())
    task = Coco(made, backbone, folder, seed=0)
    assert task.caveats(1) == [BOXES_ALONE]
    assert not [name for name, _ in task.named_parameters() if "mask" in name]
    batch = task.train_data.__getitems__([(0, 0), (0, 1)])
    assert all(target["masks"] == [] and len(target["boxes"]) for target in batch["targets"])
    losses = task.train()(batch)
    expected = {"loss", "loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}
    assert set(losses) == expected
    losses["loss"].backward()
    assert all(each.grad is not None for each in task.detector.parameters())
    task.eval()
    size = torch.tensor([[SIDE, SIDE]])
    (found,) = task.predict(torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8), size)
    assert found.masks is None
    assert len(found.boxes) == len(found.labels)


def spoilt(data: CocoData, index: int, size: list[int]) -> Detections:
    """The test boxes of an image, shaken a little, in the network's pixels."""
    rng = np.random.default_rng(index)
    height, width = data.val.sizes[index].tolist()
    rows = data.val.annotations(index)
    given = np.array([each["bbox"] for each in rows]) * np.tile(
        [size[1] / width, size[0] / height], 2
    )
    boxes = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], axis=1)
    return Detections(
        torch.tensor(boxes + rng.normal(0, 2, boxes.shape), dtype=torch.float32).clamp(0, SIDE),
        torch.tensor(rng.uniform(0.1, 1, len(rows)), dtype=torch.float32),
        torch.tensor([each["label"] for each in rows]),
    )


def test_scores_are_pycocotools_own(folder: Path, tmp_path: Path) -> None:
    data = read(folder)
    images = EvalImages(data.val, SIDE)
    known = {images[[i]]["images"][0].sum().item(): i for i in range(len(images))}

    def predict(pixels: torch.Tensor, sizes: torch.Tensor) -> list[Detections]:
        rows = zip(pixels, sizes.tolist(), strict=True)
        return [spoilt(data, known[one.sum().item()], size) for one, size in rows]

    how = Scoring(batch_size=2, workers=0, folder=tmp_path)
    found = score(predict, images, data, torch.device("cpu"), how).metrics
    assert not [name for name in found if "mask" in name]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(data.val.json_file))
        results = truth.loadRes(str(tmp_path / "predictions.json"))
        alone = COCOeval(truth, results, "bbox")
        alone.evaluate()
        alone.accumulate()
        alone.summarize()
    assert found["ap_box"] == pytest.approx(100 * alone.stats[0])
    assert 5 < found["ap_box"] < 99
    assert rescore(tmp_path / "predictions.json", data).metrics == found
    assert (tmp_path / "per_class.csv").read_text().startswith("category_id,class,ap_box\n")
    assert (tmp_path / "predictions.png").stat().st_size > 1000


def test_background_images_are_trained_on_if_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "train", content([image(1), image(2), image(4)], [thing(1, 1)]))
    write(tmp_path, "val", content([image(3)], [thing(1, 3)]))
    data = read(tmp_path)
    assert data.train.image_ids.tolist() == [1]
    assert any("--background-images trains on them too" in line for line in data.report_lines())
    whole = data.with_background()
    assert whole.train.image_ids.tolist() == [1, 2, 4]
    assert whole.train.objects.tolist() == [1, 0, 0]
    assert whole.counts == {"train images without annotation (trained on as background)": 2}
