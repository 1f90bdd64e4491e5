"""Accuracy from logits: against sklearn, scipy, pandas and brute force."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score
from torch import Tensor

from tasks.classification import scores
from tasks.classification.accuracy import Report, answers, finish
from tasks.classification.scores import rescore
from tasks.errors import TaskError
from tasks.task import Scored

COUNT, NUM_CLASSES = 700, 9
CLASSES = [f"n{i}" for i in range(NUM_CLASSES)]
NAMES = [f"val/{i}.jpg" for i in range(COUNT)]


def drawn(num_classes: int = NUM_CLASSES, count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Logits that are right about half of the time, and targets of unlike frequency."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.arange(1.0, num_classes + 1)
    targets = torch.multinomial(weights, count, replacement=True, generator=generator)
    logits = torch.randn(count, num_classes, generator=generator)
    logits[torch.arange(count), targets] += 1.5
    return logits, targets


def score(
    logits: Tensor, targets: Tensor, report: Report, parts: int = 1, keep: bool = False
) -> Scored:
    """As by so many processes, each with every so-manieth image, in batches of 64."""
    found = []
    for rank in range(parts):
        own = torch.arange(rank, len(logits), parts)
        found += [
            answers(logits[rows], targets[rows], rows, among=report.among, keep_logits=keep)
            for rows in own.split(64)
        ]
    return finish(found, report)


def test_metrics_are_sklearns() -> None:
    logits, targets = drawn()
    predicted = logits.argmax(1)
    expected = {
        "top1": accuracy_score(targets, predicted),
        "top5": top_k_accuracy_score(targets, logits, k=5),
        "per_class": balanced_accuracy_score(targets, predicted),
    }
    found = score(logits, targets, Report(NAMES, CLASSES)).metrics
    assert found == pytest.approx({name: 100 * each for name, each in expected.items()}, abs=1e-12)
    assert 20 < found["top1"] < found["top5"] < 100
    assert abs(found["per_class"] - found["top1"]) > 1


def test_per_class_is_over_classes_with_images() -> None:
    logits, targets = drawn()
    kept = (targets != 2) & (targets != 8)
    found = score(logits[kept], targets[kept], Report(NAMES, CLASSES)).metrics["per_class"]
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = balanced_accuracy_score(targets[kept], logits[kept].argmax(1))
    assert found == pytest.approx(100 * expected, abs=1e-12)


@pytest.mark.parametrize("num_classes", [1, 2, 5, 6])
def test_top5_needs_six_classes(num_classes: int) -> None:
    logits, targets = drawn(num_classes)
    found = score(logits, targets, Report(NAMES, CLASSES))
    names = {"top1", "per_class"} | ({"top5"} if num_classes == 6 else set())
    assert found.metrics.keys() == found.intervals.keys() == names
    assert found.metrics["top1"] == pytest.approx(100 * accuracy_score(targets, logits.argmax(1)))


def test_of_equal_logits_the_lower_index_comes_first() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0, 3.0, 1.0, 1.0]])
    found = answers(logits, torch.tensor([1]), torch.tensor([0]))
    assert found.best.tolist() == [[1, 2, 4, 0, 5]]


def test_all_of_a_few_classes_are_named_where_that_is_asked_for():
    logits, one = torch.tensor([[0.0, 2.0, 1.0]]), torch.tensor([0])
    assert answers(logits, one, one).best.tolist() == [[1, 2]]
    found = answers(logits, one, one, kept=3)
    assert found.best.tolist() == [[1, 2, 0]]
    assert found.probabilities.sum() == pytest.approx(1)


def test_votes_have_their_own_probabilities() -> None:
    votes = torch.tensor([[0.0, 2.0, 6.0]], dtype=torch.float64)
    found = answers(votes, torch.tensor([1]), torch.tensor([0]), probabilities=votes / 8)
    assert found.best.tolist() == [[2, 1]]
    assert found.probabilities.tolist() == [[0.75, 0.25]]


def test_only_some_classes_may_be_answered() -> None:
    """By hand: class 3 is best of all, but not among those asked for; index 6 is."""
    logits = torch.tensor(
        [[2.0, 0.0, 1.0, 9.0, 0.0, 0.0, 3.0], [5.0, 0.0, 1.0, 9.0, 0.0, 0.0, 3.0]]
    )
    found = answers(logits, torch.tensor([6, 2]), torch.tensor([0, 1]), among=[0, 2, 6])
    assert found.best.tolist() == [[6, 0], [0, 6]]
    shares = np.exp([3, 2]) / np.exp([2, 1, 3]).sum()
    np.testing.assert_allclose(found.probabilities[0], shares, rtol=1e-6)
    logits, targets = drawn()
    among = [1, 3, 4, 6, 7, 8]
    kept = torch.isin(targets, torch.tensor(among))
    found = score(logits[kept], targets[kept], Report(NAMES, CLASSES, among)).metrics
    expected = top_k_accuracy_score(targets[kept], logits[kept][:, among], k=5, labels=among)
    assert found["top5"] == pytest.approx(100 * expected)


def test_a_diverged_model_is_refused() -> None:
    with pytest.raises(TaskError, match="not finite"):
        answers(torch.tensor([[0.0, float("nan")]]), torch.tensor([0]), torch.tensor([0]))


@pytest.mark.parametrize("parts", [2, 3])
def test_processes_and_batches_change_nothing(tmp_path: Path, parts: int) -> None:
    logits, targets = drawn()
    folders = [tmp_path / "one", tmp_path / "many"]
    found = []
    for folder, count in zip(folders, (1, parts), strict=True):
        folder.mkdir()
        report = Report(NAMES, CLASSES, folder=folder, save_logits=True)
        found.append(score(logits, targets, report, count, keep=True))
    assert found[0] == found[1]
    names = sorted(file.name for file in folders[0].iterdir())
    assert names == ["classes.txt", "logits.safetensors", "per_class.csv", "predictions.csv"]
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


# The ends of a percentile interval from 2000 resamples scatter by 0.06 standard deviations of the
# resampled figure: sqrt(0.025 * 0.975 / 2000) over the normal density at 1.96. Tolerance: five
# times that for the two of them, and the step of a count.
TOLERANCE = 5 * 0.06 * 2**0.5


def assert_same_interval(found: tuple, expected: np.ndarray, spread: float, step: float) -> None:
    assert found == pytest.approx(tuple(expected), abs=TOLERANCE * spread + step)
    assert found[1] - found[0] == pytest.approx(3.92 * spread, rel=0.15)


@pytest.mark.parametrize("metric", ["top1", "top5"])
def test_intervals_of_shares_are_scipys(metric: str) -> None:
    logits, targets = drawn()
    order = logits.argsort(1, descending=True)[:, : int(metric[-1])]
    hits = (order == targets[:, None]).any(1).double().numpy()
    rng = np.random.default_rng(1)
    theirs = stats.bootstrap((hits,), np.mean, n_resamples=2000, method="percentile", rng=rng)
    found = score(logits, targets, Report(NAMES, CLASSES)).intervals[metric]
    ends = 100 * np.array(theirs.confidence_interval)
    assert_same_interval(found, ends, 100 * theirs.standard_error, 100 / COUNT)


def test_interval_of_per_class_by_brute_force() -> None:
    logits, targets = drawn()
    found = score(logits, targets, Report(NAMES, CLASSES)).intervals["per_class"]
    predicted, truth = logits.argmax(1).numpy(), targets.numpy()
    rng = np.random.default_rng(1)
    figures = []
    for _ in range(2000):
        rows = rng.integers(COUNT, size=COUNT)
        own, hit = truth[rows], predicted[rows] == truth[rows]
        figures.append(100 * np.mean([hit[own == c].mean() for c in np.unique(own)]))
    assert_same_interval(found, np.percentile(figures, [2.5, 97.5]), np.std(figures), 0)


def test_interval_of_a_mean_is_scipys() -> None:
    values = np.random.default_rng(0).beta(2, 1, 400)
    rng = np.random.default_rng(1)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=rng)
    ends = 100 * np.array(theirs.confidence_interval)
    assert_same_interval(scores.mean_interval(values), ends, 100 * theirs.standard_error, 0)


def test_a_class_that_resamples_leave_out() -> None:
    """Of 30 images one is the only one of its class; a third of the resamples lack it."""
    targets = np.array([0] * 29 + [1])
    best = np.array([[0]] * 20 + [[1]] * 9 + [[0]])
    low, high = scores.accuracy(targets, best).intervals["per_class"]
    assert 0 < low < 50 * 20 / 29 < 100 * 20 / 29 < high < 100


def rescored_by_pandas(file: Path) -> dict[str, float]:
    table = pd.read_csv(file)
    right = table.filter(regex=r"^class_").eq(table.target, axis=0)
    by_class = right.class_1.groupby(table.target).mean()
    return {
        "top1": 100 * right.class_1.mean(),
        "top5": 100 * right.any(axis=1).mean(),
        "per_class": 100 * by_class.mean(),
    }


def test_predictions_are_all_that_it_takes(tmp_path: Path) -> None:
    """pandas finds the same metrics in the file; and we, the same to the last bit."""
    logits, targets = drawn()
    found = score(logits, targets, Report(NAMES, CLASSES, folder=tmp_path))
    assert rescored_by_pandas(tmp_path / "predictions.csv") == pytest.approx(found.metrics)
    assert rescore(tmp_path / "predictions.csv") == found
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert list(table.file) == NAMES
    assert list(table.target) == targets.tolist()
    probabilities, classes = logits.softmax(1).topk(5)
    assert (table.filter(regex="class_").to_numpy() == classes.numpy()).all()
    np.testing.assert_allclose(table.filter(regex="prob"), probabilities, rtol=1e-5)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_few_classes_are_rescored_without_top5(tmp_path: Path, num_classes: int) -> None:
    logits, targets = drawn(num_classes)
    found = score(logits, targets, Report(NAMES, CLASSES[:num_classes], folder=tmp_path))
    assert rescore(tmp_path / "predictions.csv") == found


ODD = ['a,b".jpg', "two\nlines.jpg", "back\r.jpg", " spaces .jpg", "\udcff\udc80.jpg", "π 🙂.jpg"]


def test_odd_file_names(tmp_path: Path) -> None:
    logits, targets = drawn(count=len(ODD))
    found = score(logits, targets, Report(ODD, CLASSES, folder=tmp_path))
    expected = [*ODD[:4], r"\udcff\udc80.jpg", ODD[5]]
    assert list(pd.read_csv(tmp_path / "predictions.csv").file) == expected
    assert rescore(tmp_path / "predictions.csv") == found


def test_table_by_class(tmp_path: Path) -> None:
    logits, targets = drawn()
    kept = targets != 2
    report = Report(NAMES, [*CLASSES[:-1], "crane, bird"], folder=tmp_path)
    found = score(logits[kept], targets[kept], report)
    table = pd.read_csv(tmp_path / "per_class.csv")
    assert list(table["index"]) == list(range(NUM_CLASSES))
    assert list(table["class"]) == report.classes
    assert list(table.images) == targets[kept].bincount(minlength=NUM_CLASSES).tolist()
    hits = targets[kept][logits[kept].argmax(1) == targets[kept]]
    assert list(table.correct) == hits.bincount(minlength=NUM_CLASSES).tolist()
    assert np.isnan(table.accuracy[2])
    assert table.accuracy.mean() == pytest.approx(found.metrics["per_class"])
    among = [1, 3, 5]
    own = torch.isin(targets, torch.tensor(among))
    score(logits[own], targets[own], Report(NAMES, CLASSES, among, tmp_path))
    assert list(pd.read_csv(tmp_path / "per_class.csv")["index"]) == among


def test_logits_are_kept_if_asked(tmp_path: Path) -> None:
    logits, targets = drawn()
    report = Report(NAMES, CLASSES, folder=tmp_path)
    score(logits, targets, report)
    assert not (tmp_path / "logits.safetensors").exists()
    score(logits, targets, report, parts=3, keep=True)
    kept = load_file(tmp_path / "logits.safetensors")
    assert torch.equal(kept["logits"], logits)
    assert torch.equal(kept["targets"], targets)
    assert (kept["logits"].dtype, kept["targets"].dtype) == (torch.float32, torch.int64)


def test_a_table_is_whole_or_not_there(tmp_path: Path) -> None:
    def names():
        yield "a.jpg"
        raise OSError(28, "No space left on device")

    column = np.zeros((2, 1), dtype=int)
    with pytest.raises(OSError, match="No space left") as error:
        scores.write_predictions(tmp_path / "p.csv", names(), column[:, 0], column, column)
    assert error.value.filename == str(tmp_path / "p.csv")
    assert list(tmp_path.iterdir()) == []


def ranked(*classes: int, shares: Sequence[float] = (0.5, 0.2, 0.1, 0.1, 0.05)) -> list[str]:
    """A row of five classes."""
    pairs = zip(classes, shares, strict=True)
    return ["b.jpg", "0", *(str(cell) for pair in pairs for cell in pair)]


FIVE = [scores.header(5), ["a.jpg", *ranked(0, 1, 2, 3, 4)[1:]]]
GOOD = [["file", "target", "class_1", "probability_1"], ["a.jpg", "0", "1", "0.5"]]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "no predictions of ours; expected columns"),
        ([["name", "target", "class_1", "probability_1"]], "no predictions of ours"),
        ([["file", "target"]], "no predictions of ours"),
        (GOOD[:1], "has no images; expected a row for each"),
        ([*GOOD, ["b.jpg", "0", "1"]], "row 3: 3 cells for 4 columns; expected the table"),
        ([*GOOD, ["b.jpg", "cat", "1", "1"]], "row 3: invalid literal for int"),
        ([*GOOD, ["b.jpg", "-1", "1", "1"]], "row 3: has a class index below 0"),
        ([*GOOD, ["b.jpg", "0", "9", "1"]], "row 3: has a class index below 0 or of 9 and more"),
        ([*GOOD, ["b.jpg", "9" * 30, "1", "1"]], "row 3: "),
        ([*GOOD, ["b.jpg", "9" * 9000, "1", "1"]], "row 3: "),
        ([*GOOD, GOOD[1]], "row 3: an image for the second time"),
        ([*GOOD, ["b.jpg", "0", "1", "nan"]], "row 3: has a probability that is not from 0 to 1"),
        ([*GOOD, ["b.jpg", "0", "1", "inf"]], "row 3: has a probability that is not from 0 to 1"),
        ([*GOOD, ["b.jpg", "0", "1", "-0.1"]], "row 3: has a probability that is not from 0 to 1"),
        ([*GOOD, ["b.jpg", "0", "1", ""]], "row 3: could not convert string to float"),
        ([*FIVE, ["b.jpg", "0"] + ["0", "0.1"] * 5], "row 3: has a class for the second time"),
        ([*FIVE, ranked(1, 2, 3, 4, 0, shares=(0.1, 0.2, 0.1, 0.1, 0.1))], "largest first"),
        ([*FIVE, ranked(1, 2, 3, 4, 0, shares=(0.9, 0.9, 0.1, 0.1, 0.1))], "of more than 1"),
        ([scores.header(6)], "no predictions of ours; expected columns .* of 5 classes at most"),
        ([["a" * 200_000]], "a line of over 65536 characters"),
    ],
)
def test_no_table_of_ours(tmp_path: Path, rows: list, told: str) -> None:
    file = tmp_path / "predictions.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    with pytest.raises(TaskError, match=told) as error:
        rescore(file, NUM_CLASSES)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_a_class_counts_once_among_the_best_five(tmp_path: Path) -> None:
    """One image in five has its class among the best: 20 %, not five hits of five in one row."""
    rows = [[f"{i}.jpg", *ranked(1, 2, 3, 4, 5)[1:]] for i in range(4)]
    file = tmp_path / "predictions.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([scores.header(5), *rows, ranked(5, 4, 3, 2, 0)])
    assert rescore(file, NUM_CLASSES).metrics["top5"] == 20
    with file.open("a", newline="") as stream:
        csv.writer(stream).writerow(["c.jpg", "0"] + ["0", "0.2"] * 5)
    with pytest.raises(TaskError, match="row 7: has a class for the second time"):
        rescore(file, NUM_CLASSES)


def test_no_table_at_all(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(TaskError, match=f"{name}: is a .*, not a regular file; expected a run"):
            rescore(tmp_path / name)
    with pytest.raises(TaskError, match="No such file or directory; expected a run's predictions"):
        rescore(tmp_path / "predictions.csv")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaskError, match="binary, row 2: 'utf-8' codec can't decode"):
        rescore(tmp_path / "binary")
