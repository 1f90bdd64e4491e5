"""Run folders that somebody spoilt: every command ends well, in one line, or leaves out and names.

Mutations come from a fixed seed; each must end in exit code 0, 1 or 2, without a traceback and
within seconds.
"""

import csv
import json
import os
import random
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from made_records import make, pretrained
from PIL import Image

from mae_bench import runs
from mae_bench.cli import call
from mae_bench.errors import RunError
from mae_bench.run.writing import open_run
from results import write_record
from tasks.classification.scores import write_per_class

SEED = 20
ROUNDS = 25
SECONDS = 20
FILES = ("record.json", "run.json", "log.jsonl", "predictions.csv", "per_class.csv", "classes.txt")
IDENTITY = {
    "task": "imagenet1k",
    "recipe": {"protocol": "imagenet1k/finetune@1", "backbone": "vit_b", "epochs": 3},
    "data": {"train_images": 1005, "standard": False, "miniature": False},
    "init": "mae",
    "seed": 0,
}
ODD = (
    b"",
    b"\x00" * 100,
    b"\xff\xfe{",
    b"[" * 200_000,
    b'{"a":' * 5_000,
    b"null",
    b"[]",
    b'"\\ud800"',
    b"1e400",
    b"9" * 5000,
)
NUMBERS = ("1e400", "NaN", "-1", "9" * 400, "9" * 5000, "true", '"\\ud800"', "[]", "null", '"x"')


def folder(root: Path, name: str) -> Path:
    place = root / name
    finished = make(name=name, checkpoint=pretrained(), metrics={"top1": 50.0, "top5": 90.0})
    write_record(place, finished)
    (place / "run.json").write_text(json.dumps(IDENTITY))
    log = [json.dumps({"step": i, "epoch": i / 10, "loss": 1 / i}) for i in range(1, 30)]
    (place / "log.jsonl").write_text("\n".join(log) + "\n")
    rows = ["file,target,class_1,probability_1", "a,0,0,0.9", "b,0,1,0.8"]
    (place / "predictions.csv").write_text("\n".join(rows) + "\n")
    (place / "per_class.csv").write_text("index,class,images,correct,accuracy\n0,x,2,1,50.0\n")
    (place / "classes.txt").write_text("x\ny\n")
    Image.new("RGB", (8, 8)).save(place / "predictions.png")
    return place


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("good", "spoilt"):
        folder(tmp_path / "runs", name)
    stopped = folder(tmp_path / "runs", "stopped")
    (stopped / "record.json").unlink()
    return tmp_path / "runs"


def one_number(text: str, rng: random.Random) -> str:
    """Another value in place of one number."""
    places = [i for i, c in enumerate(text) if c.isdigit() and not text[i - 1].isalnum()]
    if not places:
        return text
    start = rng.choice(places)
    end = start
    while end < len(text) and (text[end].isdigit() or text[end] == "."):
        end += 1
    return text[:start] + rng.choice(NUMBERS) + text[end:]


