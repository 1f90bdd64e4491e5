import json
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from results import ResultsError, parse_record


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
