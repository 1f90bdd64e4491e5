"""Accuracy from the best classes of each image, its confidence intervals, and re-scoring.

Shapes: N images, K classes, R best classes kept of each image.
"""

import csv
import io
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from backbones.files import atomic_text, open_regular
from tasks.errors import TaskError
from tasks.learnt import CLASSES_FILE
from tasks.spreadsheet import harmless
from tasks.task import Scored

PREDICTIONS_FILE = "predictions.csv"
PER_CLASS_FILE = "per_class.csv"

MOST_KEPT = 5
"""best classes kept of an image; of five classes or fewer, all but the worst"""
MOST_CLASSES = 100_000
MOST_BYTES = 2 * 1024**3
MOST_LINE = 64 * 1024
"""of a file to score again; a line in characters"""
SLACK, SUM_SLACK = 1e-5, 0.02
"""of probabilities that were rounded to six digits, or computed in bfloat16"""
RESAMPLES = 2000
"""bootstrap resamples behind an interval"""
ENDS = (2.5, 97.5)
"""percentiles of the bootstrap distribution that a 95 % interval ends at"""
SEED = 2111_06377
"""of the bootstrap: the intervals of the same counts are the same numbers everywhere"""


def accuracy(targets: np.ndarray, best: np.ndarray) -> Scored:
    """ "top1", "top5" and "per_class" in percent, with intervals; no "top5" below six classes.

    `targets` (N,) and `best` (N, R), best first, are class indices. "per_class" is the mean of
    the classes' accuracies, over classes that have images.
    """
    hits = best == targets[:, None]
    count = len(targets)
    found = {"top1": int(hits[:, 0].sum())}
    if best.shape[1] == MOST_KEPT:
        found["top5"] = int(hits.sum())
    images, correct = by_class(targets, hits[:, 0])
    present = images > 0
    cells = np.stack([correct[present], (images - correct)[present]])  # (2, classes)
    metrics = {name: 100 * right / count for name, right in found.items()}
    intervals = {name: share_interval(right, count) for name, right in found.items()}
    metrics["per_class"] = 100 * mean_of_classes(cells)
    intervals["per_class"] = per_class_interval(cells)
    return Scored(metrics, intervals=intervals)


