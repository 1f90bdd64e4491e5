"""A trained ImageNet-1k classifier on the test sets that ask how far its accuracy holds.

ImageNet-A and -R have 200 of the classes, and only those may be answered: hendrycks/
natural-adv-examples, eval.py, and hendrycks/imagenet-r, eval.py. ImageNet-C's images are cut as the
network takes them, and not cropped again: hendrycks/robustness, ImageNet-C/test.py. The rest is as
in the test on ImageNet-1k itself.

Shapes: N images, V views of each image in ImageNet-C: 15 corruptions by 5 severities.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from backbones.files import atomic_text
from tasks.classification import scores
from tasks.classification.accuracy import Answers, Predict, Report, score, write
from tasks.classification.classifier import Classifier
from tasks.classification.data import EvalImages
from tasks.classification.datasets import IMAGENET_1K, ROBUSTNESS, SEVERITIES, RobustnessFacts
from tasks.classification.robustness_sets import (
    RobustnessImages,
    locate,
    read_folders,
    read_robustness,
)
from tasks.errors import TaskError
from tasks.images.files import shorten
from tasks.processes import own_share
from tasks.scoring import chunks
from tasks.task import SCORING, Batch, Measurement, Scored, Scoring

PER_CORRUPTION_FILE = "per_corruption.csv"

VALIDATION = RobustnessFacts(
    name=IMAGENET_1K.name,
    title=IMAGENET_1K.title,
    num_classes=IMAGENET_1K.num_classes,
    num_images=IMAGENET_1K.num_val,
    layout="val/<wnid>/*.JPEG",
    obtain=IMAGENET_1K.obtain,
    folder="val",
)
"""ImageNet-1k's own test images, without its training images"""

SETS = (*ROBUSTNESS, VALIDATION.name)
SUBSETS = ("imagenet_a", "imagenet_r")
"""sets in which only classes of the set may be answered"""
CORRUPTED = "imagenet_c"

ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""corruption -> AlexNet's mean error over the severities: google-research/augmix, imagenet.py"""


class Robustness(Measurement):
    """A classifier of ImageNet-1k and one of `SETS`.

    Raises `TaskError` if the data is not as expected, or has a class that the model lacks.
    """

    def __init__(
        self,
        model: Classifier,
        classes: Sequence[str],
        name: str,
        root: Path,
        limit: int | None = None,
    ) -> None:
        """`classes`: the model's, wnids in index order; `limit`: so many images only, in ImageNet-C
        of each corruption and severity."""
        self.model = model
        self.classes = classes
        self.data = read(name, root, classes).limited(limit)
        self.has_logits = name != CORRUPTED

    def data_facts(self) -> dict[str, Any]:
        data = self.data
        return {
            "name": data.facts.name,
            "fingerprint": data.fingerprint,
            "train_images": 0,
            "val_images": len(data),
            "classes": len(data.class_indices),
            "standard": data.standard,
        }

    def notes(self) -> list[str]:
        return list(self.data.notes)

    @torch.no_grad()
    def evaluate(self, how: Scoring = SCORING) -> Scored:
        """Score "top1", "top5" and "per_class" in percent; on ImageNet-C "top1" and "mce".

        As `Classification.evaluate`; for ImageNet-C see `finish_views`.
        """
        recipe, name = self.model.recipe, self.data.facts.name
        ratio = 1.0 if name == CORRUPTED else recipe.crop_ratio
        images = {
            key: EvalImages(split, recipe.image_size, ratio)
            for key, split in self.data.splits.items()
        }
        among = self.data.class_indices.tolist() if name in SUBSETS else None
        device = torch.device(how.device or self.model.mean.device)
        self.model.eval()
        report = Report([], self.classes, among)
        if name == CORRUPTED:
            return score_views(self.model.predict, Views(images), report, device, how)
        (only,) = images.values()
        report = replace(report, names=only.split.names, images=only.split)
        return score(self.model.predict, only, report, device, how)


def read(name: str, root: Path, classes: Sequence[str]) -> RobustnessImages:
    """One of `SETS` from its folder; targets are indices into `classes`."""
    if name in ROBUSTNESS:
        return read_robustness(name, root, classes)
    return read_folders(VALIDATION, locate(VALIDATION, root), classes)


class Views(Dataset[Batch]):
    """ImageNet-C: the test images of each corruption and severity, one after the other."""

    def __init__(self, parts: dict[str, EvalImages]) -> None:
        self.parts = parts
        """"<corruption>/<severity>" -> images"""
        ends = np.cumsum([len(part) for part in parts.values()]).tolist()
        self.rows = {
            key: range(start, end) for key, start, end in zip(parts, [0, *ends], ends, strict=False)
        }
        """the same keys -> places of the images in the whole"""

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    def __getitem__(self, key: tuple[str, Sequence[int]]) -> Batch:
        """As of `EvalImages`, for some images of one part; "index" counts through all parts."""
        part, indices = key
        batch = self.parts[part][list(indices)]
        batch["index"] += self.rows[part].start
        batch["skipped"] = [e._replace(name=f"{part}/{e.name}") for e in batch["skipped"]]
        return batch

    def names(self, indices: np.ndarray) -> Iterator[tuple[str, list[str]]]:
        """Key of each part, and those of its images that are in `indices`, which rise."""
        for key, rows in self.rows.items():
            start, end = np.searchsorted(indices, (rows.start, rows.stop))
            here, names = (indices[start:end] - rows.start).tolist(), self.parts[key].split.names
            yield key, [names[index] for index in here]


