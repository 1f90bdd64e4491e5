import json
import os

import pytest

import results.logs
from results.logs import MAX_POINTS, read_log


def write(file, count):
    lines = [
        json.dumps({"step": i, "epoch": i / 10, "loss": 1 / i, "lr": 1e-3})
        for i in range(1, count + 1)
    ]
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def read(file):
    return read_log(file, "run", "pretrain/mae@1", True)


def test_a_short_log_is_read_whole(tmp_path):
    log = read(write(tmp_path / "log.jsonl", 20))
    assert log.epochs == tuple(i / 10 for i in range(1, 21))
    assert log.losses == tuple(1 / i for i in range(1, 21))
    assert (log.name, log.protocol, log.miniature) == ("run", "pretrain/mae@1", True)


def test_a_long_log_is_thinned_and_keeps_its_end(tmp_path):
    log = read(write(tmp_path / "log.jsonl", 20_000))
    assert MAX_POINTS / 3 < len(log.epochs) < 1.5 * MAX_POINTS
    assert log.epochs[-1] == 2000.0
    assert list(log.epochs) == sorted(log.epochs)


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 3, "epoch": 0.3, "los',
        "[1, 2]",
        '{"step": 3, "epoch": 0.3, "loss": NaN}',
        '{"step": 3, "epoch": 0.3, "loss": 1e300}',
        '{"step": 3, "epoch": null, "loss": 1}',
        "[" * 900,
        "\x00",
        "x" * 100_000,
    ],
)
def test_lines_that_are_no_step_are_left_out(line, tmp_path):
    file = write(tmp_path / "log.jsonl", 2)
    with file.open("a") as stream:
        stream.write(f'{line}\n{{"step": 4, "epoch": 0.4, "loss": 0.5}}\n')
    assert read(file).losses == (1.0, 0.5, 0.5)


def test_no_log(tmp_path, monkeypatch):
    assert read(tmp_path / "missing") is None
    assert read(tmp_path) is None
    (tmp_path / "empty").write_text("")
    assert read(tmp_path / "empty") is None
    os.mkfifo(tmp_path / "pipe")  # opened, it would wait for a writer for ever
    assert read(tmp_path / "pipe") is None
    monkeypatch.setattr(results.logs, "MAX_BYTES", 200)  # no more of a file than that is read
    assert 1 < len(read(write(tmp_path / "log.jsonl", 1000)).losses) < 6
