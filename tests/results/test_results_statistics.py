import math
import random

import numpy as np
import pytest
from scipy import stats

from results import Checkpoint, ResultsError, RunScores, compare, read_run_scores, write_record
from results.predictions import read_hits
from results.statistics import mcnemar, paired_interval, welch
from tasks.classification import scores

MOCO = Checkpoint(file="moco.pth", sha256="cd" * 32)


def test_welch_is_rs():
    """R's own example, t.test(extra ~ group, data = sleep): the numbers of its manual."""
    one = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    two = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    interval, p = welch(one, two)
    assert interval == pytest.approx((-3.3654832, 0.2054832), abs=1e-7)
    assert p == pytest.approx(0.07939, abs=1e-5)
    assert welch([1.0], [1.0, 2.0]) is None
    assert welch([1.0, 1.0], [2.0, 2.0]) is None  # no spread, no test
    assert welch([1.0, 1.0], [2.0, 2.5]) is not None


@pytest.mark.parametrize(("a", "b"), [(0, 1), (1, 9), (25, 10), (10, 10), (900, 1000)])
def test_mcnemar_is_the_exact_binomial_test(a, b):
    """In whole numbers: both tails of a fair coin."""
    tail = sum(math.comb(a + b, k) for k in range(min(a, b) + 1))
    assert mcnemar(a, b) == pytest.approx(min(1.0, 2 * tail / 2 ** (a + b)), rel=1e-9)
    assert mcnemar(0, 0) == 1.0


