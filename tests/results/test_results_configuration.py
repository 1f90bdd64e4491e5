"""Runs are averaged only if they differ in their seeds alone."""

import json
from datetime import timedelta

import pytest
from made_records import OFFICIAL, pretrained

from results import (
    Checkpoint,
    Named,
    ResultsError,
    RunScores,
    compare,
    comparison_table,
    configurations,
    parse_record,
)
from results.origins import Pretrainings

OTHER = Named(name="noise", fingerprint="0000111122223333")
"""images"""


def runs(make_record, *files, **changes):
    """One run for each checkpoint, all with the seed 0 and a score of their own."""
    return [
        make_record(name=f"run-{i}", checkpoint=file, metrics={"top1": 80.0 + i}, **changes)
        for i, file in enumerate(files)
    ]


def notes(table):
    return " ".join(note.text for note in table.notes)


def test_other_images_of_pre_training_make_another_row(make_record):
    """Also with one seed and one recipe; the row's note names the images."""
    both = runs(make_record, pretrained(digits="aa"), pretrained(digits="bb", data=OTHER))
    (table,) = comparison_table(both, [])
    assert [(row[2].value, row[2].n) for row in table.rows] == [(80.0, 1), (81.0, 1)]
    told = {note.mark: note.text for note in table.notes}
    assert [told[row[1].marks[0]] for row in table.rows] == [
        "weights backbone.safetensors, sha256 aaaaaaaaaaaa; pre-trained on photos, fingerprint"
        " fedcba987654, seed 0.",
        "weights backbone.safetensors, sha256 bbbbbbbbbbbb; pre-trained on noise, fingerprint"
        " 000011112222, seed 0.",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"data": OTHER},
        {"recipe_hash": "ba9876543210"},
        {"continued_from": Checkpoint(file="mae.pth", sha256="ee" * 32)},
        {"continued_from": pretrained()},
    ],
)
def test_whatever_determines_weights_is_their_identity(make_record, change):
    assert len(configurations(runs(make_record, pretrained(0), pretrained(1)))) == 1
    assert len(configurations(runs(make_record, pretrained(0), pretrained(1, **change)))) == 2


def test_pre_trainings_that_continue_others_differ_in_all_their_seeds(make_record):
    """Seeds of both stages vary: three runs, of which one is the repetition of another."""
    files = [pretrained(a, continued_from=pretrained(b)) for a, b in ((0, 0), (0, 1), (1, 1))]
    (found,) = configurations(runs(make_record, *files, files[1]))
    assert (len(found.records), len(found.repeats)) == (3, 1)
    elsewhere = pretrained(0, continued_from=pretrained(1, data=OTHER))
    assert len(configurations(runs(make_record, *files, elsewhere))) == 2


def test_equal_pre_trainings_in_different_files_are_one_seed(make_record):
    """The bytes of a file differ by its metadata or by the machine; the seed is the same."""
    one, two = runs(make_record, pretrained(digits="aa"), pretrained(digits="bb"))
    two = two.model_copy(update={"finished": one.finished + timedelta(hours=1)})
    (table,) = comparison_table([one, two], [])
    ((_, _, score),) = table.rows
    assert (score.value, score.n, score.std) == (81.0, 1, None)
    assert "equal pre-trainings are one) ran more than once" in notes(table)
    assert "without run-0." in notes(table)


@pytest.mark.parametrize("unknown", ["data", "seed"])
def test_old_records_are_not_averaged_over_pre_trainings(make_record, unknown):
    """Who knows which images those were? The same file is the same weights, though."""
    files = [pretrained(seed).model_copy(update={unknown: None}) for seed in (0, 1)]
    both = [*runs(make_record, *files), make_record(checkpoint=files[0], seed=1)]
    (table,) = comparison_table(both, [])
    assert sorted(row[2].n for row in table.rows) == [1, 2]
    assert "the pre-training data of 1 run is not recorded (run-1)" in notes(table)
    assert "the pre-training data of 2 runs is not recorded" in notes(table)


def test_evaluations_of_models_trained_on_other_images_are_apart(make_record):
    """The test set is the same, and so is the recipe; only the training images differ."""
    one, other = (Named(name="imagenet1k", fingerprint=each * 8) for each in ("ab", "cd"))
    first = make_record(trained_on=one)
    assert len(configurations([first, make_record(trained_on=one, seed=1)])) == 1
    (table,) = comparison_table([first, make_record(trained_on=other, seed=1)], [])
    assert len(table.rows) == 2
    assert "trained on imagenet1k, fingerprint cdcdcdcdcdcd" in notes(table)


def test_two_sets_of_different_pre_training_data_are_not_one_set(make_record):
    mixed = [RunScores(r) for r in runs(make_record, pretrained(0), pretrained(1, data=OTHER))]
    with pytest.raises(ResultsError, match="pre-training"):
        compare(mixed, mixed[:1])


def test_a_pre_training_is_found_by_its_images_not_by_its_recipe_alone(make_record):
    other = OFFICIAL.model_copy(update={"name": "photos", "fingerprint": "fedcba9876543210"})
    before = [
        make_record(name=data.name, kind="pretrain", data=data, checkpoint=None)
        for data in (OFFICIAL, other)
    ]
    found = Pretrainings(before)
    assert found.of(make_record(checkpoint=pretrained())) == before[1]
    assert found.of(make_record(checkpoint=pretrained(data=OTHER))) is None
    untold = make_record(checkpoint=pretrained(data=None))
    assert found.of(untold) in before  # a guess, so that what was done otherwise is told
    assert found.only(untold) is None


def test_old_records_still_parse(make_record):
    record = make_record(checkpoint=pretrained().model_copy(update={"data": None, "seed": None}))
    dump = record.model_dump(mode="json")
    for name in ("data", "seed", "continued_from"):
        del dump["checkpoint"][name]
    del dump["trained_on"]
    assert parse_record(json.dumps(dump)) == record
    assert list(record.checkpoint.to_dict()) == ["file", "sha256", "recipe_hash"]
