import json
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from results import Changed, ResultsError, parse_record


def edited(record, **changes) -> str:
    """The record's file with some keys replaced ("REMOVED" takes one out)."""
    content = json.loads(record.to_json())
    content.update(changes)
    return json.dumps({key: value for key, value in content.items() if value != "REMOVED"})


def test_round_trip(make_record):
    record = make_record(deviations=["epochs 100 -> 1"], metrics={"top1": 0.1 + 0.2})
    text = record.to_json()
    assert parse_record(text) == record
    content = json.loads(text)
    assert content["schema_version"] == 1
    assert content["recipe"]["betas"] == [0.9, 0.999]
    assert content["started"] == "2026-01-01T00:00:00Z"
    assert content["metrics"]["top1"] == 0.30000000000000004  # to the bit


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "EOF"),
        ("{", "EOF"),
        ("[]", "object"),
        ("null", "object"),
        ('{"a": 1}', "Field required"),
        ("\x00\x01", "Invalid JSON"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_foreign_text_is_refused_in_one_line(text, reason):
    with pytest.raises(ResultsError, match=reason) as error:
        parse_record(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema_version": 2, "new_field": 1}, "schema_version is 2; this mae-bench reads 1"),
        ({"schema_version": "REMOVED"}, "schema_version is missing"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"seed": "REMOVED"}, "seed: Field required"),
        ({"seed": "0"}, "seed: .*valid integer"),
        ({"seed": -1}, "seed: .*greater than or equal to 0"),
        ({"complete": 1}, "complete: .*valid boolean"),
        ({"metrics": {"top1": "83.5"}}, "metrics.top1: .*valid number"),
        ({"metrics": {"top1": math.nan}}, "metrics.top1: .*finite"),
        ({"metrics": {"top1": math.inf}}, "metrics.top1: .*finite"),
        ({"recipe": {"lr": {"head": [math.nan]}}}, "recipe: .*finite"),
        ({"intervals": {"top1": [84.0, 83.0]}}, "expected intervals of metrics, the lower"),
        ({"intervals": {"miou": [1.0, 2.0]}}, "expected intervals of metrics, the lower"),
        ({"intervals": {"top1": [83.0]}}, "intervals.top1"),
        ({"protocol": "imagenet1k/finetune"}, "protocol: .*pattern"),
        ({"protocol": "imagenet1k/finetune@0"}, "protocol: .*pattern"),
        ({"kind": "evaluate"}, "kind: .*transfer"),
        ({"finished": "2025-12-31T00:00:00Z"}, "finished lies before started"),
        ({"started": "2026-01-01T00:00:00"}, "started: .*timezone"),
        ({"started": "2026-01-01T00:00:00+02:00"}, "started: .*UTC"),
        ({"checkpoint": {"file": "a.pth", "sha256": "abc"}}, "checkpoint.sha256: .*pattern"),
    ],
)
def test_edited_record_is_refused(make_record, changes, reason):
    with pytest.raises(ResultsError, match=reason) as error:
        parse_record(edited(make_record(), **changes))
    assert "\n" not in str(error.value)


def test_number_too_large_for_a_float_is_refused(make_record):
    text = make_record().to_json().replace("83.5", "1e999")
    with pytest.raises(ResultsError, match=r"metrics.top1: .*finite"):
        parse_record(text)


def test_record_is_frozen_and_checked_when_made(make_record):
    with pytest.raises(ValidationError, match="frozen"):
        make_record().seed = 1
    with pytest.raises(ValidationError, match="finite"):
        make_record(metrics={"top1": math.nan})
    with pytest.raises(ValidationError, match="UTC"):
        make_record(started=datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2))))
    assert make_record(started=datetime(2025, 1, 1, tzinfo=UTC)).started.year == 2025


def test_intervals_survive_the_file(make_record):
    record = make_record(intervals={"top1": (83.0, 84.0)})
    assert parse_record(record.to_json()) == record
    text = make_record().to_json().replace('"intervals": {},', "")  # of before there were any
    assert "intervals" not in text
    assert parse_record(text) == make_record()


def test_comparable_needs_all_four(make_record):
    record = make_record()
    assert record.comparable
    assert not make_record(complete=False).comparable
    assert not make_record(deviations=["epochs 100 -> 1"]).comparable
    own = record.data.model_copy(update={"standard": False})
    assert not make_record(data=own).comparable
    with pytest.raises(ValidationError, match="miniature data is never"):
        type(record.data).model_validate({**record.data.model_dump(), "miniature": True})


def test_results_import_no_torch():
    code = "import sys, results; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_changed_fields_are_data_beside_their_words(make_record):
    changed = [
        Changed(field="epochs", value=1, standard=100),
        Changed(field="neighbours", value=(5, 20), standard=(10, 20)),
    ]
    words = [*map(str, changed), "limited to 64 images"]
    record = make_record(deviations=words, changed=changed)
    assert words[:2] == ["epochs 100 -> 1", "neighbours (10, 20) -> (5, 20)"]
    assert record.other_deviations == ["limited to 64 images"]
    assert parse_record(record.to_json()) == record


def test_older_records_tell_their_changes_as_text_alone(make_record):
    """Typed as versions before wrote them; what is no change of a field stays words alone."""
    words = [
        "epochs 100 -> 1",
        "base_lr 0.00015 -> 1e-05",
        "betas (0.9, 0.95) -> (0.9, 0.99)",
        "clip_grad None -> 1.0",
        "mask random -> block",
        "limited to 64 images",
        "the map a.b -> c of one's own",
        "epochs [1] -> __import__('os')",
    ]
    written = json.loads(make_record(deviations=words).to_json())
    del written["changed"]
    record = parse_record(json.dumps(written))
    assert [(c.field, c.value, c.standard) for c in record.changed] == [
        ("epochs", 1, 100),
        ("base_lr", 1e-05, 0.00015),
        ("betas", [0.9, 0.99], [0.9, 0.95]),
        ("clip_grad", 1.0, None),
        ("mask", "block", "random"),
        ("epochs", "__import__('os')", "[1]"),
    ]
    assert record.other_deviations == words[5:7]
