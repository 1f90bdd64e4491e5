"""mIoU, mAcc and aAcc by mmsegmentation's counting, over whole images.

Shapes: K classes, (h, w) a view of an image, (H, W) the image itself.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from backbones.files import atomic_text
from tasks import scoring
from tasks.ade20k.data import EvalImages
from tasks.ade20k.datasets import IGNORED
from tasks.ade20k.labels import decode_label, read_label
from tasks.ade20k.layout import SegmentationData
from tasks.ade20k.pictures import NUM_PICTURED, comparison_sheet
from tasks.ade20k.upernet import load_mmseg
from tasks.errors import TaskError
from tasks.images import Unreadable
from tasks.pictures import spread
from tasks.processes import own_share
from tasks.spreadsheet import harmless
from tasks.task import Batch, Scored, Scoring

PART = 2**22
"""pixels that are counted at a time"""

Predict = Callable[[list[Tensor], tuple[int, ...]], Tensor]
"""views uint8 (3, h, w) of an image, and its size (H, W), to its classes, uint8 (H, W)"""

PREDICTIONS_FOLDER = "predictions"
PER_CLASS_FILE = "per_class.csv"
PICTURE_FILE = "predictions.png"


@dataclass
class ImageResult:
    """What was found in one image."""

    areas: Tensor
    """float64 (4, K): pixels of intersection, union, prediction and truth of each class"""
    predictions: dict[int, bytes] = field(default_factory=dict)
    """index of an image -> its classes as a PNG"""


class Views(Dataset[Batch]):
    """Each test image at several scales: the items of `EvalImages`, with a list "images" more, and
    "index" (1,), or (0,) of an unreadable one."""

    def __init__(self, sets: Sequence[EvalImages]) -> None:
        self.sets = sets

    def __len__(self) -> int:
        return len(self.sets[0])

    def __getitem__(self, index: int) -> Batch:
        items = [each[index] for each in self.sets]
        readable = [] if items[0]["skipped"] else [index]
        views = [item["image"] for item in items]
        return items[0] | {"images": views, "index": torch.tensor(readable)}


def score(
    predict: Predict,
    views: Views,
    data: SegmentationData,
    device: torch.device,
    how: Scoring,
) -> Scored:
    """Predict every test image once, over all processes, and score in the first one.

    Files go to `how.folder`, by the first process: `PER_CLASS_FILE`, `PICTURE_FILE`, and an image
    of each prediction in `PREDICTIONS_FOLDER`.
    """

    def step(item: Batch) -> ImageResult:
        label = item["label"]
        predicted = predict(item["images"], tuple(label.shape)).cpu()
        found = areas(predicted, label, len(data.classes))
        return ImageResult(found, {int(item["index"]): png(predicted.numpy())})

    own = own_share(len(views))[0]
    return scoring.score(
        views, step, lambda parts: finish(parts, data, how.folder), how, device, own
    )


def areas(predicted: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """The `ImageResult.areas` of an image: its classes and the true ones, both uint8 (H, W)."""
    count = load_mmseg().metric.intersect_and_union
    total = torch.zeros(4, num_classes, dtype=torch.float64)
    # Counts of float32, which is what comes, stand still at 2^24, so they are taken by parts.
    parts = zip(predicted.reshape(-1).split(PART), label.reshape(-1).split(PART), strict=True)
    for predicted_part, label_part in parts:
        total += torch.stack(count(predicted_part, label_part, num_classes, IGNORED)).double()
    return total


def png(labels: np.ndarray) -> bytes:
    """An 8-bit grey PNG of uint8 (H, W)."""
    stream = io.BytesIO()
    Image.fromarray(labels).save(stream, "PNG")
    return stream.getvalue()


def pixels(image: bytes) -> np.ndarray:
    """What `png` made a file of."""
    return np.asarray(Image.open(io.BytesIO(image)))


def finish(parts: Sequence[ImageResult], data: SegmentationData, folder: Path | None) -> Scored:
    """The metrics of all processes' findings; and into `folder` a table by class and pictures."""
    metrics, per_class = figures(total(parts))
    if folder is not None:
        write_per_class(folder / PER_CLASS_FILE, data, per_class)
        found = {index: image for part in parts for index, image in part.predictions.items()}
        write_predictions(folder / PREDICTIONS_FOLDER, data, found)
        pictured = [i for i in spread(len(data.val), NUM_PICTURED) if i in found]
        if pictured:
            comparison_sheet({i: pixels(found[i]) for i in pictured}, data, folder / PICTURE_FILE)
    return Scored(metrics)


