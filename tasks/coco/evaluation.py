"""COCO's box and mask AP by faster-coco-eval; predictions are kept for anybody to re-score.

Shapes: B images, S image side.
"""

import contextlib
import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from faster_coco_eval import COCOeval_faster
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from backbones.files import atomic_text
from tasks import scoring
from tasks.coco.data import EvalImages
from tasks.coco.layout import CocoData
from tasks.coco.mask_rcnn import Detections
from tasks.coco.masks import paste
from tasks.coco.pictures import comparison_sheet
from tasks.coco.segmentation import BAD_RLE, pack_run_lengths
from tasks.errors import TaskError
from tasks.spreadsheet import harmless
from tasks.task import Batch, Scored, Scoring

Result = dict[str, Any]
"""one detection in COCO's result format"""

PREDICTIONS_FILE = "predictions.json"
PER_CLASS_FILE = "per_class.csv"
PICTURE_FILE = "predictions.png"

LARGEST = 1e6
"""number, a coordinate in pixels, that a result may hold"""
FIGURES = ("", "_50", "_75", "_small", "_medium", "_large")
"""what the first six numbers of COCO's summary are called, after ap_box or ap_mask"""
KINDS = {"box": "bbox", "mask": "segm"}


def score(
    predict: Callable[[Tensor, Tensor], list[Detections]],
    images: EvalImages,
    data: CocoData,
    device: torch.device,
    how: Scoring,
) -> Scored:
    """Predict every test image once, over all processes, and score in the first one.

    `predict` maps uint8 images (B, 3, S, S) on `device`, padded, and their sizes (B, 2) to
    detections. Files go to `how.folder`, by the first process.
    """

    def step(batch: Batch) -> list[Result]:
        detections = predict(batch["images"].to(device, non_blocking=True), batch["sizes"])
        if not data.masks:  # boxes alone are scored
            detections = [each._replace(masks=None) for each in detections]
        rows = zip(detections, batch["index"].tolist(), batch["sizes"].tolist(), strict=True)
        return [
            result for each, index, size in rows for result in to_results(each, index, size, data)
        ]

    return scoring.score(images, step, lambda parts: finish(parts, data, how.folder), how, device)


def to_results(found: Detections, index: int, size: list[int], data: CocoData) -> list[Result]:
    """Detections in a network input of `size` (height, width), in COCO's result format.

    Boxes and masks are brought to the image's own size; those without area are dropped.
    Source: detectron2, modeling/postprocessing.py and evaluation/coco_evaluation.py.
    """
    height, width = data.val.sizes[index].tolist()
    scale = torch.tensor([width / size[1], height / size[0]] * 2)
    boxes = clip_boxes_to_image(found.boxes.float().cpu() * scale, (height, width))
    kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    image_id = int(data.val.image_ids[index])
    labels, scores = found.labels.tolist(), found.scores.double().tolist()
    masks = found.masks.cpu() if found.masks is not None else None
    results = []
    for row in torch.where(kept)[0].tolist():
        box = boxes[row]
        result = {
            "image_id": image_id,
            "category_id": data.category_ids[labels[row]],
            "bbox": torch.cat([box[:2], box[2:] - box[:2]]).double().tolist(),
            "score": scores[row],
        }
        if masks is not None:
            result["segmentation"] = paste(masks[row], box, height, width)
        results.append(result)
    return results


def finish(parts: Sequence[list[Result]], data: CocoData, folder: Path | None) -> Scored:
    """Score all processes' results and keep them in `folder`, with a table and a picture."""
    results = [result for part in parts for result in part]
    results.sort(key=lambda each: (each["image_id"], -each["score"]))
    if folder is not None:
        with atomic_text(folder / PREDICTIONS_FILE) as stream:
            stream.write(json.dumps(results))
    truth = ground_truth(data)
    metrics, per_class = figures(truth, results, data)
    if folder is not None:
        write_per_class(folder / PER_CLASS_FILE, data, per_class)
        comparison_sheet(truth, results, data, folder / PICTURE_FILE)
    return Scored(metrics)


def figures(
    truth: COCO, results: list[Result], data: CocoData
) -> tuple[dict[str, float], dict[str, list[float | None]]]:
    """The metrics, without those that COCO does not define here, and the AP of each class."""
    metrics: dict[str, float] = {}
    per_class: dict[str, list[float | None]] = {}
    for name, kind in KINDS.items():
        if name == "mask" and not data.masks:
            continue
        found, per_class[f"ap_{name}"] = average_precision(truth, results, kind)
        metrics |= {
            f"ap_{name}{figure}": value
            for figure, value in zip(FIGURES, found, strict=True)
            if value is not None
        }
    return metrics, per_class


def rescore(file: Path, data: CocoData) -> Scored:
    """What a run's `predictions.json` scores on the val set of `data`: the metrics of its record.

    Raises `TaskError`, with the place, for a file that is no such list.
    """
    return Scored(figures(ground_truth(data), read_predictions(file, data), data)[0])


def read_predictions(file: Path, data: CocoData) -> list[Result]:
    """The results in a `predictions.json`, which may be anybody's; pycocotools checks nothing."""
    expected = "expected a list of results as COCO defines it"
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise TaskError(f"{file}: {error.strerror}; expected a run's {PREDICTIONS_FILE}") from None
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{file}: no JSON ({error}); {expected}") from None
    if not isinstance(content, list):
        raise TaskError(f"{file}: no list; {expected}")
    sizes = dict(zip(data.val.image_ids.tolist(), data.val.sizes.tolist(), strict=True))
    results = []
    for number, each in enumerate(content, start=1):
        try:
            results.append(checked(each, sizes, data))
        except ValueError as error:
            raise TaskError(f"{file}, result {number}: {error}; {expected}") from None
    return results