def spoil(file: Path, rng: random.Random) -> str:
    """Change a file in one of many ways; what was done."""
    content = file.read_bytes() if file.exists() else b"{}"
    way = rng.choice(
        ["odd", "cut", "bytes", "number", "number", "pipe", "device", "loop", "folder", "sparse"]
    )
    file.unlink(missing_ok=True)
    if way == "odd":
        file.write_bytes(rng.choice(ODD))
    elif way == "cut":
        file.write_bytes(content[: rng.randrange(len(content) + 1)])
    elif way == "bytes":
        changed = bytearray(content or b"x")
        for _ in range(rng.randint(1, 20)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        file.write_bytes(changed)
    elif way == "number":
        file.write_text(one_number(content.decode(errors="replace"), rng))
    elif way == "pipe":
        os.mkfifo(file)
    elif way == "device":
        file.symlink_to("/dev/zero")
    elif way == "loop":
        file.symlink_to(file.name)
    elif way == "folder":
        file.mkdir()
    else:
        with file.open("wb") as stream:
            stream.write(content)
            stream.truncate(2**38)
    return f"{file.parent.name}/{file.name}: {way}"


def ends_well(argv: list[str], capsys: pytest.CaptureFixture[str]) -> int:
    """One line of an error at most, no traceback, in time; the exit code."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"{argv} hangs"))
    signal.alarm(SECONDS)
    try:
        code = call(argv)
    except SystemExit as end:  # of scores that are not the record's
        code = end.code
    finally:
        signal.alarm(0)
    said = capsys.readouterr()
    assert code in (0, 1, 2)
    assert "Traceback" not in said.out + said.err
    if code == 2:
        assert len(said.err.strip().splitlines()) == 1
    return code


@pytest.mark.parametrize("number", range(ROUNDS))
def test_spoilt_folders(number: int, root: Path, tmp_path: Path, capsys) -> None:
    rng = random.Random(SEED * 1000 + number)
    names = [*FILES, "predictions.png"]
    place = root / rng.choice(["spoilt", "spoilt", "stopped"])
    done = spoil(place / rng.choice(names), rng)
    print(done)
    there = ["--runs", str(root)]
    formats = ["--formats", "md", "tex", "csv", "json"] if number % 5 else ["--formats", "html"]
    assert ends_well(["report", *there, *formats, "--output", str(tmp_path / "out")], capsys) == 0
    ends_well(["report", *there, "--compare", "good", "spoilt", "--formats", "csv"], capsys)
    for argv in (["list"], ["show", place.name], ["compare", "good", place.name], ["prune"]):
        ends_well(["runs", *argv, *there], capsys)
    bundle = tmp_path / "one.zip"
    ends_well(["runs", "pack", "spoilt", "--output", str(bundle), *there], capsys)
    if bundle.exists():
        ends_well(["runs", "rescore", str(bundle)], capsys)


def bundle_bytes(root: Path, tmp_path: Path) -> bytes:
    return runs.pack("good", tmp_path / "whole.zip", root).read_bytes()


@pytest.mark.parametrize("number", range(12))
def test_spoilt_bundles(number: int, root: Path, tmp_path: Path, capsys) -> None:
    rng = random.Random(SEED * 2000 + number)
    changed = bytearray(bundle_bytes(root, tmp_path))
    for _ in range(rng.choice([1, 1, 3, 30])):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    if number % 4 == 0:
        del changed[rng.randrange(len(changed)) :]
    (tmp_path / "bad.zip").write_bytes(changed)
    ends_well(["runs", "rescore", str(tmp_path / "bad.zip")], capsys)


def pipe(file: Path) -> None:
    os.mkfifo(file)


def sparse(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(2**40)


def outside(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../evil", "x")


@pytest.mark.parametrize("draw", [pipe, sparse, outside, lambda file: file.symlink_to(file.name)])
def test_no_bundle(draw: Callable[[Path], None], tmp_path: Path, capsys) -> None:
    draw(tmp_path / "b.zip")
    ends_well(["runs", "rescore", str(tmp_path / "b.zip")], capsys)
    assert not (tmp_path.parent / "evil").exists()


def test_a_damaged_log_is_said(root: Path, tmp_path: Path, capsys) -> None:
    log = root / "good" / "log.jsonl"
    log.write_text(log.read_text().replace('"loss": 0.5', '"loss": NaN') + "{cut")
    (root / "spoilt" / "log.jsonl").write_text("nonsense\n")
    assert call(["report", "--runs", str(root), "--output", str(tmp_path / "out.html")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "good: log.jsonl is damaged; 1 line is no training step and left out" in said
    assert "spoilt: log.jsonl holds no readable step" in said
    assert "Damaged lines of logs are left out: good (1)." in (tmp_path / "out.html").read_text()


def test_prune_goes_on_after_another_users_run(root: Path, capsys, monkeypatch) -> None:
    """A lock that this user may not open ends the pruning of one run, not of all."""
    for name in ("good", "spoilt"):
        (root / name / "state").mkdir()
        (root / name / "state" / "step-00000001.pt").write_bytes(bytes(1000))
    acquire = FileLock.acquire

    def refused(self, *args, **options):
        if "good" in self.lock_file:
            raise PermissionError(13, "Permission denied", self.lock_file)
        return acquire(self, *args, **options)

    monkeypatch.setattr(FileLock, "acquire", refused)
    assert runs.prune(root, yes=True) == 1000
    said = capsys.readouterr().out
    assert "good: left alone; " in said
    assert "Permission denied" in said
    assert (root / "good" / "state").exists()
    assert not (root / "spoilt" / "state").exists()


def test_prune_takes_bundles_that_were_never_finished(root: Path, capsys) -> None:
    """Those of processes that are gone; not what one is writing, nor files of other names."""
    gone = 4_194_304  # no process id is larger on Linux
    old = root / f".good.maebench.zip.{gone}.partial"
    young = root / f".late.maebench.zip.{gone}.partial"
    own = root / f".own.maebench.zip.{os.getpid()}.partial"
    other = root / f".notes.txt.{gone}.partial"
    for file in (old, young, own, other):
        file.write_bytes(bytes(500))
    for file in (old, own, other):
        os.utime(file, (1e9, 1e9))
    assert runs.prune(root) == 500
    assert old.exists()
    assert runs.prune(root, yes=True) == 500
    assert [file.exists() for file in (old, young, own, other)] == [False, True, True, True]
    assert old.name in capsys.readouterr().out


def test_a_full_disk_names_the_bundle(root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("results.bundle._write", full)
    argv = ["runs", "pack", "good", "--runs", str(root), "--output", str(tmp_path / "b.zip")]
    assert call(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "b.zip") in line
    assert "No space left" in line
    assert not list(tmp_path.glob(".*"))


def test_class_names_are_no_formulas(tmp_path: Path) -> None:
    """In a spreadsheet `=cmd|...` would run; what is no formula stays as it is."""
    classes = ["=cmd|' /C calc'!A0", "+1", "-1", "@x", "\t=1", "a=b", "n01440764"]
    ones = np.ones(len(classes), dtype=bool)
    write_per_class(
        tmp_path / "per_class.csv", classes, range(len(classes)), np.arange(len(classes)), ones
    )
    with (tmp_path / "per_class.csv").open(newline="") as stream:
        shown = [row["class"] for row in csv.DictReader(stream)]
    assert shown == [*(f"'{name}" for name in classes[:5]), *classes[5:]]


def broken_off(file: Path) -> None:
    file.write_bytes(b"[" * 200_000)


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        *((name, draw) for name in ("run.json", "record.json") for draw in (pipe, sparse)),
        ("run.json", broken_off),
    ],
)
def test_a_spoilt_folder_is_not_gone_on_with(
    name: str, draw: Callable[[Path], None], root: Path, capsys
) -> None:
    """By `open_run`, as training does, and by `evaluate`: one line, and nothing hangs."""
    file = root / "good" / name
    file.unlink()
    draw(file)
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("hangs"))
    signal.alarm(SECONDS)
    try:
        with (
            pytest.raises((RunError, OSError), match=r"damaged|is a named pipe|bytes; expected"),
            open_run(root / "good", IDENTITY) as run,
        ):
            assert run.record
    finally:
        signal.alarm(0)
    if name == "record.json":
        assert ends_well(["evaluate", str(root / "good"), "--on", "imagenet_a"], capsys) == 2


def test_a_result_that_breaks_off_is_put_aside(root: Path, capsys) -> None:
    """However deep it nests; what is left of it stays there to be looked at."""
    file = root / "good" / "record.json"
    file.unlink()
    broken_off(file)
    assert ends_well(["evaluate", str(root / "good"), "--on", "imagenet_a"], capsys) == 2
    with open_run(root / "good", IDENTITY) as run:
        assert run.record is None
    assert file.with_name("record.json.torn").stat().st_size == 200_000