def total(parts: Sequence[ImageResult]) -> Tensor:
    """The areas (4, K) of all images."""
    return torch.stack([part.areas for part in parts]).sum(0)


def figures(areas: Tensor) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """ "miou", "macc", "aacc" of areas (4, K), and "iou" and "acc" of each class, all 0 to 100.

    Means are over the classes that have the figure: "iou" those that occur in truth or
    prediction, "acc" those that occur in truth; the others are NaN. Source: mmsegmentation,
    evaluation/metrics/iou_metric.py, which rounds to two digits. Without a labelled pixel there
    are no metrics.
    """
    found = load_mmseg().metric.total_area_to_metrics(*areas)
    per_class = {name.lower(): 100 * found[name] for name in ("IoU", "Acc")}
    if not areas[3].any():
        return {}, per_class
    metrics = {f"m{name}": float(np.nanmean(values)) for name, values in per_class.items()}
    return metrics | {"aacc": 100 * float(found["aAcc"])}, per_class


def write_per_class(file: Path, data: SegmentationData, columns: dict[str, np.ndarray]) -> None:
    """A CSV of one row a class; an empty cell where a figure is not defined."""
    with atomic_text(file) as stream:
        writer = csv.writer(stream)
        writer.writerow(["value", "class", *columns])
        first = data.rule.first
        for index, row in enumerate(zip(data.classes, *columns.values(), strict=True)):
            name, *cells = row
            shown = ["" if np.isnan(cell) else float(cell) for cell in cells]
            writer.writerow([index + first, harmless(name), *shown])


def write_predictions(folder: Path, data: SegmentationData, found: dict[int, bytes]) -> None:
    """A PNG for each test image, by its stem, with the values that its label image would have.

    In ADE20K these are the class index + 1: what its benchmark takes.
    """
    folder.mkdir(exist_ok=True)
    for index, image in found.items():
        name = f"{Path(data.val.names[index]).stem}.png"
        (folder / name).write_bytes(png(pixels(image) + np.uint8(data.rule.first)))


def rescore(folder: Path, data: SegmentationData) -> Scored:
    """What a run's `predictions/` score on the val set of `data`: the metrics of its record.

    Images without a prediction, those that the run could not read, are left out and named.
    Raises `TaskError` for predictions of other images, and for a file that is none.
    """
    if not folder.is_dir():
        raise TaskError(f"{folder}: no such folder; expected a run's {PREDICTIONS_FOLDER}/")
    there = {file.stem: file for file in folder.glob("*.png")}
    stems = [Path(name).stem for name in data.val.names]
    foreign = sorted(there.keys() - set(stems))
    if foreign or not there:
        reason = f"{foreign[0]}.png is of no test image" if foreign else "holds no .png"
        raise TaskError(f"{folder}: {reason}; expected predictions of the {len(stems)} test images")
    total, unreadable = torch.zeros(4, len(data.classes), dtype=torch.float64), []
    for index, stem in enumerate(stems):
        if stem in there:
            label = torch.from_numpy(read_label(data.val.label_path(index), data.rule))
            predicted = read_prediction(there[stem], tuple(label.shape), data)
            total += areas(torch.from_numpy(predicted), label, len(data.classes))
        else:
            unreadable.append(Unreadable(data.val.names[index], "has no prediction"))
    return Scored(figures(total)[0], unreadable)


def read_prediction(file: Path, shape: tuple[int, ...], data: SegmentationData) -> np.ndarray:
    """The classes, uint8 (H, W), in a PNG of `write_predictions`, which may be anybody's."""
    values, first = decode_label(file), data.rule.first
    if values.shape != shape:
        raise TaskError(
            f"{file} is {values.shape[1]} wide and {values.shape[0]} high; expected {shape[1]} and "
            f"{shape[0]}, as its label image is"
        )
    if values.min() < first or values.max() >= first + len(data.classes):
        raise TaskError(
            f"{file} holds {values.min()} to {values.max()}; expected classes, {first} to "
            f"{first + len(data.classes) - 1}"
        )
    return values - np.uint8(first)
