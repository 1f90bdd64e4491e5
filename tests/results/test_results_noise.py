"""Verdicts on differences: within the noise of seeds, and the best of a column."""

import math

import numpy as np
import pytest
from scipy import stats
from table_parts import MINIATURE, column

from results import comparison_table, configurations, headline, published
from results.cells import within_noise


def test_the_best_of_comparable_runs_is_marked(make_record):
    runs = [
        make_record(metrics={"top1": 83.0}),
        make_record(init="dino", metrics={"top1": 82.0}),
        make_record(init="mine", metrics={"top1": 99.0}, deviations=["epochs 100 -> 200"]),
        make_record(backbone="vit_l", metrics={"top1": 86.0}),
    ]
    (table,) = comparison_table(runs, published())
    best = {row[1].value: row[2].best for row in table.rows if row[0].value == "vit_b"}
    assert best == {
        "mae": True,
        "dino": False,
        "mine": False,
        "MoCo v3": False,
        "BEiT": False,
    }
    # ViT-L has no rival of ours; among published numbers the best of each backbone is marked.
    assert [row[2].best for row in table.rows if row[0].value == "vit_l"] == [False] * 3
    assert [row[1].value for row in table.rows if row[3].best] == ["mae", "mae"]
    assert any(each.text.startswith("bold") for each in table.notes)


def test_the_best_corruption_error_is_the_lowest(make_record):
    shared = {"task": "imagenet_c", "protocol": "imagenet_c/finetune@1"}
    runs = [
        make_record(**shared, metrics={"mce": 50.0}),
        make_record(**shared, metrics={"mce": 40.0}, init="dino"),
    ]
    (table,) = comparison_table(runs, published())
    assert {row[1].value: row[2].best for row in table.rows} == {"mae": False, "dino": True}
    (loss,) = comparison_table(
        [
            make_record(kind="pretrain", protocol="pretrain/mae@1", metrics={"loss": x}, init=i)
            for i, x in (("a", 0.2), ("b", 0.3))
        ],
        [],
    )
    assert [cell.best for cell in column(loss, "loss ours")] == [True, False]


def test_miniature_rivals_share_protocol_and_data(make_record):
    linear = "imagenet1k/linear@1"
    runs = [
        make_record(data=MINIATURE, metrics={"top1": 60.0}),
        make_record(data=MINIATURE, metrics={"top1": 50.0}, init="scratch"),
        make_record(data=MINIATURE, protocol=linear, metrics={"top1": 40.0}, init="scratch"),
        make_record(data=MINIATURE, protocol=linear, metrics={"top1": 45.0}),
    ]
    (table,) = comparison_table(runs, published())
    assert [[cell.best for cell in row[2:]] for row in table.rows] == [
        [True, True],
        [False, False],
    ]


@pytest.mark.parametrize(("paper", "near"), [(83.0, True), (84.0, True), (84.1, False)])
def test_within_noise_of_several_seeds(make_record, paper, near):
    """By scipy: the 95 % prediction interval of one further run, and half a printed digit."""
    scores = [83.4, 83.5, 83.6]
    runs = [make_record(seed=seed, metrics={"top1": v}) for seed, v in enumerate(scores)]
    rows = [
        row.model_copy(update={"value": paper}) if row.method == "MAE" else row
        for row in headline("imagenet1k/finetune@1", "vit_b")
    ]
    half = stats.t.ppf(0.975, 2) * np.std(scores, ddof=1) * math.sqrt(1 + 1 / 3)
    assert (abs(paper - 83.5) <= half + 0.05) == near  # half is 0.497
    (table,) = comparison_table(runs, rows)
    (gap,) = [cell for cell in column(table, "top1 difference") if cell.value is not None]
    assert gap.marks == (("≈",) if near else ())


@pytest.mark.parametrize("interval", [(83.3, 83.7), None])
def test_one_seed_gets_no_verdict(make_record, interval):
    """Its interval over the test images holds the published number, and that says nothing."""
    run = make_record(intervals={"top1": interval} if interval else {})
    (table,) = comparison_table([run], published(), intervals=True)
    (gap, *_) = column(table, "top1 difference")
    assert gap.value == pytest.approx(83.5 - 83.6)
    assert gap.marks == ()
    told = [each.text for each in table.notes]
    assert sum(text.startswith("one seed (n=1): no spread over seeds is known") for text in told)
    assert not any(text.startswith("within noise") for text in told)
    seeds = [run, make_record(seed=1, metrics={"top1": 83.4})]
    (table,) = comparison_table(seeds, published())
    assert not any(each.text.startswith("one seed") for each in table.notes)


def test_verdicts_hold_in_simulation(make_record):
    """1,000 repetitions of a paper's run: with three seeds about 95 % of them are within noise of
    ours, and almost none of a method one point better. With one seed no verdict is given, whereas
    the interval over 50,000 test images would have called every repetition noise."""
    rng = np.random.default_rng(0)
    images, truth, spread = 50_000, 83.5, 0.1
    half = 1.96 * math.sqrt(0.835 * 0.165 / images) * 100
    paper = next(r for r in headline("imagenet1k/finetune@1", "vit_b") if r.method == "MAE")
    same = better = single = by_images = 0
    for _ in range(1000):
        ours, theirs = rng.normal(truth, spread, 3), rng.normal(truth, spread)
        runs = [make_record(seed=s, metrics={"top1": float(v)}) for s, v in enumerate(ours)]
        alone = make_record(
            metrics={"top1": float(ours[0])},
            intervals={"top1": (float(ours[0]) - half, float(ours[0]) + half)},
        )
        row = paper.model_copy(update={"value": float(theirs), "decimals": 4})
        other = row.model_copy(update={"value": row.value + 1})
        (several,), (one,) = configurations(runs), configurations([alone])
        same += within_noise(several, "top1", row)
        better += within_noise(several, "top1", other)
        single += within_noise(one, "top1", row)
        low, high = one.interval("top1")
        by_images += low <= theirs <= high
    assert 930 <= same <= 970
    assert better <= 150
    assert single == 0
    assert by_images >= 950
