"""The run folder: whose it is, what is left of a crash, and which state is good."""

import json
import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import mae_bench.run.writing
from mae_bench.errors import RunError
from mae_bench.run.writing import Run, open_run, run_folder

IDENTITY = {"task": "toy", "recipe": {"epochs": 3, "betas": (0.9, 0.95)}, "seed": 0, "limit": None}


def take(folder: Path, identity: dict = IDENTITY) -> Run:
    """Open a run folder and let go of it."""
    with open_run(folder, identity) as opened:
        return opened


@pytest.fixture
def run(tmp_path) -> Run:
    return take(tmp_path / "run")


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def save(run: Run, *steps: int) -> None:
    for step in steps:
        run.save_state(step, {"weight": torch.full((1000,), float(step))})


def test_a_new_folder_says_what_it_is(run):
    assert json.loads((run.folder / "run.json").read_text()) == {
        "task": "toy",
        "recipe": {"epochs": 3, "betas": [0.9, 0.95]},
        "seed": 0,
        "limit": None,
    }
    assert run.record is None
    assert run.newest_state() == (None, {})


def test_the_same_run_may_come_back(run):
    for _ in range(2):
        assert take(run.folder).folder == run.folder


OTHER = {**IDENTITY, "seed": 1, "recipe": {"epochs": 4, "betas": (0.9, 0.95)}}


@pytest.mark.parametrize("kept", ["state", "record"])
def test_another_run_is_refused_with_what_differs(run, kept):
    if kept == "state":
        save(run, 1)
    else:
        (run.folder / "record.json").write_text("{}")
    refused = r"holds a different run \(epochs 3 there, 4 here; seed 0 there, 1 here\); choose"
    with pytest.raises(RunError, match=refused):
        take(run.folder, OTHER)
    take(run.folder)


def test_a_run_that_never_saved_is_not_in_the_way(run):
    """It failed early: on a flag that is now put right, for example."""
    run.log_file.write_text('{"step": 1}\n')
    take(run.folder, OTHER)
    assert json.loads((run.folder / "run.json").read_text())["seed"] == 1


def test_a_second_process_is_refused(run, monkeypatch):
    monkeypatch.setattr(mae_bench.run.writing, "LOCK_SECONDS", 0.05)
    busy = "another process is working in it; wait for it or choose"
    with FileLock(run.folder / ".lock"), pytest.raises(RunError, match=busy):
        take(run.folder)
    take(run.folder)


def test_what_follows_from_the_data_was_not_always_told(run):
    """A run of before goes on."""
    save(run, 1)
    before = {**IDENTITY, "data": {"fingerprint": "ab"}}
    (run.folder / "run.json").write_text(json.dumps(before))
    now = {**IDENTITY, "data": {"fingerprint": "ab", "own": True}}
    with open_run(run.folder, now) as opened:
        assert opened.folder == run.folder


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\xff", '{"task": "toy"'])
def test_a_damaged_run_file_is_refused(run, content):
    save(run, 1)
    (run.folder / "model.safetensors").touch()
    (run.folder / "run.json").write_bytes(content.encode("latin-1"))
    said = (
        r"run\.json: damaged, and .* whose model\.safetensors, state beside it are; choose another"
    )
    with pytest.raises(RunError, match=said):
        take(run.folder)


def test_a_damaged_run_file_beside_nothing_is_written_again(run, capsys):
    (run.folder / "run.json").write_text('{"task": "toy"')
    take(run.folder)
    assert json.loads((run.folder / "run.json").read_text()) == json.loads(json.dumps(IDENTITY))
    assert "run.json: damaged; nothing was saved yet" in capsys.readouterr().out


def test_an_edited_run_file_is_another_run(run):
    save(run, 1)
    (run.folder / "run.json").write_text(json.dumps({"recipe": 3, "task": {"deep": [1]}}))
    with pytest.raises(
        RunError, match=r"a different run \(recipe 3 there, .*; task {'deep': \[1\]}"
    ):
        take(run.folder)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.partial").write_text("years of work")
    with pytest.raises(RunError, match=r"not empty and no run of ours \(chapter.partial\)"):
        take(tmp_path / "thesis")
    assert names(tmp_path / "thesis") == ["chapter.partial"]