def test_paired_bootstrap_is_scipys():
    """Percentiles of 10,000 resamples: within three standard errors of the two, about 0.04."""
    generator = np.random.default_rng(1)
    gaps = generator.choice([-100.0, 0.0, 50.0, 100.0], size=1000, p=[0.1, 0.7, 0.05, 0.15])
    theirs = stats.bootstrap(
        (gaps,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    ours = paired_interval(gaps.tolist())
    error = gaps.std(ddof=1) / math.sqrt(len(gaps))
    assert ours == pytest.approx(tuple(theirs), abs=0.1 * error)
    assert ours == pytest.approx((gaps.mean() - 1.96 * error, gaps.mean() + 1.96 * error), abs=0.2)
    assert paired_interval(gaps.tolist()) == ours
    assert paired_interval([2.0, 2.0]) == (2.0, 2.0)


def row(table, test: str) -> dict[str, object]:
    (found,) = [row for row in table.rows if row[1].value == test]
    return {column.key: cell for column, cell in zip(table.columns, found, strict=True)}


@pytest.fixture
def run(make_record):
    """A run with a number of right answers out of 1000, of them some in a fixed place."""

    def make(right: int, seed: int = 0, *, images=1000, hits=True, **changes) -> RunScores:
        order = list(range(images))
        random.Random(right + seed).shuffle(order)
        found = {f"{index}.jpg": place < right for place, index in enumerate(order)}
        record = make_record(seed=seed, metrics={"top1": 100 * right / images}, **changes)
        return RunScores(record, found if hits else None)

    return make


def test_sets_of_seeds_are_compared_by_welch(run):
    a = [run(right, seed, hits=False) for seed, right in enumerate((800, 805, 813))]
    b = [
        run(right, seed, hits=False, init="moco_v3", checkpoint=MOCO)
        for seed, right in enumerate((790, 796))
    ]
    table = compare(a, b, ("mae", "moco"))
    expected = stats.ttest_ind([80.0, 80.5, 81.3], [79.0, 79.6], equal_var=False)
    cells = row(table, "over seeds")
    assert (cells["a"].value, cells["a"].n) == (pytest.approx(80.6), 3)
    assert cells["difference"].value == pytest.approx(80.6 - 79.3)
    assert cells["difference"].interval == pytest.approx(tuple(expected.confidence_interval()))
    assert cells["p"].value == f"{expected.pvalue:.2g}"
    assert cells["verdict"].value == "within noise"
    assert [column.title for column in table.columns[2:5]] == ["mae", "moco", "mae − moco"]
    assert table.notes[0].text == (
        "mae / moco differ in: weights mae (mae_vit_base.pth) / moco_v3 (moco.pth); checkpoint "
        "abababababab / cdcdcdcdcdcd."
    )


def test_single_runs_are_paired_over_images(run):
    a, b = run(800), run(750, seed=1)
    table = compare([a], [b])
    cells = row(table, "over images, paired")
    only_a = sum(a.hits[image] and not b.hits[image] for image in a.hits)
    only_b = sum(b.hits[image] and not a.hits[image] for image in a.hits)
    assert only_a - only_b == 50
    assert cells["difference"].value == pytest.approx(5.0)
    p = stats.binomtest(only_a, only_a + only_b).pvalue
    assert cells["p"].value == f"{p:.2g}"
    error = 100 * math.sqrt((only_a + only_b - 50**2 / 1000) / 1000**2)
    low, high = cells["difference"].interval
    # Shares of 1000 images come in tenths.
    assert (low, high) == pytest.approx((5 - 1.96 * error, 5 + 1.96 * error), abs=0.2)
    assert cells["verdict"].value == ("A better" if low > 0 else "within noise")
    assert row(compare([b], [a]), "over images, paired")["difference"].value == pytest.approx(-5)


def test_several_runs_share_their_images(run):
    a = [run(800, seed) for seed in range(2)]
    b = [run(700, seed, init="dino") for seed in range(3)]
    table = compare(a, b)
    cells = row(table, "over images, paired")
    assert cells["difference"].value == pytest.approx(10.0)
    assert cells["p"].value is None  # McNemar's test is of two runs
    assert cells["verdict"].value == "A better"
    gaps = [
        100 * (np.mean([r.hits[i] for r in a]) - np.mean([r.hits[i] for r in b])) for i in a[0].hits
    ]
    error = np.std(gaps, ddof=1) / math.sqrt(1000)
    assert cells["difference"].interval == pytest.approx(
        (10 - 1.96 * error, 10 + 1.96 * error), abs=0.2
    )


def test_unlike_images_are_not_paired(run):
    table = compare([run(80, images=100)], [run(800)])
    assert [cells[1].value for cells in table.rows] == ["none"]
    assert any(note.text.startswith("no test:") for note in table.notes)


def test_bootstrap_intervals_of_single_runs(run):
    a = run(800, hits=False, intervals={"top1": (77.5, 82.5)})
    b = run(700, hits=False, intervals={"top1": (67.2, 72.8)})
    cells = row(compare([a], [b]), "over images, unpaired")
    half = math.hypot(2.5, 2.8)
    assert cells["difference"].interval == pytest.approx((10 - half, 10 + half))
    p = 2 * stats.norm.sf(10 / (half / stats.norm.ppf(0.975)))
    assert cells["p"].value == ("< 0.0001" if p < 1e-4 else f"{p:.2g}")


def test_lower_errors_are_better(make_record):
    shared = {"task": "imagenet_c", "protocol": "imagenet_c/finetune@1"}
    a, b = (
        [RunScores(make_record(**shared, seed=s, metrics={"mce": v + s / 10})) for s in range(3)]
        for v in (40.0, 50.0)
    )
    assert row(compare(a, b), "over seeds")["verdict"].value == "A better"
    assert row(compare(b, a), "over seeds")["verdict"].value == "B better"


def test_what_cannot_be_compared_is_refused(make_record, run):
    coco = RunScores(make_record(task="coco", metrics={"ap_box": 1.0}))
    with pytest.raises(ResultsError, match="A has no runs"):
        compare([], [run(800)])
    with pytest.raises(ResultsError, match="B has runs that differ in more than their seed"):
        compare([run(800)], [run(800), run(800, init="dino")])
    with pytest.raises(ResultsError, match="A is of task imagenet1k and B of coco"):
        compare([run(800)], [coco])
    with pytest.raises(ResultsError, match="A and B have no score in common"):
        compare([run(800)], [RunScores(make_record(metrics={"other": 1.0}))])


def test_predictions_are_read_as_they_are_written(make_record, tmp_path):
    """What the classification task writes, and what it re-scores from it."""
    targets = np.array([0, 1, 2, 3])
    best = np.array([[0, 1], [2, 1], [2, 0], [1, 3]])
    names = ["a,b.jpg", 'quo"te.jpg', "new\nline.jpg", "odd\udcff.jpg"]
    write_record(tmp_path / "run", make_record())
    file = tmp_path / "run" / "predictions.csv"
    scores.write_predictions(file, names, targets, best, np.full((4, 2), 0.5))
    hits = read_hits(file)
    assert list(hits.values()) == [True, False, True, False]
    assert list(hits) == [*names[:3], "odd\\udcff.jpg"]  # undecodable bytes are written escaped
    assert 100 * sum(hits.values()) / len(hits) == scores.rescore(file).metrics["top1"]
    write_record(tmp_path / "other", make_record(seed=1))
    found = {run.record.seed: run.hits for run in read_run_scores(tmp_path)}
    assert found == {0: hits, 1: None}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "columns are not file, target, class_1"),
        ("file,target\na,1\n", "columns are not file, target, class_1"),
        ("file,target,class_1\n", "has no images"),
        ("file,target,class_1\na,1\n", "row 1: 2 cells for 3 columns"),
        ("file,target,class_1\na,1,1\nb,x,1\n", "row 2: invalid literal"),
        ("file,target,class_1\na,1,1\na,1,1\n", "row 2: an image for the second time"),
        ('file,target,class_1\n"a,1,1\n', "row 1: unexpected end of data"),
        ("file,target,class_1\n" + "a" * 100_000, "row 1: a line of over 65536 characters"),
        ("file,target,class_1\na," + "9" * 5000 + ",1", "row 1: Exceeds the limit"),
        ("\0", "columns are not file"),
    ],
)
def test_broken_predictions_are_named(tmp_path, content, reason):
    file = tmp_path / "predictions.csv"
    file.write_text(content)
    with pytest.raises(ResultsError, match=reason) as error:
        read_hits(file)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_sizes_of_predictions_are_bounded(tmp_path, monkeypatch):
    file = tmp_path / "predictions.csv"
    file.write_text("file,target,class_1\na,1,1\nb,1,1\n")
    monkeypatch.setattr("results.predictions.MAX_ROWS", 1)
    with pytest.raises(ResultsError, match="row 2: more than 1 images"):
        read_hits(file)
    monkeypatch.setattr("results.predictions.MAX_BYTES", 10)
    with pytest.raises(ResultsError, match="over 10 bytes"):
        read_hits(file)
    with pytest.raises(ResultsError, match=r"nowhere.csv: cannot be opened: No such file"):
        read_hits(tmp_path / "nowhere.csv")


def test_folders_without_runs_and_with_broken_records_are_named(tmp_path):
    with pytest.raises(ResultsError, match="no finished run"):
        read_run_scores(tmp_path)
    (tmp_path / "record.json").write_text("{}")
    with pytest.raises(ResultsError, match=r"record.json: .*Field required"):
        read_run_scores(tmp_path)
