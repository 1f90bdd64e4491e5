"""From logits to the accuracy of a test set, each image counted once; and the files to check it.

Shapes: B images of a batch, N of a test set, K classes, R best classes kept of each image, S image
side.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from backbones.checkpoint import save
from tasks import TaskError
from tasks.classification import scores
from tasks.classification.data import EvalImages
from tasks.processes import finish_in_first, num_processes, own_share
from tasks.task import Batch, Progress, Scored

LOGITS_FILE = "logits.safetensors"

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


@dataclass
class Found:
    """What one process found in its images."""

    answers: list[Answers] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


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


def score(
    predict: Predict,
    data: EvalImages,
    report: Report,
    device: torch.device,
    *,
    batch_size: int,
    workers: int,
    on_progress: Progress | None,
) -> Scored:
    """Score every image once, over all processes, and report in the first one; see `finish`."""
    keys = chunks(own_share(len(data))[0], batch_size)
    found = answer_all(predict, data, keys, report, device, workers, on_progress)
    return finish_in_first(found, lambda parts: finish(parts, report))


def chunks(indices: Sequence[int], size: int) -> list[Sequence[int]]:
    """`indices` by `size` at a time."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def answer_all(
    predict: Predict,
    data: EvalImages | Dataset[Batch],
    keys: Sequence[Any],
    report: Report,
    device: torch.device,
    workers: int,
    on_progress: Progress | None,
) -> Found:
    """Answers to this process's share of `data`, and the names of images that do not decode.

    `keys` are what the share's batches are asked for with; each is a batch of `EvalImages`.
    """
    loader = DataLoader(
        data,
        batch_size=None,  # the data set makes whole batches
        sampler=keys,
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    world, found, done = num_processes(), Found(), 0
    total = len(data)  # type: ignore[arg-type] # torch's Dataset declares no length
    for batch in loader:
        if len(batch["targets"]):
            logits = predict(batch["images"].to(device, non_blocking=True))
            found.answers.append(
                answers(
                    logits,
                    batch["targets"],
                    batch["index"],
                    among=report.among,
                    keep_logits=report.save_logits,
                )
            )
        found.unreadable += batch["skipped"]
        done += len(batch["targets"]) + len(batch["skipped"])
        if on_progress is not None:
            on_progress(min(done * world, total))
    return found


def answers(
    logits: Tensor,
    targets: Tensor,
    index: Tensor,
    *,
    probabilities: Tensor | None = None,
    among: Sequence[int] | None = None,
    keep_logits: bool = False,
) -> Answers:
    """The best classes of a batch: logits (B, K), class indices (B,), places in the test set (B,).

    `probabilities` (B, K): if they are not the softmax of the logits, as with votes. With `among`
    all other classes are left out before the softmax. Raises `TaskError` for logits that are not
    finite.
    """
    if not torch.isfinite(logits).all():
        raise TaskError("the model's logits are not finite; its training has diverged")
    shown = logits if among is None else logits[:, torch.tensor(among, device=logits.device)]
    kept = min(scores.MOST_KEPT, max(1, shown.shape[1] - 1))
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


def finish(parts: Sequence[Found], report: Report) -> Scored:
    """The accuracy of all processes' answers, with intervals; see `scores.accuracy`.

    Into the report's folder go `predictions.csv`, from which `scores.rescore` computes the same,
    `per_class.csv`, `classes.txt`, and with `save_logits` "logits" (N, K) and "targets" (N,) as
    `logits.safetensors`. Raises `TaskError` if no image could be read.
    """
    found, unreadable = together(parts)
    if report.folder is not None:
        names = (report.names[index] for index in found.index.tolist())
        write(found, names, report, report.folder)
    scored = scores.accuracy(found.targets, found.best)
    scored.unreadable = unreadable
    return scored


def together(parts: Sequence[Found]) -> tuple[Answers, list[str]]:
    """All processes' answers, and the names of images that do not decode.

    Raises `TaskError` if no image could be read.
    """
    unreadable = sorted(name for part in parts for name in part.unreadable)
    batches = [batch for part in parts for batch in part.answers]
    if not batches:
        raise TaskError(f"no test image decodes, {unreadable[0]} being the first; check the files")
    return Answers.join(batches), unreadable


def write(found: Answers, names: Iterable[str], report: Report, folder: Path) -> None:
    """The files of `finish`; `names` are the answers' images."""
    best, targets = found.best, found.targets
    file = folder / scores.PREDICTIONS_FILE
    scores.write_predictions(file, names, targets, best, found.probabilities)
    rows = range(len(report.classes)) if report.among is None else report.among
    file = folder / scores.PER_CLASS_FILE
    scores.write_per_class(file, report.classes, rows, targets, best[:, 0] == targets)
    scores.write_classes(folder / scores.CLASSES_FILE, report.classes)
    if found.logits is not None:
        tensors = {"logits": torch.from_numpy(found.logits), "targets": torch.from_numpy(targets)}
        save(tensors, folder / LOGITS_FILE, {})