def score_views(
    predict: Predict, views: Views, report: Report, device: torch.device, how: Scoring
) -> Scored:
    """Score every file of ImageNet-C once, over all processes; see `finish_views`."""
    keys = [
        (key, chunk)
        for key, part in views.parts.items()
        for chunk in chunks(own_share(len(part))[0], how.batch_size)
    ]

    def finish(parts: Sequence[Answers], report: Report) -> Scored:
        return finish_views(parts, views, report)

    return score(predict, views, report, device, how, keys, finish)


def finish_views(parts: Sequence[Answers], views: Views, report: Report) -> Scored:
    """Score all processes' answers to ImageNet-C; see `corruption_scores`.

    Into the report's folder go the files of `accuracy.finish`, where every file of the set is an
    image, and `per_corruption.csv`.
    """
    found = Answers.join(parts)
    hits = found.best[:, 0] == found.targets
    scored, errors = corruption_scores(views.names(found.index), hits)
    if report.folder is not None:
        names = (f"{key}/{name}" for key, own in views.names(found.index) for name in own)
        write(found, names, report, report.folder)
        write_per_corruption(report.folder / PER_CORRUPTION_FILE, errors)
    return scored


def rescore_views(file: Path, num_classes: int | None = None) -> Scored:
    """The same from a `predictions.csv` of ImageNet-C: the metrics and intervals of its record."""
    names, targets, best = scores.read_predictions(file, num_classes)
    parted = [name.split("/", 2) for name in names]
    odd = next((name for name, part in zip(names, parted, strict=True) if len(part) < 3), None)
    if odd is not None:
        raise TaskError(f"{file}: {odd} is not <corruption>/<severity>/<wnid>/<file> of ImageNet-C")
    views = groupby(parted, lambda part: f"{part[0]}/{part[1]}")
    named = ((key, [rest for _, _, rest in rows]) for key, rows in views)
    return corruption_scores(named, best[:, 0] == targets)[0]


def corruption_scores(
    views: Iterable[tuple[str, list[str]]], hits: np.ndarray
) -> tuple[Scored, np.ndarray]:
    """ "top1" and "mce" in percent, with intervals; and the errors (15, 5), 0 to 1.

    `views`: "<corruption>/<severity>" and its images' names, one after the other as in `hits`.
    "top1" is the mean accuracy over corruptions and severities. "mce" is a corruption's errors at
    five severities over AlexNet's, mean over the corruptions (arXiv 1903.12261, section 4.2).
    Intervals are over images, each with all its views; there are none if an image lacks a view,
    or does not decode in one. Raises `TaskError` for a view without images.
    """
    parts: dict[str, np.ndarray] = {}
    first: list[str] | None = None
    alike, start = True, 0
    for key, names in views:
        if key in parts:
            raise TaskError(f"the images of {key} are not one after the other")
        first = names if first is None else first
        alike = alike and names == first
        parts[key] = hits[start : start + len(names)]
        start += len(names)
    empty = [key for key in keys() if not len(parts.get(key, ()))]
    if empty:
        raise TaskError(f"no image of {shorten(empty)} could be scored; check the files")
    errors = table({key: 1 - part.mean() for key, part in parts.items()})
    scored = Scored({"top1": 100 * (1 - float(errors.mean())), "mce": 100 * float(mce(errors))})
    if alike:
        misses = table({key: ~part for key, part in parts.items()})  # (15, 5, N)
        scored.intervals["top1"] = scores.mean_interval(1 - misses.mean(axis=(0, 1)))
        scored.intervals["mce"] = scores.mean_interval(mce(misses))
    return scored, errors


def keys() -> list[str]:
    return [f"{name}/{severity}" for name in ALEXNET_ERRORS for severity in SEVERITIES]


def table(values: dict[str, Any]) -> np.ndarray:
    """What belongs to each of `keys` as (15, 5, ...)."""
    flat = np.array([values[key] for key in keys()])
    return flat.reshape(len(ALEXNET_ERRORS), len(SEVERITIES), *flat.shape[1:])


def mce(errors: np.ndarray) -> np.ndarray:
    """Mean corruption error of errors (15, 5, ...), 0 to 1, in the order of ALEXNET_ERRORS."""
    alexnet = np.array(list(ALEXNET_ERRORS.values()))
    return np.tensordot(1 / alexnet, errors.mean(axis=1), axes=1) / len(alexnet)


def write_per_corruption(file: Path, errors: np.ndarray) -> None:
    """A CSV of errors (15, 5) in percent, their means, AlexNet's, and both means' ratio; last the
    mean over the corruptions, whose ratio is the mCE."""
    alexnet = np.array(list(ALEXNET_ERRORS.values()))
    means = errors.mean(axis=1)
    rows = 100 * np.column_stack([errors, means, alexnet, means / alexnet])
    with atomic_text(file) as stream:
        writer = csv.writer(stream)
        severities = [f"severity_{severity}" for severity in SEVERITIES]
        writer.writerow(["corruption", *severities, "error", "alexnet_error", "corruption_error"])
        for name, row in zip([*ALEXNET_ERRORS, "mean"], [*rows, rows.mean(axis=0)], strict=True):
            writer.writerow([name, *(round(value, 10) for value in row.tolist())])
