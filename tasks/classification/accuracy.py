"""From logits to the accuracy of a test set, each image counted once; and the files to check it.

Shapes: B images of a batch, N of a test set, K classes, R best classes kept of each image, S image
side.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.checkpoint import save
from tasks import scoring
from tasks.classification import scores
from tasks.classification.labelled import Split
from tasks.classification.pictures import classified_sheet
from tasks.errors import TaskError
from tasks.learnt import CLASSES_FILE, write_classes
from tasks.scoring import ScoredImages
from tasks.task import Batch, Scored, Scoring

LOGITS_FILE = "logits.safetensors"
PICTURE_FILE = "predictions.png"

Predict = Callable[[Tensor], Tensor]
"""uint8 images (B, 3, S, S) on the device to logits (B, K)"""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a classifier says of some test images, a row for each."""

    index: np.ndarray
    """places in the test set, (N,)"""
    targets: np.ndarray
    """class indices, (N,)"""
    best: np.ndarray
    """class indices (N, R), best first; of equal ones the lower index first"""
    probabilities: np.ndarray
    """of the best, float32 (N, R)"""
    logits: np.ndarray | None = None
    """float32 (N, K), if they are to be kept"""

    @classmethod
    def join(cls, parts: Sequence["Answers"]) -> "Answers":
        """The rows of all parts, in the order of the test set."""
        order = np.argsort(np.concatenate([part.index for part in parts]))

        def column(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])[order]

        kept = all(part.logits is not None for part in parts)
        return cls(
            column("index"),
            column("targets"),
            column("best"),
            column("probabilities"),
            column("logits") if kept else None,
        )


@dataclass(frozen=True)
class Report:
    """How a test set's answers are named, and where they are kept."""

    names: Sequence[str]
    """of the test set's images"""
    classes: Sequence[str]
    among: Sequence[int] | None = None
    """class indices that an answer may be; None: all"""
    folder: Path | None = None
    """for the files; None: none are written"""
    save_logits: bool = False
    """keep the logits of all classes too"""
    images: Split | None = None
    """the test set, for a picture; None: none is drawn"""


def score(
    predict: Predict,
    data: ScoredImages,
    report: Report,
    device: torch.device,
    how: Scoring,
    keys: Sequence[Any] | None = None,
    finish_all: Callable[[Sequence[Answers], Report], Scored] | None = None,
) -> Scored:
    """Score every image once, over all processes, and report in the first one; see `finish`.

    `keys` are those of this process's batches, if `data` takes others than indices; `finish_all`
    makes the whole of all answers, by default `finish`.
    """
    report = replace(report, folder=how.folder, save_logits=how.save_logits)

    def step(batch: Batch) -> Answers:
        logits = predict(batch["images"].to(device, non_blocking=True))
        among, keep = report.among, report.save_logits
        return answers(logits, batch["targets"], batch["index"], among=among, keep_logits=keep)

    whole = finish_all or finish
    return scoring.score(data, step, lambda parts: whole(parts, report), how, device, keys)


def answers(
    logits: Tensor,
    targets: Tensor,
    index: Tensor,
    *,
    probabilities: Tensor | None = None,
    among: Sequence[int] | None = None,
    keep_logits: bool = False,
    kept: int | None = None,
) -> Answers:
    """The best classes of a batch: logits (B, K), class indices (B,), places in the test set (B,).

    `probabilities` (B, K): if they are not the softmax of the logits, as with votes. With `among`
    all other classes are left out before the softmax. `kept`: how many classes of each image, by
    default five, but not all, as the last one of all tells nothing of a score. Raises `TaskError`
    for logits that are not finite.
    """
    if not torch.isfinite(logits).all():
        raise TaskError("the model's logits are not finite; its training has diverged")
    shown = logits if among is None else logits[:, torch.tensor(among, device=logits.device)]
    kept = kept or min(scores.MOST_KEPT, max(1, shown.shape[1] - 1))
    best = shown.argsort(dim=1, descending=True, stable=True)[:, :kept]
    if probabilities is None:
        probabilities = shown.softmax(dim=1)
    elif among is not None:
        raise ValueError("probabilities are of all classes; leave out `among`")
    chosen = best.cpu().numpy()
    return Answers(
        index.cpu().numpy(),
        targets.cpu().numpy(),
        chosen if among is None else np.asarray(among)[chosen],
        probabilities.gather(1, best).float().cpu().numpy(),
        logits.float().cpu().numpy() if keep_logits else None,
    )


def finish(parts: Sequence[Answers], report: Report) -> Scored:
    """The accuracy of all processes' answers, with intervals; see `scores.accuracy`.

    Into the report's folder go `predictions.csv`, from which `scores.rescore` computes the same,
    `per_class.csv`, `classes.txt`, a picture of examples, and with `save_logits` "logits" (N, K)
    and "targets" (N,) as `logits.safetensors`.
    """
    found = Answers.join(parts)
    if report.folder is not None:
        names = (report.names[index] for index in found.index.tolist())
        write(found, names, report, report.folder)
    return scores.accuracy(found.targets, found.best)


def write(found: Answers, names: Iterable[str], report: Report, folder: Path) -> None:
    """The files of `finish`; `names` are the answers' images."""
    best, targets = found.best, found.targets
    file = folder / scores.PREDICTIONS_FILE
    scores.write_predictions(file, names, targets, best, found.probabilities)
    rows = range(len(report.classes)) if report.among is None else report.among
    file = folder / scores.PER_CLASS_FILE
    scores.write_per_class(file, report.classes, rows, targets, best[:, 0] == targets)
    write_classes(folder / CLASSES_FILE, report.classes)
    if report.images is not None:
        drawn = (found.index, targets, best, found.probabilities)
        classified_sheet(*drawn, report.images, report.classes, folder / PICTURE_FILE)
    if found.logits is not None:
        tensors = {"logits": torch.from_numpy(found.logits), "targets": torch.from_numpy(targets)}
        save(tensors, folder / LOGITS_FILE, {})
