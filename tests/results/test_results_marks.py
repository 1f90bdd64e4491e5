"""What is told below a table of a row's data, weights, recipe and cost."""

import pytest
from made_records import OFFICIAL
from table_parts import FOLDER, MINIATURE, column, note

from results import Checkpoint, Cost, Earlier, comparison_table, parse_record, published
from results.cells import device_hours, device_names


def test_what_our_pre_training_did_otherwise_is_told(make_record):
    """A difference to 1600 published epochs must not hide that ours were ten, on other images."""
    recipe = "fb" * 6
    pretrain = {"kind": "pretrain", "protocol": "pretrain/mae@1", "task": "pretrain"}
    before = make_record(
        **pretrain,
        data=FOLDER,
        deviations=["epochs 800 -> 10"],
        complete=False,
        recipe_hash=recipe,
        metrics={"loss": 0.4},
    )
    file = Checkpoint(file="backbone.safetensors", sha256="aa" * 32, recipe_hash=recipe)
    after = make_record(checkpoint=file)
    told = "weights backbone.safetensors, sha256 aaaaaaaaaaaa"
    for records, text in (
        (
            [after, before],
            f"{told}; pre-trained otherwise than pretrain/mae@1: epochs 800 -> 10, data photos"
            " (2000 images), incomplete.",
        ),
        ([after, make_record(**pretrain, recipe_hash=recipe, metrics={"loss": 0.4})], f"{told}."),
        ([after], f"{told}."),
    ):
        table = comparison_table(records, published())[0]
        assert note(table, table.rows[0][1].marks[0]) == text


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
    why = ["test: 2 images: truncated (a.jpg, b.jpg)"]
    runs = [
        make_record(skipped_images=2, unreadable=why),
        make_record(seed=1, environment=environment),
    ]
    (table,) = comparison_table(runs, [])
    assert [note(table, mark) for mark in table.rows[0][2].marks] == [
        "unreadable images: 2 (test: 2 images: truncated (a.jpg, b.jpg)).",
        "the seeds ran under different versions of mae-bench.",
    ]


def test_device_hours_of_a_run_that_went_on_elsewhere(make_record):
    """Half an hour of eight processes, then half an hour of one."""
    record = make_record()
    where = {"earlier": [Earlier(device="A100", processes=8, seconds=1800.0)]}
    there = record.environment.model_copy(update=where)
    moved = record.model_copy(update={"environment": there})
    assert device_hours(record) == 1.0
    assert device_hours(moved) == 0.5 * 8 + 0.5
    assert device_names([record, moved]) == ["1 × cpu", "8 × A100, then 1 × cpu"]
    assert parse_record(moved.to_json()) == moved


def test_what_is_odd_of_data_is_told_unless_they_are_official(make_record):
    own = OFFICIAL.model_copy(update={"name": "mine", "standard": False})
    odd = ["val annotations left out: 3 (1, 2, 3)", "a\nb"]
    for data, told in (
        (own, ["of data mine: val annotations left out: 3 (1, 2, 3); a b."]),
        (OFFICIAL, []),
    ):
        (table,) = comparison_table([make_record(data=data, data_notes=odd)], [])
        texts = [note(table, mark) for mark in table.rows[0][2].marks]
        assert [text for text in texts if text.startswith("of data")] == told


def test_an_unconfirmed_number_is_marked_and_not_subtracted(make_record):
    rows = [row.model_copy(update={"status": "recalled"}) for row in published()]
    (table,) = comparison_table([make_record()], rows)
    paper, difference = table.rows[0][3], table.rows[0][5]
    assert "recalled, not confirmed in the source" in note(table, paper.marks[0])
    assert difference.value is None


def test_costs_on_request(make_record):
    run = make_record()
    where = run.environment.model_copy(update={"processes": 8, "sharded": True})
    run = run.model_copy(update={"environment": where})
    slower = make_record(seed=1, cost=run.cost.model_copy(update={"seconds": 7200.0}))
    (table,) = comparison_table([run, slower], published(), costs=True)
    hours, speed, memory = table.rows[0][-3:]
    assert [column.title for column in table.columns[-3:]] == [
        "device-hours",
        "images/s",
        "peak memory",
    ]
    assert (hours.value, hours.n) == (pytest.approx((1 * 8 + 2 * 1) / 2), 2)
    assert (speed.value, speed.std) == (812.5, 0.0)
    assert (memory.value, table.columns[-1].unit) == (16.0, "GiB")
    assert note(table, hours.marks[0]) == "cost measured on 8 × cpu (sharded) and on 1 × cpu."
    assert [cell.value for cell in table.rows[1][-3:]] == [None] * 3  # a method nobody ran
    assert any(each.text.startswith("cost: means over the runs.") for each in table.notes)
    drawn = make_record(data=MINIATURE)
    (table,) = comparison_table([drawn], published(), costs=True)
    assert [column.title for column in table.columns[3:]] == [
        "fine-tuning device-hours",
        "fine-tuning images/s",
        "fine-tuning peak memory",
    ]
    unknown = make_record(cost=Cost())
    (table,) = comparison_table([unknown], published(), costs=True)
    assert [(cell.value, cell.marks) for cell in table.rows[0][-3:]] == [(None, ())] * 3


def test_intervals_on_request_and_of_single_runs_alone(make_record):
    run = make_record(intervals={"top1": (83.2, 83.8)})
    (table,) = comparison_table([run], published())
    assert column(table, "top1 ours")[0].interval is None
    (table,) = comparison_table([run], published(), intervals=True)
    assert column(table, "top1 ours")[0].interval == (83.2, 83.8)
    assert any(each.text.startswith("[low, high]: 95 %") for each in table.notes)
    seeds = [run, run.model_copy(update={"seed": 1})]
    (table,) = comparison_table(seeds, published(), intervals=True)
    assert column(table, "top1 ours")[0].interval is None
