import math
from datetime import timedelta

import pytest

from results import Checkpoint, Data, comparison_table, configurations, published

MINIATURE = Data(
    name="miniature",
    fingerprint="aa" * 8,
    train_images=2000,
    val_images=500,
    classes=8,
    miniature=True,
    standard=False,
)
FOLDER = MINIATURE.model_copy(update={"name": "photos", "miniature": False})


def note(table, mark: str) -> str:
    (text,) = [note.text for note in table.notes if note.mark == mark]
    return text


def column(table, key: str) -> list:
    index = [column.key for column in table.columns].index(key)
    return [row[index] for row in table.rows]


def test_seeds_are_averaged_with_the_sample_deviation(make_record):
    scores = {0: 83.0, 1: 83.5, 2: 84.3}
    runs = [make_record(seed=seed, metrics={"top1": top1}) for seed, top1 in scores.items()]
    (found,) = configurations(runs)
    cell = found.cell("top1", 2)
    # By hand: mean 250.8 / 3; squares of -0.6, -0.1 and 0.7 sum to 0.86, over n - 1 = 2.
    assert cell.value == pytest.approx(83.6, abs=1e-12)
    assert cell.std == pytest.approx(math.sqrt(0.43), abs=1e-12)
    assert cell.n == 3
    single = configurations(runs[:1])[0].cell("top1", 2)
    assert (single.value, single.std, single.n) == (83.0, None, 1)
    assert found.cell("top5", 2).value is None


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "imagenet1k/finetune@2"},
        {"backbone": "vit_l"},
        {"init": "beit"},
        {"checkpoint": None},
        {"recipe_hash": "ffffffffffff"},
        {"data": FOLDER},
        {"deviations": ["limited to 64 images"]},
        {"complete": False},
    ],
)
def test_anything_but_the_seed_makes_another_configuration(make_record, change):
    assert len(configurations([make_record(), make_record(seed=1)])) == 1
    assert len(configurations([make_record(), make_record(seed=1, **change)])) == 2


def test_a_repeated_seed_counts_once(make_record):
    first = make_record(metrics={"top1": 80.0})
    again = make_record(metrics={"top1": 81.0}, finished=first.finished + timedelta(hours=1))
    (found,) = configurations([again, first])
    assert (found.records, found.repeats) == ((again,), 1)
    (table,) = comparison_table([again, first], [])
    (cell,) = column(table, "top1 ours")
    assert (cell.value, cell.n) == (81.0, 1)
    assert note(table, cell.marks[0]) == "a seed ran more than once; its latest run counts."


def test_comparable_runs_get_a_difference_to_the_paper(make_record):
    (table,) = comparison_table([make_record(metrics={"top1": 83.44, "top5": 96.0})], published())
    assert table.title == "ImageNet-1k: fine-tuning (protocol imagenet1k/finetune@1)"
    kinds = [(column.kind, column.source) for column in table.columns]
    assert kinds == [
        ("label", ""),
        ("label", ""),
        ("measured", ""),
        ("published", "MAE paper"),
        ("published", "mae repo"),
        ("difference", "MAE paper"),
    ]
    ours, paper, repo, difference = table.rows[0][2:]
    assert (ours.value, paper.value, repo.value) == (83.44, 83.6, 83.664)
    assert difference.value == pytest.approx(-0.16, abs=1e-12)
    assert difference.decimals == 1  # no finer than the paper prints
    # The methods of Table 3 that nobody ran here follow, without a measured number.
    assert [row[1].value for row in table.rows[1:]] == ["DINO", "MoCo v3", "BEiT"]
    assert [cell.value for cell in column(table, "top1 ours")[1:]] == [None] * 3


def test_another_methods_recipe_gets_no_difference(make_record):
    (table,) = comparison_table([make_record(init="moco_v3")], published())
    paper, difference = table.rows[0][3], table.rows[0][5]
    assert (paper.value, difference.value) == (83.2, None)
    assert "scored with a recipe that may differ" in note(table, paper.marks[0])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"deviations": ["epochs 100 -> 1", "limited to 64 images"]},
            "not comparable: epochs 100 -> 1; limited to 64 images.",
        ),
        ({"complete": False}, "not comparable: the run is incomplete."),
        (
            {"data": FOLDER},
            "not comparable: data photos (2000 training and 500 validation images)"
            " is not the official set.",
        ),
    ],
)
def test_other_runs_are_marked_and_say_why(make_record, change, reason):
    (table,) = comparison_table([make_record(**change)], published())
    ours, paper, difference = (table.rows[0][index] for index in (2, 3, 5))
    assert note(table, ours.marks[0]) == reason
    assert paper.value == 83.6
    assert difference.value is None