def by_class(
    targets: np.ndarray, hits: np.ndarray, num_classes: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Images of each class, and how many of them are hits; of `num_classes` classes at least."""
    images = np.bincount(targets, minlength=num_classes)
    return images, np.bincount(targets[hits], minlength=len(images))


def mean_of_classes(cells: np.ndarray) -> float:
    """Mean accuracy, 0 to 1, of hits and misses (2, classes), over classes that have any."""
    images = cells.sum(axis=0)
    return float((cells[0][images > 0] / images[images > 0]).mean())


def share_interval(right: int, count: int) -> tuple[float, float]:
    """95 % percentile bootstrap interval, in percent, of `right` images out of `count`.

    Drawing images with replacement makes the number of right ones binomial, so it is drawn.
    """
    generator = np.random.default_rng(SEED)
    return ends(generator.binomial(count, right / count, RESAMPLES) / count)


def per_class_interval(cells: np.ndarray) -> tuple[float, float]:
    """The same of `mean_of_classes`: images drawn with replacement fall into cells."""
    generator = np.random.default_rng(SEED)
    count, shares = cells.sum(), cells.ravel() / cells.sum()
    draws = (generator.multinomial(count, shares).reshape(cells.shape) for _ in range(RESAMPLES))
    return ends(np.array([mean_of_classes(drawn) for drawn in draws]))


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """The same of the mean of `values` (N,), one per image, 0 to 1."""
    generator = np.random.default_rng(SEED)
    count = len(values)
    means = [values[generator.integers(count, size=count)].mean() for _ in range(RESAMPLES)]
    return ends(np.array(means))


def ends(drawn: np.ndarray) -> tuple[float, float]:
    """Percentiles `ENDS`, in percent, of a bootstrap distribution of shares."""
    low, high = np.percentile(100 * drawn, ENDS)
    return float(low), float(high)


def rescore(file: Path, num_classes: int | None = None) -> Scored:
    """What a run's `predictions.csv` scores: the metrics and intervals of its record.

    Raises `TaskError`, with the row, for a file that is no such table.
    """
    _, targets, best = read_predictions(file, num_classes)
    return accuracy(targets, best)


def compare_targets(
    file: Path, names: Iterable[str], targets: np.ndarray, num_classes: int | None = None
) -> None:
    """Raise `TaskError` unless the images and classes in a `predictions.csv` are the data set's.

    `names` and `targets` (N,) are those of its test images.
    """
    truth = dict(zip(map(harmless, names), targets.tolist(), strict=True))
    there, own, _ = read_predictions(file, num_classes)
    for row, (name, target) in enumerate(zip(there, own.tolist(), strict=True), start=2):
        if name not in truth:
            raise TaskError(f"{file}, row {row}: {name} is no test image of the data set")
        if truth[name] != target:
            raise TaskError(
                f"{file}, row {row}: {name} is of class {target} there, and of class "
                f"{truth[name]} in the data set: the predictions were altered"
            )


def header(kept: int) -> list[str]:
    """Columns of `predictions.csv`; classes are indices into `classes.txt`, counted from 0."""
    ranks = range(1, kept + 1)
    return ["file", "target"] + [f"{what}_{r}" for r in ranks for what in ("class", "probability")]


def write_predictions(
    file: Path,
    names: Iterable[str],
    targets: np.ndarray,
    best: np.ndarray,
    probabilities: np.ndarray,
) -> None:
    """A CSV of one row an image: file, class, best classes (N, R) and their probabilities."""
    with atomic_text(file) as stream:
        writer = csv.writer(stream)
        writer.writerow(header(best.shape[1]))
        for name, target, classes, shares in zip(names, targets, best, probabilities, strict=True):
            pairs = zip(classes.tolist(), shares.tolist(), strict=True)
            cells = [cell for index, share in pairs for cell in (index, f"{share:.6g}")]
            writer.writerow([harmless(name), target, *cells])


def read_predictions(
    file: Path, num_classes: int | None = None
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """File names, targets (N,) and best classes (N, R) of a `predictions.csv`.

    Raises `TaskError`, with the row, unless every image is there once with `num_classes` classes
    or fewer, each of its best classes once, and their probabilities from 0 to 1, largest first: a
    class that is listed five times would be a hit five times.
    """
    names: dict[str, None] = {}
    classes, shares = array("q"), array("d")
    try:
        with (
            open_regular(file, MOST_BYTES) as binary,
            io.TextIOWrapper(io.BufferedReader(binary), "utf-8", newline="") as stream,
        ):
            reader = csv.reader(bounded(stream), strict=True)
            columns = next(reader, [])
            kept = (len(columns) - 2) // 2
            if not 1 <= kept <= MOST_KEPT or columns != header(kept):
                raise TaskError(
                    f"{file}: no predictions of ours; expected columns {header(1)} ..., of "
                    f"{MOST_KEPT} classes at most"
                )
            for row in reader:
                if len(row) != len(columns):
                    raise ValueError(f"{len(row)} cells for {len(columns)} columns")
                if row[0] in names:
                    raise ValueError("an image for the second time")
                classes.extend([int(cell) for cell in (row[1], *row[2::2])])
                shares.extend([float(cell) for cell in row[3::2]])
                names[row[0]] = None
    except OSError as error:
        raise TaskError(f"{file}: {error.strerror}; expected a run's {PREDICTIONS_FILE}") from None
    except (ValueError, OverflowError, csv.Error) as error:
        if isinstance(error, TaskError):
            raise
        raise TaskError(
            f"{file}, row {len(names) + 2}: {error}; expected the table of a run"
        ) from None
    if not names:
        raise TaskError(f"{file}: has no images; expected a row for each")
    table = np.array(classes).reshape(len(names), -1)
    refuse_odd_rows(file, table, np.array(shares).reshape(len(names), -1), num_classes)
    return list(names), table[:, 0], table[:, 1:]


def bounded(stream: TextIO) -> Iterator[str]:
    """The lines of a file, none of them endless."""
    while line := stream.readline(MOST_LINE):
        if len(line) == MOST_LINE:
            raise ValueError(f"a line of over {MOST_LINE} characters")
        yield line


def refuse_odd_rows(
    file: Path, table: np.ndarray, shares: np.ndarray, num_classes: int | None
) -> None:
    """Raise `TaskError` for classes (N, 1 + R) and probabilities (N, R) of no classifier."""
    most = MOST_CLASSES if num_classes is None else num_classes
    known = f"a class index below 0 or of {most} and more; expected indices into {CLASSES_FILE}"
    best = np.sort(table[:, 1:], axis=1)
    with np.errstate(invalid="ignore"):
        checks = {
            known: ((table < 0) | (table >= most)).any(axis=1),
            "a class for the second time": (best[:, 1:] == best[:, :-1]).any(axis=1),
            "a probability that is not from 0 to 1": ~((shares >= 0) & (shares <= 1)).all(axis=1),
            "probabilities that are not the largest first": (
                (shares[:, 1:] > shares[:, :-1] + SLACK).any(axis=1)
            ),
            "probabilities of more than 1 together": shares.sum(axis=1) > 1 + SUM_SLACK,
        }
    for what, bad in checks.items():
        if bad.any():
            raise TaskError(f"{file}, row {int(bad.argmax()) + 2}: has {what}")


def write_per_class(
    file: Path, classes: Sequence[str], rows: Iterable[int], targets: np.ndarray, hits: np.ndarray
) -> None:
    """A CSV of one row for each class index in `rows`; no accuracy for a class without images."""
    images, correct = by_class(targets, hits, len(classes))
    with atomic_text(file) as stream:
        writer = csv.writer(stream)
        writer.writerow(["index", "class", "images", "correct", "accuracy"])
        for index in rows:
            total, right = int(images[index]), int(correct[index])
            share = 100 * right / total if total else ""
            writer.writerow([index, harmless(classes[index]), total, right, share])
