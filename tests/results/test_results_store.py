import errno
import multiprocessing
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from results import Record, ResultsError, read_records, store, write_record


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
    assert reasons["pipe"] == "is a named pipe, not a regular file"


def test_search_depth_is_bounded_and_links_are_not_followed(make_record, tmp_path):
    deepest = Path(*"123456")
    write_record(tmp_path / deepest, make_record(name="reached"))
    write_record(tmp_path / deepest / "7", make_record(name="too deep"))
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    records, _ = read_records(tmp_path)
    assert [record.name for record in records] == ["reached"]


def test_the_root_may_be_any_path(make_record, tmp_path, monkeypatch):
    write_record(tmp_path / "one", make_record())
    monkeypatch.chdir(tmp_path)
    for root in (".", "one", "one/../one", f"{tmp_path}/"):
        assert read_records(root)[0] == [make_record()]


def test_what_a_run_keeps_in_folders_is_not_searched(make_record, tmp_path):
    """A run has thousands of predictions; but a folder may be called so, and so may a run."""
    for folder in (".", "predictions", "predictions/state", "study", "study/inner"):
        write_record(tmp_path / folder / "run", make_record(name=folder))
    for folder in ("state", "tensorboard", "predictions"):
        write_record(tmp_path / "run" / folder, make_record(name="no run"))
    records, _ = read_records(tmp_path)
    names = [".", "predictions", "predictions/state", "study", "study/inner"]
    assert [record.name for record in records] == names


HOSTILE = {
    "nested": ("[" * 5000 + "]" * 5000, "recursion limit"),
    "long": ("9" * 5000, "number out of range"),
    "infinite": ("1e999", "finite numbers only"),
    "nan": ("NaN", "finite numbers only"),
    "escape": ('1}, "\\u001b[31m' + "x" * 10**6 + '": {"a": 1', "[31mxxx"),
    "surrogate": ('"\\ud800"', "Invalid JSON"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_values_are_skipped_with_a_line(make_record, tmp_path, what):
    value, reason = HOSTILE[what]
    text = make_record().to_json().replace('"epochs": 100', f'"epochs": {value}')
    (tmp_path / "record.json").write_text(text)
    records, (skipped,) = read_records(tmp_path)
    assert records == []
    assert reason in skipped.reason
    assert skipped.reason.isprintable()
    assert len(skipped.reason) <= store.MAX_REASON


def test_missing_root_says_what_to_do(tmp_path):
    with pytest.raises(ResultsError, match="nowhere: no such folder of runs; name the folder"):
        read_records(tmp_path / "nowhere")


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_write_leaves_no_record_and_no_litter(make_record, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(store.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_record(tmp_path, make_record())
    assert list(tmp_path.iterdir()) == []
    assert store.read_record(write_record(tmp_path, make_record())) == make_record()


def no_links(*_):
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_a_record_is_never_overwritten(make_record, tmp_path, monkeypatch, links):
    """Nor on file systems without hard links, by which it appears elsewhere."""
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", no_links)
    path = write_record(tmp_path, make_record())
    before = path.read_bytes()
    assert write_record(tmp_path, make_record()) == path  # the same once more changes nothing
    with pytest.raises(ResultsError, match="holds the record of another run; records are never"):
        write_record(tmp_path, make_record(metrics={"top1": 99.9}))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_what_is_no_record_is_not_overwritten_either(make_record, tmp_path):
    path = tmp_path / "record.json"
    path.write_text("a note of mine")
    with pytest.raises(ResultsError, match=r"is there, and no record .*; look at it, and move"):
        write_record(tmp_path, make_record())
    assert path.read_text() == "a note of mine"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")  # which does not exist, as far as `exists` can tell
    with pytest.raises(ResultsError, match="is there, and no record"):
        write_record(tmp_path, make_record())
    assert not (tmp_path / "nowhere").exists()


def write_one(folder: Path, record: Record, start: Any, told: Any) -> None:
    start.wait()
    try:
        write_record(folder, record)
        told.put(record.seed)
    except ResultsError as error:
        told.put(str(error))


def test_of_two_processes_one_writes(make_record, tmp_path):
    context = multiprocessing.get_context("fork")
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        start, told = context.Barrier(2), context.Queue()
        arguments = [(folder, make_record(seed=seed), start, told) for seed in (1, 2)]
        both = [context.Process(target=write_one, args=each) for each in arguments]
        for each in both:
            each.start()
        answers = [told.get(timeout=20) for _ in both]
        for each in both:
            each.join()
        (seed,) = (answer for answer in answers if isinstance(answer, int))
        (refusal,) = (answer for answer in answers if isinstance(answer, str))
        assert "records are never overwritten" in refusal
        assert store.read_record(folder / "record.json").seed == seed


def test_record_spoilt_after_it_was_made_is_not_written(make_record, tmp_path):
    record = make_record()
    record.metrics["top1"] = float("nan")  # frozen models still hold mutable dicts
    with pytest.raises(ResultsError, match="metrics"):
        write_record(tmp_path, record)
    assert list(tmp_path.iterdir()) == []