def test_unlike_protocols_and_miniature_runs_get_tables_of_their_own(make_record):
    runs = [
        make_record(),
        make_record(protocol="imagenet1k/linear@1", metrics={"top1": 68.0}),
        make_record(data=MINIATURE, deviations=["epochs 100 -> 2"], metrics={"top1": 30.0}),
        make_record(kind="pretrain", protocol="pretrain/mae@1", metrics={"loss": 0.25}),
    ]
    tables = comparison_table(runs, published())
    assert [table.title for table in tables] == [
        "ImageNet-1k: fine-tuning (protocol imagenet1k/finetune@1)",
        "ImageNet-1k: linear probing (protocol imagenet1k/linear@1)",
        "Masked autoencoder pre-training (protocol pretrain/mae@1)",
        "Miniature world: ImageNet-1k",
    ]
    miniature = tables[-1]
    assert [column.kind for column in miniature.columns] == ["label", "label", "measured"]
    assert [row[2].value for row in miniature.rows] == [30.0]
    assert column(tables[2], "loss ours")[0].value == 0.25
    assert comparison_table([], published()) == []


def test_miniature_table_has_weights_down_and_protocols_across(make_record):
    linear, scratch = "imagenet1k/linear@1", "imagenet1k/scratch@1"
    untrained = {"init": "scratch", "checkpoint": None, "protocol": scratch, "data": MINIATURE}
    runs = [
        make_record(data=MINIATURE, metrics={"top1": 60.0}),
        make_record(data=MINIATURE, protocol=linear, metrics={"top1": 40.0}, recipe_hash="f" * 12),
        make_record(**untrained, metrics={"top1": 50.0}),
        make_record(**untrained, metrics={"top1": 52.0}, deviations=["epochs 1 -> 9"]),
    ]
    (table,) = comparison_table(runs, published())
    assert [column.title for column in table.columns[2:]] == [
        "fine-tuning top-1",
        "linear probing top-1",
        "training from scratch top-1",
    ]
    cells = [[cell.value for cell in row] for row in table.rows]
    assert [row[1:] for row in cells] == [
        ["mae", 60.0, 40.0, None],
        ["scratch", None, None, 50.0],
        ["scratch", None, None, 52.0],
    ]
    assert len(table.rows[0][1].marks) == 1  # the weights; each protocol has a recipe of its own
    assert note(table, table.rows[2][4].marks[0]) == "differs from the protocol: epochs 1 -> 9."
    assert any(each.text.startswith("Small images drawn") for each in table.notes)


def test_seeds_may_start_at_pre_training(make_record):
    """Checkpoints of one recipe of ours are repetitions; strangers' files are not."""
    ours = [
        Checkpoint(file="backbone.safetensors", sha256=each * 32, recipe_hash="0123456789ab")
        for each in ("aa", "bb")
    ]
    runs = [
        make_record(checkpoint=each, seed=seed, metrics={"top1": 80.0 + seed})
        for seed, each in enumerate(ours)
    ]
    (table,) = comparison_table(runs, [])
    ((_, label, score),) = table.rows
    assert (score.value, score.n) == (80.5, 2)
    assert score.std == pytest.approx(0.5**0.5, rel=1e-12)
    assert "2 weights, pre-trained with a seed each by recipe 0123456789ab" in note(
        table, label.marks[0]
    )
    apart = [
        record.model_copy(
            update={"checkpoint": record.checkpoint.model_copy(update={"recipe_hash": None})}
        )
        for record in runs
    ]
    (table,) = comparison_table(apart, [])
    assert [row[2].n for row in table.rows] == [1, 1]


def test_rows_that_look_alike_are_told_apart(make_record):
    runs = [make_record(), make_record(recipe_hash="ffffffffffff")]
    (table,) = comparison_table(runs, [])
    texts = [note(table, row[1].marks[0]) for row in table.rows]
    weights = f"weights mae_vit_base.pth, sha256 {'ab' * 6}"
    assert texts == [f"{weights}; recipe 0123456789ab.", f"{weights}; recipe ffffffffffff."]


def test_rows_of_different_data_name_it(make_record):
    again = MINIATURE.model_copy(update={"fingerprint": "bb" * 8})
    runs = [
        make_record(data=MINIATURE, checkpoint=None),
        make_record(data=again, checkpoint=None, deviations=["limited to 64 images"]),
    ]
    (table,) = comparison_table(runs, [])
    assert [note(table, row[1].marks[0]) for row in table.rows] == [
        "data miniature, fingerprint aaaaaaaaaaaa.",
        "data miniature, fingerprint bbbbbbbbbbbb.",
    ]


def test_skipped_images_and_mixed_versions_are_told(make_record):
    environment = make_record().environment.model_copy(update={"commit": "abc"})
    runs = [make_record(skipped_images=2), make_record(seed=1, environment=environment)]
    (table,) = comparison_table(runs, [])
    assert [note(table, mark) for mark in table.rows[0][2].marks] == [
        "unreadable images left out: 2.",
        "the seeds ran under different versions of mae-bench.",
    ]


def test_an_unconfirmed_number_is_marked_and_not_subtracted(make_record):
    rows = [row.model_copy(update={"status": "recalled"}) for row in published()]
    (table,) = comparison_table([make_record()], rows)
    paper, difference = table.rows[0][3], table.rows[0][5]
    assert "recalled, not confirmed in the source" in note(table, paper.marks[0])
    assert difference.value is None