@pytest.mark.parametrize("below", ["", "name", "deep/name"])
def test_a_file_where_a_folder_should_be(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file is a file; choose another --out or --name"):
        take(tmp_path / "file" / below)


def test_a_folder_whose_making_was_killed_is_free(tmp_path):
    (tmp_path / "run").mkdir()
    for name in (".lock", ".run.json.partial"):
        (tmp_path / "run" / name).write_text("")
    take(tmp_path / "run")
    assert names(tmp_path / "run") == [".lock", "run.json"]


def test_what_a_killed_process_left_half_written_is_cleared_away(run):
    save(run, 7)
    for name in ("backbone.partial", ".record.json.17.partial", "state/.step-00000008.pt.partial"):
        (run.folder / name).write_text("half")
    take(run.folder)
    assert names(run.folder) == [".lock", "run.json", "state"]
    assert names(run.states) == ["step-00000007.pt"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", "two\nlines", "\x1b[31m", "\udcff", "nul\0"]
)
def test_a_name_is_that_of_one_folder(tmp_path, name):
    with pytest.raises(RunError, match="expected the name of one folder") as caught:
        run_folder(tmp_path, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "features",
        ".hidden",
        "...",
        " a",
        "a ",
        "x.zip",
        "report.md",
        "x.HTML",
        "a" * 300,
        "ü" * 120,
    ],
)
def test_a_name_is_not_one_of_ours(tmp_path, name):
    """The cache that may be deleted, what folders_with passes over, files that lie beside runs."""
    with pytest.raises(RunError, match="choose another --name"):
        run_folder(tmp_path, name)


@pytest.mark.parametrize("name", ["a b", "ümlaut-模型", "[red]", "-x", "a:b"])
def test_odd_names_are_fine(tmp_path, name):
    opened = take(run_folder(tmp_path, name))
    save(opened, 1)
    assert opened.newest_state()[0] == tmp_path / name / "state/step-00000001.pt"


def test_the_newest_two_states_are_kept(run):
    save(run, 9, 10, 11, 100)
    assert [file.name for file in run.state_files()] == ["step-00000011.pt", "step-00000100.pt"]
    file, state = run.newest_state()
    assert file == run.states / "step-00000100.pt"
    assert state["step"] == 100
    assert torch.equal(state["weight"], torch.full((1000,), 100.0))


def truncate(file):
    file.write_bytes(file.read_bytes()[:-100])


def flip_bits(file):
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(255 - byte for byte in content[middle : middle + 8])
    file.write_bytes(content)


def empty(file):
    file.write_bytes(b"")


def write_rubbish(file):
    file.write_bytes(b"not a state\n" * 50)


@pytest.mark.parametrize("damage", [truncate, flip_bits, empty, write_rubbish])
def test_a_damaged_state_is_named_and_the_one_before_it_taken(run, capsys, damage):
    save(run, 1, 2)
    damage(run.states / "step-00000002.pt")
    file, state = run.newest_state()
    assert file == run.states / "step-00000001.pt"
    assert state["step"] == 1
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert "step-00000002.pt is damaged (" in said[0]
    assert said[0].endswith("; going on from step-00000001.pt")
    assert run.state_files() == [file], "it would count as one of the two to keep"


def test_training_does_not_start_anew_when_all_states_are_damaged(run):
    save(run, 1, 2)
    for file in run.state_files():
        empty(file)
    with pytest.raises(RunError, match=r"step-00000002.pt is damaged .* so is every saved state"):
        run.newest_state()
    assert len(run.state_files()) == 2


def test_a_damaged_record_is_named(run):
    for content in (b"", b"{}", b"\xff\xfe", b'{"schema_version": 99}'):
        (run.folder / "record.json").write_bytes(content)
        with pytest.raises(RunError, match=r"record\.json: damaged \(.*\); delete it") as caught:
            _ = run.record
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b'{"name": "ru', b"\0" * 99])
def test_a_record_that_breaks_off_is_put_aside(tmp_path, capsys, content):
    """The same command then makes it again, also where a suite gives it."""
    folder = tmp_path / "run"
    with open_run(folder, IDENTITY):
        (folder / "record.json").write_bytes(content)
    with open_run(folder, IDENTITY) as run:
        assert run.record is None
    assert (folder / "record.json.torn").read_bytes() == content
    assert "record.json: damaged; it is record.json.torn now" in " ".join(
        capsys.readouterr().out.split()
    )


def log_lines(*steps: int) -> list[str]:
    return [json.dumps({"step": step, "loss": 0.5}) for step in steps]


def test_the_log_is_cut_at_the_step_and_at_what_a_crash_left(run, capsys):
    lines = log_lines(1, 2, 3, 4, 5)
    for tail in ("", '{"step": 6, "lo', "\0\0\0\n", "\xff\n", "7\n", '{"no": 1}\n', "[" * 99999):
        text = "".join(f"{line}\n" for line in lines) + tail
        run.log_file.write_bytes(text.encode("latin-1"))
        run.cut_log(5)
        assert run.log_file.read_text().splitlines() == lines
        run.cut_log(3)
        assert run.log_file.read_text().splitlines() == lines[:3]
    run.cut_log(0)
    assert run.log_file.read_text() == ""
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("left", "kept", "said"),
    [
        ([*log_lines(1, 2), "\0\0", *log_lines(4, 5, 6)], [1, 2, 4, 5], "1 of 5 lines are lost"),
        ([*log_lines(1), '{"step": 2', *log_lines(3, 3, 2, 5)], [1, 3, 5], "2 of 5 lines are lost"),
        (
            log_lines(3, 4, 5),
            [3, 4, 5],
            "2 of 5 lines are lost, the first of step 1, the last of step 2",
        ),
        ([], [], "5 of 5 lines are lost"),
        (None, [], "5 of 5 lines are lost, the first of step 1, the last of step 5; the training"),
    ],
)
def test_a_damaged_log_is_said_and_the_rest_of_it_kept(run, capsys, left, kept, said):
    if left is not None:
        run.log_file.write_text("".join(f"{line}\n" for line in left))
    run.cut_log(5)
    told = capsys.readouterr().out.replace("\n", "")
    assert f"{run.log_file}: damaged; {said}" in told
    there = [json.loads(line)["step"] for line in run.log_file.read_text().splitlines()]
    assert there == kept


@pytest.mark.parametrize("name", ["run.json", "record.json", "log.jsonl", "state/step-00000002.pt"])
def test_what_is_no_file_is_named(run, name):
    """A named pipe would wait for somebody to write into it."""
    save(run, 1)
    (run.folder / name).unlink(missing_ok=True)
    os.mkfifo(run.folder / name)
    with pytest.raises(OSError, match="is a named pipe, not a regular file") as caught:
        take(run.folder)
        _ = run.record
        run.newest_state()
        run.cut_log(1)
    assert caught.value.filename == str(run.folder / name)


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def acquire(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with pytest.raises(RunError, match="its file system has no locks"):
        take(tmp_path / "run")