def checked(each: Any, sizes: dict[int, list[int]], data: CocoData) -> Result:
    """A result of one of the images with `sizes` (height, width) by id; ValueError if it is none.

    Broken run lengths are decoded by pycocotools into memory that is not its own.
    """
    keys = ["image_id", "category_id", "bbox", "score"] + ["segmentation"] * data.masks
    if not isinstance(each, dict) or set(each) != set(keys):
        raise ValueError(f"not the keys {', '.join(keys)}")
    image, category, box, score = (each[key] for key in keys[:4])
    if type(image) is not int or image not in sizes:
        raise ValueError("its image_id is that of no test image")
    if type(category) is not int or category not in data.category_ids:
        raise ValueError("its category_id is that of no class")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise ValueError("its bbox is not four numbers")
    if not is_number(score):
        raise ValueError("its score is no number")
    if not data.masks:
        return each
    mask = each["segmentation"]
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str):
        raise ValueError("its segmentation is not run lengths as a string")
    if pack_run_lengths(mask, *sizes[image])[1] == BAD_RLE:
        raise ValueError("its segmentation does not fill the image")
    mask = {"size": sizes[image], "counts": mask["counts"]}
    return each | {"segmentation": mask}


def is_number(value: Any) -> bool:
    """Whether a value of a result is a number, finite and of a sane size."""
    return type(value) in (int, float) and abs(value) <= LARGEST


def ground_truth(data: CocoData) -> COCO:
    """pycocotools' index of the val annotations as reading has checked them."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    ids, sizes = data.val.image_ids.tolist(), data.val.sizes.tolist()
    for index, (image_id, (height, width)) in enumerate(zip(ids, sizes, strict=True)):
        images.append({"id": image_id, "height": height, "width": width})
        for each in data.val.annotations(index):
            mask, area = each["segmentation"], each["area"]
            if isinstance(mask, list):
                mask = [ring.ravel().tolist() for ring in mask]
            annotations.append(
                {
                    "id": len(annotations) + 1,  # pycocotools takes 0 for none
                    "image_id": image_id,
                    "category_id": data.category_ids[each["label"]],
                    "bbox": each["bbox"].tolist(),
                    "area": area_of(each, height, width) if math.isnan(area) else area,
                    "iscrowd": each["iscrowd"],
                }
                | ({} if mask is None else {"segmentation": mask})
            )
    names = zip(data.category_ids, data.classes, strict=True)
    return index_truth(
        {
            "info": {},
            "images": images,
            "annotations": annotations,
            "categories": [{"id": number, "name": name} for number, name in names],
        }
    )


def index_truth(annotations: dict[str, Any]) -> COCO:
    """pycocotools' index of what an annotation file holds."""
    truth = COCO()
    truth.dataset = annotations
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def area_of(annotation: dict[str, Any], height: int, width: int) -> float:
    """Pixels of a training annotation's outline, or of its box where it has none.

    Reading takes the file's own areas of test annotations alone.
    """
    mask: Any = annotation["segmentation"]
    if mask is None:
        return float(annotation["bbox"][2] * annotation["bbox"][3])
    if isinstance(mask, list):
        rings = [ring.ravel().tolist() for ring in mask]
        mask = mask_api.merge(mask_api.frPyObjects(rings, height, width))
    return float(mask_api.area(mask))


def average_precision(
    truth: COCO, results: list[Result], kind: str
) -> tuple[list[float | None], list[float | None]]:
    """COCO's six figures in FIGURES' order, and the AP of each class, 0 to 100; None: undefined.

    `kind` is "bbox" or "segm"; then the area of a result is its mask's, as detectron2 has it.
    faster-coco-eval gives pycocotools' figures (benchmarks/coco_evaluation.py), but for the 2e-16
    that pycocotools adds to the denominator of each precision.
    """
    foreign = "bbox" if kind == "segm" else "segmentation"
    own = [{key: value for key, value in each.items() if key != foreign} for each in results]
    with contextlib.redirect_stdout(io.StringIO()):
        found = index_results(truth, own)
    evaluation = COCOeval_faster(truth, found, kind)
    evaluation.run()
    figures = [100 * float(value) if value > -1 else None for value in evaluation.stats[:6]]
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class), all sizes
    per_class = []
    for index in range(precision.shape[2]):
        valid = precision[:, :, index]
        valid = valid[valid > -1]
        per_class.append(100 * float(valid.mean()) if valid.size else None)
    return figures, per_class


def index_results(truth: COCO, results: list[Result]) -> COCO:
    """pycocotools' index of results; its own `loadRes` refuses an empty list."""
    if results:
        return truth.loadRes(results)
    index = COCO()
    index.dataset = truth.dataset | {"annotations": []}
    index.createIndex()
    return index


def write_per_class(file: Path, data: CocoData, columns: dict[str, list[float | None]]) -> None:
    """A CSV of one row a class; an empty cell where COCO defines no figure."""
    with atomic_text(file) as stream:
        writer = csv.writer(stream)
        writer.writerow(["category_id", "class", *columns])
        for number, name, *cells in zip(
            data.category_ids, data.classes, *columns.values(), strict=True
        ):
            shown = ["" if cell is None else cell for cell in cells]
            writer.writerow([number, harmless(name), *shown])
