"""`mae-bench runs`: list, show, compare, and the command lines."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock
from run_folders import IDENTITY, begun, files, filled, finished, line_of, lines, record, rescored
from small_runs import SMALL_MAE, flags, log_of, steps_logged, wait_for

from mae_bench import runs
from mae_bench.cli import call
from mae_bench.errors import RunError
from mae_bench.run.finding import planned_steps, read_run, runs_in, state
from results.bundle import open_bundle


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return filled(tmp_path / "runs")


def test_list_has_a_line_for_each_run(root, capsys):
    found = runs.list_runs(root)
    assert [run.name for run in found] == ["broken", "empty", "one", "study/other", "half"]
    said = lines(capsys)
    assert " ".join(said[0].split()) == "name protocol backbone init score state size age"
    one = line_of("one", said)
    assert one.startswith("one imagenet1k/finetune@1 vit_b mae top1 83.50 finished ")
    other = line_of("study/other", said)
    assert " moco_v3 top1 84.25 finished " in other
    assert "imagenet1k/linear@1 vit_s dino – stopped at step 16 of 300 " in line_of("half", said)
    assert " broken " in line_of("broken", said)
    assert any(line.startswith(f"broken: {root}/broken/record.json: ") for line in said)
    assert f"broken: {root}/empty/run.json: names no recipe" in said


def test_sizes_and_ages(root, capsys):
    folder = root / "one"
    size = sum(len(content) for content in files(folder).values())
    assert runs.size_on_disk(folder) == size
    now = datetime.now(UTC)
    for name, passed in (("day", 50), ("hour", 5), ("now", -1)):
        time = (now - timedelta(hours=passed)).isoformat()
        begin = (now - timedelta(days=9)).isoformat()
        finished(root / name, started=begin, finished=time)
    capsys.readouterr()
    runs.list_runs(root)
    said = lines(capsys)
    for name, shown in (("day", "2 d"), ("hour", "5 h"), ("now", "0 s")):
        assert line_of(name, said).endswith(f" {shown}")
    assert f" {runs.size_text(size)} " in line_of("one", said)


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**40, "3.0 TiB")]
)
def test_sizes_are_readable(size, shown):
    assert runs.size_text(size) == shown


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"task": "imagenet1k"}, ["one", "study/other", "half"]),
        ({"protocol": "linear"}, ["half"]),
        ({"protocol": "imagenet1k/finetune"}, ["one", "study/other"]),
        ({"protocol": "imagenet1k/finetune@1"}, ["one", "study/other"]),
        ({"protocol": "imagenet1k/finetune@2"}, []),
        ({"task": "coco"}, []),
    ],
)
def test_list_filters(root, asked, names, capsys):
    assert [run.name for run in runs.list_runs(root, **asked)] == names
    if not names:
        (line,) = lines(capsys)
        assert line.startswith(f"no runs of {next(iter(asked.values()))} in {root}; there are ")
        assert "imagenet1k/finetune@1, imagenet1k/linear@1" in line


def test_a_run_under_way_is_one_whose_lock_is_held(root):
    with FileLock(root / "half/.lock"):
        assert state(read_run("half", root / "half")) == "under way, step 17 of 300"
    assert state(read_run("half", root / "half")) == "stopped at step 16 of 300"


@pytest.mark.parametrize(
    ("log", "step"),
    [("", 0), ('{"step": 3}\n{"st', 3), ("{}\n", 0), ("[]\n", 0), ("\0" * 9000 + "\n", 0)],
)
def test_logs_cut_by_a_crash(root, log, step):
    (root / "half/log.jsonl").write_text(log)
    with FileLock(root / "half/.lock"):
        assert state(read_run("half", root / "half")) == f"under way, step {step} of 300"


@pytest.mark.parametrize(
    "identity",
    [
        {},
        {"recipe": {"epochs": 3, "batch_size": 0}, "data": {"train_images": 9, "standard": False}},
        {"recipe": {"epochs": "3", "batch_size": 1}, "data": {"train_images": 9, "standard": 0}},
        {"recipe": {"epochs": 1e308, "batch_size": 1}, "data": {"train_images": 99, "standard": 0}},
        {"recipe": [], "data": None},
    ],
)
def test_steps_of_what_does_not_train(identity):
    assert planned_steps(identity) is None


def test_steps_are_counted_as_in_training(pretrained):
    identity = json.loads((pretrained / "run.json").read_text())
    assert planned_steps(identity) == log_of(pretrained)[-1]["step"]


@pytest.mark.parametrize("name", ["nothing", "", ".", "..", "../one", "one/state", "/etc"])
def test_only_names_of_the_list_are_taken(root, name):
    with pytest.raises(RunError, match=r"no run .*; .*`mae-bench runs list` names them all"):
        runs.show(name, root)


@pytest.mark.parametrize(
    ("name", "meant"), [("onee", "'one'"), ("other", "'study/other'"), ("studi/othr", "'study/")]
)
def test_near_matches_are_suggested(root, name, meant):
    with pytest.raises(RunError, match=f"did you mean {meant}"):
        runs.show(name, root)


def test_a_broken_run_is_named(root):
    with pytest.raises(RunError, match=r"run 'broken' is broken: .*/broken/record\.json: "):
        runs.show("broken", root)
    with pytest.raises(RunError, match=r"--runs .*nowhere: no such folder"):
        runs.list_runs(root / "nowhere")


def test_show_tells_all(root, capsys):
    assert runs.show("one", root).record == record()
    said = [" ".join(line.split()) for line in lines(capsys)]
    for line in (
        "one: finished",
        "top1 83.50 (95 % interval 83.10 to 83.90)",
        "top5 96.50",
        "protocol imagenet1k/finetune@1",
        "deviations epochs 50 -> 100",
        "finished 2026-01-01 01:00 UTC",
        "file mae.pth",
        "fingerprint 0123456789abcdef",
        "standard false",
        "clip_grad null",
        "training 1 h 00 min",
        "images/s –",
        "peak memory 2.0 GiB",
        "timm 1.0.31",
        "commit null",
        "command mae-bench transfer",
        "model.safetensors 2.9 KiB",
        "state 4.9 KiB",
    ):
        assert line in said


def test_show_of_an_unfinished_run(root, capsys):
    assert runs.show("half", root).record is None
    said = [" ".join(line.split()) for line in lines(capsys)]
    assert said[0] == "half: stopped at step 16 of 300"
    assert {"init dino", "batch_size 10", "train_images 1005"} <= set(said)


def test_compare_shows_what_differs_and_all_scores(root, capsys):
    rows = runs.compare("one", "study/other", root)
    assert rows == [
        ("metrics", "top5", "96.50", "–"),
        ("metrics", "top1", "83.50 (95 % interval 83.10 to 83.90)", "84.25"),
        ("run", "init", "mae", "moco_v3"),
        ("run", "seed", "0", "3"),
    ]
    said = [" ".join(line.split()) for line in lines(capsys)]
    assert said[0] == "one study/other first − second"
    assert "top1 83.50 (95 % interval 83.10 to 83.90) 84.25 -0.75" in said


def test_a_run_does_not_differ_from_itself(root):
    assert {row[0] for row in runs.compare("one", "one", root)} == {"metrics"}


def test_an_unfinished_run_is_compared_by_its_recipe(root):
    rows = runs.compare("one", "half", root)
    assert ("recipe", "epochs", "100", "3") in rows
    assert ("metrics", "top1", "83.50 (95 % interval 83.10 to 83.90)", "–") in rows


HOSTILE = "<script>\x1b[31m\x07[bold]x[/bold]\u202egnp.exe"


def test_hostile_text_is_shown_and_does_nothing(tmp_path, capsys):
    root = tmp_path / "runs"
    finished(root / "[red]a[/red]", init=HOSTILE, deviations=[HOSTILE], recipe={HOSTILE: HOSTILE})
    finished(root / "b\x1b[2J", metrics={HOSTILE: 1.0}, intervals={})
    begun(root / "c")
    identity = IDENTITY | {"init": "long" * 10**5, "recipe": {"protocol": [HOSTILE]}}
    (root / "c/run.json").write_text(json.dumps(identity))
    runs.list_runs(root)
    for name in ("[red]a[/red]", "b\x1b[2J", "c"):
        runs.show(name, root)
    runs.compare("[red]a[/red]", "b\x1b[2J", root)
    said = capsys.readouterr().out
    for character in "\x1b\x07\u202e":
        assert character not in said
    assert "<script> [31m [bold]x[/bold] gnp.exe" in said
    assert "[red]a[/red]" in said
    assert max(map(len, said.splitlines())) < 20_000


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("show", "runs show lacks NAME (see mae-bench runs show --help)"),
        ("compare one", "runs compare lacks NAME (see mae-bench runs compare --help)"),
        ("list one", "runs list does not take one (see"),
        ("list --yes", "runs list does not take --yes; runs prune would (see"),
        ("show one --data mini", "runs show does not take --data mini; runs rescore would (see"),
        ("prune --task coco", "runs prune does not take --task coco; runs list would (see"),
        ("rescore nothing.zip", "nothing.zip: no such file; expected a bundle"),
        ("rescore .", ".: is a folder; expected a bundle"),
        ("shwo one", "unknown command runs 'shwo'; did you mean show?"),
        ("", "list"),
        ("list --runs /nowhere", "/nowhere: no such folder"),
    ],
)
def test_bad_command_lines(argv, said, capsys):
    assert call(["runs", *argv.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_the_commands(root, tmp_path, capsys):
    there = ["--runs", str(root)]
    for argv in (
        ["list", "--task", "imagenet1k"],
        ["show", "one"],
        ["compare", "one", "half"],
        ["prune", "one", "--yes"],
        ["pack", "one", "--output", str(tmp_path / "one.zip"), "--weights", "--pictures"],
    ):
        assert call(["runs", *argv, *there]) == 0
    assert not (root / "one/state").exists()
    assert (root / "study/other/state").exists()
    with open_bundle(tmp_path / "one.zip") as bundle:
        assert bundle.record.name == "one"
    assert rescored([str(tmp_path / "one.zip")], capsys)[0] == 1


def test_looking_at_runs_needs_no_torch(root):
    code = (
        "import sys; from mae_bench.cli import call; "
        f"call(['runs', 'list', '--runs', {str(root)!r}]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_real_run_from_its_start_to_its_pruning(world, tmp_path, fork, capsys):
    argv = ["pretrain", *flags(data=world / "unlabelled", out=tmp_path, name="run", workers=0)]
    argv += flags(**SMALL_MAE | {"epochs": 40})
    process = fork(argv)
    wait_for(lambda: steps_logged(tmp_path / "run") >= 2, "two steps")
    assert state(read_run("run", tmp_path / "run")).startswith("under way, step ")
    assert runs.prune(tmp_path, yes=True) == 0
    process.kill(2)
    assert process.exit_code() == 130
    assert state(read_run("run", tmp_path / "run")).startswith("stopped at step ")
    assert state(read_run("run", tmp_path / "run")).endswith(" of 120")
    assert call(argv) == 0
    (run,) = runs_in(tmp_path)
    assert state(run) == "finished"
    assert runs.prune(tmp_path, yes=True) > 0
    assert runs_in(tmp_path) == [run]
    capsys.readouterr()
    assert call(argv) == 0  # and the run is still there
    assert "is finished; nothing to do" in capsys.readouterr().out
