"""How a suite is going, in a terminal, elsewhere and on the page."""

import io
import json
import time

import pytest
from rich.console import Console

from mae_bench.report_page import page
from mae_bench.report_runs import find_runs
from mae_bench.suite import board as board_module
from mae_bench.suite.board import Board
from mae_bench.suite.choosing import chosen_spec
from mae_bench.suite.expansion import expand


@pytest.fixture
def runs():
    tasks = ["imagenet1k", "coco", "ade20k"]
    return expand(chosen_spec(None, tasks=tasks, init=["scratch"])[0]).runs


def under_way(run, out, step):
    """A folder as a run leaves it while it trains: 100 steps in all."""
    folder = out / run.name
    folder.mkdir(exist_ok=True)
    recipe = run.recipe.to_dict() | {"epochs": 10, "batch_size": 8}
    identity = {"recipe": recipe, "data": {"train_images": 80, "standard": False}}
    (folder / "run.json").write_text(json.dumps(identity))
    line = {"step": step, "epoch": step / 10, "loss": 2.5, "lr": 0.1}
    (folder / "log.jsonl").write_text(json.dumps(line) + "\n")


def test_time_left_is_that_of_the_steps_since_it_was_first_seen(runs, tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    board = Board(runs, tmp_path)
    board.set(runs[0], "running")
    looks = [(1040, 50, "step 50 of 100")]  # of the log before it goes on from a state
    looks += [(1060, 20, "step 20 of 100"), (1080, 30, "2 min 20 s left")]
    for seconds, step, said in looks:
        now[0] = seconds
        under_way(runs[0], tmp_path, step)
        board.update()
        assert said in board.rows[runs[0]].said
    under_way(runs[0], tmp_path, 100)
    board.update()
    assert board.rows[runs[0]].said == "scoring"


def test_every_state_is_in_the_table_and_failures_stay_in_a_low_one(runs, tmp_path, monkeypatch):
    board = Board(runs, tmp_path)
    board.set(runs[0], "failed", "no memory")
    board.set(runs[1], "running")
    printed = Console(file=io.StringIO(), width=120)
    printed.print(board.table(20))
    said = printed.file.getvalue()
    assert "failed no memory" in said
    assert "waiting" in said
    assert "1 waiting, 1 running, 1 failed" in said
    printed = Console(file=io.StringIO(), width=120)
    printed.print(board.table(3))
    assert runs[2].name not in printed.file.getvalue()
    assert "failed no memory" in printed.file.getvalue()


def test_a_terminal_gets_the_table_live(runs, tmp_path, monkeypatch):
    console = Console(file=io.StringIO(), width=150, height=40, force_terminal=True)
    monkeypatch.setattr(board_module, "console", console)
    board = Board(runs, tmp_path)
    with board.shown():
        board.set(runs[0], "running")
        board.update()
    assert "2 waiting, 1 running" in console.file.getvalue()


def test_the_page_shows_what_runs_waits_and_failed(runs, tmp_path):
    board = Board(runs, tmp_path)
    under_way(runs[0], tmp_path, 40)
    board.set(runs[0], "running")
    board.update()
    board.set(runs[1], "failed", "killed by SIGKILL")
    text = page(find_runs(tmp_path), [], [], 10, board.unfinished())
    assert text.count(f">{runs[0].name}<") == 1  # not once more as a folder that was found
    assert "running step 40 of 100" in text
    assert "failed killed by SIGKILL" in text
    assert "waiting" in text


def test_a_sweep_tells_its_candidate(tmp_path):
    sweep = {"base_lr": [1e-4, 1e-3, 1e-2]}
    given = {"tasks": ["imagenet1k"], "init": ["scratch"], "sweep": sweep}
    (run,) = expand(chosen_spec(None, **given)[0]).runs
    board = Board([run], tmp_path)
    board.set(run, "running")
    under_way(run, tmp_path, 1)
    folder = tmp_path / run.name
    (folder / "log.jsonl").unlink()
    for number, name in enumerate(("record.json", "failed.json"), start=1):
        board.update()
        assert board.rows[run].said.endswith(f", candidate {number} of 3")
        place = folder / "candidates" / str(number)
        place.mkdir(parents=True)
        (place / name).touch()
    board.update()
    assert board.rows[run].said.endswith(", candidate 3 of 3")
