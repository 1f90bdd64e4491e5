"""`mae-bench runs prune`, and runs that another process holds."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from run_folders import files, filled, finished, lines, record

from mae_bench import runs
from mae_bench.run.finding import read_run, state
from results import write_record


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return filled(tmp_path / "runs")


def test_prune_says_what_it_would_do(root, capsys):
    before = files(root)
    assert runs.prune(root) == 10_000
    said = lines(capsys)
    assert said == [
        "one: state/step-00001000.pt 4.9 KiB",
        "study/other: state/step-00001000.pt 4.9 KiB",
        "would free 9.8 KiB; --yes does it",
    ]
    assert files(root) == before


def test_prune_deletes_states_of_finished_runs_and_halves_of_files(root, capsys):
    for place in ("one/.model.safetensors.partial", "half/state/.step-00000017.pt.partial"):
        (root / place).write_bytes(bytes(100))
    before = files(root)
    assert runs.prune(root, yes=True) == 10_200
    gone = before.keys() - files(root).keys()
    assert gone == {
        "one/state/step-00001000.pt",
        "one/.model.safetensors.partial",
        "study/other/state/step-00001000.pt",
        "half/state/.step-00000017.pt.partial",
    }
    assert not (root / "one/state").exists()
    assert lines(capsys)[-1] == "freed 10.0 KiB"
    assert runs.prune(root, yes=True) == 0


def test_weights_go_only_when_asked_for_and_only_of_these_runs(root):
    assert runs.prune(root, ["one"], weights=True, yes=True) == 8000
    assert not (root / "one/model.safetensors").exists()
    assert (root / "study/other/model.safetensors").exists()
    assert (root / "study/other/state").exists()


def test_prune_never_touches_a_record_or_what_is_not_ours(root, tmp_path):
    """A stranger's record in a folder of something else, and links that lead elsewhere."""
    (root / "notes/state").mkdir()
    (root / "notes/state/step-00000001.pt").write_bytes(b"somebody's")
    write_record(root / "notes", record())
    (root / "one/state/notes.txt").write_text("mine")
    elsewhere = tmp_path / "elsewhere"
    save = elsewhere / "step-00000002.pt"
    elsewhere.mkdir()
    save.write_bytes(b"on a larger disk")
    finished(root / "linked")
    (root / "linked/state/step-00001000.pt").unlink()
    (root / "linked/state").rmdir()
    (root / "linked/state").symlink_to(elsewhere)
    (root / "linked/model.safetensors").unlink()
    (root / "linked/model.safetensors").symlink_to(save)
    finished(root / "empty_link")
    (root / "empty_link/state/step-00001000.pt").unlink()
    (root / "empty_link/state").rmdir()
    (root / "empty_link/state").symlink_to(tmp_path / "nothing")
    (tmp_path / "nothing").mkdir()
    (root / "empty_link/model.safetensors").unlink()
    before = files(root)
    assert runs.prune(root, weights=True, yes=True) == 16_000
    gone = before.keys() - files(root).keys()
    assert gone == {
        f"{name}/{file}"
        for name in ("one", "study/other")
        for file in ("state/step-00001000.pt", "model.safetensors")
    }
    assert save.read_bytes() == b"on a larger disk"
    assert (root / "linked/model.safetensors").is_symlink()
    assert (root / "empty_link/state").is_symlink()


@pytest.mark.parametrize("yes", [False, True])
def test_prune_leaves_a_run_under_way_alone(root, yes):
    (root / "half/.log.jsonl.partial").write_text("being written")
    before = files(root)
    with FileLock(root / "half/.lock"), FileLock(root / "one/.lock"):
        runs.prune(root, ["half", "one"], weights=True, yes=yes)
    assert files(root) == before


def hold(lock: str, held: Any, done: Any) -> None:
    with FileLock(lock):
        held.set()
        done.wait(30)


def test_another_process_holds_the_lock(root):
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(str(root / "half/.lock"), held, done))
    process.start()
    assert held.wait(30)
    (root / "half/.log.jsonl.partial").write_text("being written")
    assert state(read_run("half", root / "half")) == "under way, step 17 of 300"
    assert runs.prune(root, ["half"], yes=True) == 0
    done.set()
    process.join()
    assert state(read_run("half", root / "half")) == "stopped at step 16 of 300"
    assert runs.prune(root, ["half"], yes=True) == len("being written")
