"""The GPU kit: what goes wrong in a part is named and survived; a rehearsal runs all of it."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from gpu_kit import exactness, marked_tests, report, runner
from gpu_kit.book import Book, read
from gpu_kit.part import Bench
from gpu_kit.parts import PARTS, Part
from gpu_kit.report import REHEARSAL, write_report
from gpu_kit.runner import Outcome
from release_peer import Release, ReleaseStep

from mae_bench.mae import MaskedAutoencoder

ROOT = Path(__file__).parents[2]
GOAL = "MAE ViT-L against the release's arrangement"
FAKE = """
    import json, os, signal, sys, time
    name, out = sys.argv[sys.argv.index("--part") + 1], sys.argv[sys.argv.index("--out") + 1]
    with open(f"{out}/{name}.jsonl", "a") as book:
        print(json.dumps({"kind": "begin", "what": "a kernel"}), file=book)
        print(json.dumps({"kind": "row", "table": "T", "cells": {"part": name}}), file=book)
    if name == "exactness":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "mae_l":
        time.sleep(60)
    sys.exit(3 if name == "tests" else 0)
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parts that end well, by a signal, not at all, and with a status."""
    script = tmp_path / "fake.py"
    script.write_text(textwrap.dedent(FAKE))
    monkeypatch.setattr(runner, "SCRIPT", script)
    monkeypatch.setattr(runner, "GRACE", 0.1)
    monkeypatch.setattr(runner, "LEAST", 0.5)
    monkeypatch.setattr(runner.signal, "signal", lambda *_: None)
    monkeypatch.setitem(PARTS, "mae_l", Part("MAE", "pretraining", 3.0, ("vit_l",)))
    return tmp_path / "out"


def test_a_part_that_fails_hangs_or_is_killed_is_named_and_the_others_go_on(fake: Path) -> None:
    names = ["machine", "exactness", "mae_l", "tests", "relative"]
    assert runner.run_all(names, fake, 100, rehearse=False) == 1
    text = (fake / "report.md").read_text()
    assert "ended by SIGKILL, as when memory runs out" in text
    assert "MAE: a kernel: did not end in its time and was killed" in text
    assert "ended with status 3; see tests.log" in text
    assert text.count("| done |") == 2
    for name in names:  # what each had found until then
        assert f"\n| {name} |\n" in text
    assert not (fake / "report.partial").exists()


def test_without_time_left_a_part_is_not_begun(fake: Path) -> None:
    assert runner.run_all(["machine", "relative"], fake, 0.4, rehearse=False) == 1
    assert (fake / "report.md").read_text().count("not run: no time left") == 2
    assert not (fake / "machine.jsonl").exists()


def test_stopped_in_the_middle_the_report_holds_what_there_was(fake: Path, monkeypatch) -> None:
    real = runner.run_part

    def stop(name: str, *arguments: object) -> Outcome:
        if name == "relative":
            raise SystemExit(143)
        return real(name, *arguments)

    monkeypatch.setattr(runner, "run_part", stop)
    with pytest.raises(SystemExit):
        runner.run_all(["machine", "relative", "loader"], fake, 100, rehearse=False)
    text = (fake / "report.md").read_text()
    assert text.count("not run: stopped before") == 2
    assert "\n| machine |\n" in text


def bench_of(folder: Path, seconds: float = 60.0) -> Bench:
    return Bench(Book(folder / "part.jsonl"), folder, seconds, rehearse=True)


def test_what_is_missing_is_told_from_what_failed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("gpu_kit.part.card_gib", lambda: 80.0)
    bench = bench_of(tmp_path)

    def fail(error: Exception) -> None:
        raise error

    assert bench.attempt("fine", lambda: 5) == 5
    assert bench.attempt("peer", __import__, "no_such_package") is None
    bench.attempt("large", fail, torch.OutOfMemoryError("CUDA out of memory"))
    bench.attempt("broken", fail, ValueError("an illegal\naccess"))
    bench.end = 0.0
    bench.attempt("late", lambda: pytest.fail("begun without time"))
    found = read(bench.book.file)
    assert [(each["what"], each["why"]) for each in found.missing] == [
        ("peer", "needs the package no_such_package"),
        ("large", "more memory than this card's 80 GiB"),
        ("late", "the part's time was over"),
    ]
    assert [each["why"] for each in found.failed] == ["ValueError: an illegal"]
    assert found.last == "broken"


def test_a_book_with_a_line_cut_off_is_read(tmp_path: Path) -> None:
    book = Book(tmp_path / "b.jsonl")
    book.row("T", a=1)
    with book.file.open("a") as file:
        file.write('{"kind": "row", "table"')
    assert read(book.file).rows == {"T": [{"a": 1}]}


@pytest.mark.parametrize(
    ("value", "verdict"), [(2.5, "reached"), (1.9, "not reached"), (None, "not measured")]
)
def test_goals(tmp_path: Path, value: float | None, verdict: str) -> None:
    book = Book(tmp_path / "mae_l.jsonl")
    book.goal(GOAL, value, 2.0, "times as fast")
    text = write_report(tmp_path, [Outcome("mae_l", 1, "done")], rehearse=False).read_text()
    line = next(each for each in text.splitlines() if each.startswith(f"| {GOAL}"))
    assert line.endswith(f"| {verdict} |")
    text = write_report(tmp_path, [Outcome("mae_l", 1, "done")], rehearse=True).read_text()
    assert "| reached |" not in text
    assert REHEARSAL in text


def test_every_goal_is_one_that_a_part_names() -> None:
    code = "".join(file.read_text() for file in (ROOT / "benchmarks" / "gpu_kit").glob("*.py"))
    for name in report.GOALS:
        assert code.count(f'"{name}') == 2, name


def test_no_rehearsal_is_committed() -> None:
    for file in (ROOT / "benchmarks").glob("*.md"):
        assert "REHEARSAL" not in file.read_text("utf-8"), file


def test_results_of_the_tests(tmp_path: Path) -> None:
    """A test that is skipped on a card is not passed."""
    bench = bench_of(tmp_path)
    xml = tmp_path / "tests.xml"
    cases = "".join(f'<testcase classname="c" name="n{i}">{body}</testcase>' for i, body in
                    enumerate(["", "", "<skipped/>", "<failure/>"]))  # fmt: skip
    xml.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    with pytest.raises(RuntimeError, match="1 of 4 failed"):
        marked_tests.tell(bench, xml)
    (goal,) = read(bench.book.file).goals
    assert goal["value"] == 0.5


def test_an_error_beyond_its_tolerance_is_told(tmp_path: Path) -> None:
    """A product rounded as TF32 rounds: 10 bits of mantissa."""
    bench = bench_of(tmp_path)
    judge = exactness.Judge(bench)

    def rounded(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        short = [(t.view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32) for t in (x, w)]
        return torch.stack([x * 0, x @ w - x @ w.detach(), short[0] @ short[1]]).sum(dim=0)

    inputs = [torch.randn(64, 64) for _ in range(2)]
    for name, ours in {"exact": torch.matmul, "TF32": rounded}.items():

        def compare(ours=ours) -> float:
            return exactness.function_error(bench, torch.float32, ours, torch.matmul, inputs)

        judge.attempt(name, "fp32", compare, exactness.TOLERANCES["fp32"])
    rows = read(bench.book.file).rows[exactness.TABLE]
    assert [row["within"] for row in rows] == ["yes", "NO"]
    assert (judge.good, judge.all) == (1, 2)


def test_the_releases_arrangement_has_our_loss_and_gradients() -> None:
    torch.manual_seed(0)
    options = {"decoder_dim": 32, "decoder_depth": 2, "decoder_heads": 2, "norm_pix": True}
    mae = MaskedAutoencoder("vit_mini", 32, **options)
    peer = Release(mae)
    images, noise = torch.randn(3, 3, 32, 32), torch.rand(3, mae.num_patches)
    loss, expected = mae(images, noise).loss, peer(images, noise)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    loss.backward(), expected.backward()
    own = {name.removeprefix("encoder."): p.grad for name, p in mae.named_parameters()}
    for name, gradient in peer.gradients(mae).items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_the_releases_step_trains_and_stops_at_a_loss_that_is_not_finite() -> None:
    torch.manual_seed(0)
    network = Square()
    step = ReleaseStep(network, "cpu", torch.bfloat16)
    step(torch.ones(4))
    assert network.weight.item() < 1
    with pytest.raises(RuntimeError, match="not finite"):
        step(torch.full((4,), torch.inf))


class Square(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.weight * x).square().mean()


ONE_PROCESS = """
    import sys
    from pathlib import Path
    from gpu_kit import part
    from gpu_kit.parts import PARTS
    for name in {names}:
        part.work(name, Path({out!r}), 600, rehearse=True)
"""


@pytest.mark.slow
def test_a_rehearsal_runs_every_part(tmp_path: Path) -> None:
    """In one process, to import torch once; nothing fails and every part has something to say."""
    names = [name for name in PARTS if name not in ("mae_b", "mae_h", "tests")]
    code = textwrap.dedent(ONE_PROCESS).format(names=names, out=str(tmp_path))
    command = [sys.executable, "-c", code]
    folder = ROOT / "benchmarks"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    write_report(tmp_path, [Outcome(name, 0, "done") for name in names], rehearse=True)
    text = (tmp_path / "rehearsal.md").read_text()
    for name in names:
        found = read(tmp_path / f"{name}.jsonl")
        assert not found.failed, (name, found.failed)
        assert found.rows, name
        assert f"## REHEARSAL: {PARTS[name].title}" in text
    rows = read(tmp_path / "exactness.jsonl").rows[exactness.TABLE]
    assert all(row["within"] == "yes" for row in rows if row["precision"] == "fp32"), rows
    labels = [json.dumps(each) for each in read(tmp_path / "mae_l.jsonl").rows.values()]
    assert all(name in labels[0] for name in ("release", "compiled", "not fused")), labels
