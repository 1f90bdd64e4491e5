import os
from datetime import timedelta
from pathlib import Path

import pytest

from results import ResultsError, read_records, store, write_record


def test_written_records_are_read_back_in_order_of_finish_then_name(make_record, tmp_path):
    first = make_record(name="late", metrics={"top1": 1.0})
    later = first.finished + timedelta(seconds=1)
    runs = [
        make_record(name="b", finished=later),
        make_record(name="a", finished=later),
        first,
    ]
    for folder, record in zip(("x", "study/y", "z"), runs, strict=True):
        assert write_record(tmp_path / folder, record) == tmp_path / folder / "record.json"
    records, skipped = read_records(tmp_path)
    assert records == [runs[2], runs[1], runs[0]]
    assert skipped == []


def test_bad_files_are_reported_and_never_fatal(make_record, tmp_path):
    path = write_record(tmp_path / "good", make_record())
    whole = path.read_bytes()
    bad = {
        "truncated": (whole[: len(whole) // 2], "EOF"),
        "foreign": (b'{"accuracy": 0.9}', "Field required"),
        "not_text": (b"\xff\xfe\x00", "Invalid JSON"),
        "huge": (whole + b" " * store.MAX_BYTES, "larger than 4 MB"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_bytes(content)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "record.json")  # opening it would wait for ever

    records, skipped = read_records(tmp_path)
    assert records == [make_record()]
    reasons = {item.path.parent.name: item.reason for item in skipped}
    assert set(reasons) == {*bad, "pipe"}
    for name, (_, reason) in bad.items():
        assert reason in reasons[name]
        assert "\n" not in reasons[name]
    assert reasons["pipe"] == "not a regular file"


def test_search_depth_is_bounded_and_links_are_not_followed(make_record, tmp_path):
    deepest = Path(*"123456")
    write_record(tmp_path / deepest, make_record(name="reached"))
    write_record(tmp_path / deepest / "7", make_record(name="too deep"))
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    records, _ = read_records(tmp_path)
    assert [record.name for record in records] == ["reached"]


def test_missing_root_says_what_to_do(tmp_path):
    with pytest.raises(ResultsError, match="nowhere: no such folder of runs; name the folder"):
        read_records(tmp_path / "nowhere")


def test_failed_write_leaves_the_old_record_and_no_litter(make_record, tmp_path, monkeypatch):
    path = write_record(tmp_path, make_record(name="old"))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_record(tmp_path, make_record(name="new"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]
    assert store.parse_record(path.read_text()).name == "old"


def test_record_spoilt_after_it_was_made_is_not_written(make_record, tmp_path):
    record = make_record()
    record.metrics["top1"] = float("nan")  # frozen models still hold mutable dicts
    with pytest.raises(ResultsError, match="metrics"):
        write_record(tmp_path, record)
    assert list(tmp_path.iterdir()) == []
