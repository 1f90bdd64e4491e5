"""Suites as jobs of a cluster: what is put in, with what, and what is found again."""

import json
import sys
from pathlib import Path

import pytest
from small_runs import SMALL, SMALL_MAE

from mae_bench.cli import call
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.suite import clustered
from mae_bench.suite.choosing import chosen_spec
from mae_bench.suite.clustered import Clustered
from mae_bench.suite.expansion import expand
from mae_bench.suite.job import RunJob
from mae_bench.suite.queue import SlurmQueue
from mae_bench.suite.running import carry_out
from mae_bench.suite.slurm import Slurm, minutes

ALONE = Execution(workers=0, device="cpu", save_minutes=0)


@pytest.fixture
def wanted(world):
    """A suite of a pre-training and two transfers, one of them from its weights."""

    def make(**more):
        given = {"pretrain": ["mae"], "init": ["scratch"], "tasks": ["imagenet1k"]}
        given |= {"overrides": SMALL, "pretrain_overrides": SMALL_MAE, "data_root": str(world)}
        spec, _ = chosen_spec(None, **given | more)
        return spec, expand(spec).runs

    return make


class Noted:
    """A cluster that does nothing but remember; `states` is what it answers."""

    keeps_order = True

    def __init__(self) -> None:
        self.jobs: list[RunJob] = []
        self.after: dict[str, tuple[str, ...]] = {}
        self.known: dict[str, str] = {}
        self.out: list[str] = []
        self.refuses = ""

    def put(self, jobs, name, after):
        if self.refuses and any(self.refuses in each.folder for each in jobs):
            raise RunError("sbatch: error: Invalid qos specification")
        ids = [str(100 + len(self.jobs) + n) for n in range(len(jobs))]
        self.jobs += jobs
        self.after |= dict.fromkeys(ids, tuple(after))
        self.known |= dict.fromkeys(ids, "PENDING")
        return ids

    def states(self):
        return dict(self.known)

    def take_out(self, job):
        self.out.append(job)
        self.known[job] = "CANCELLED"


def put_in(runs, out, queue):
    doing = Clustered(runs, out, ALONE, queue, detach=True)
    doing.all()
    return doing


def test_a_job_per_run_that_waits_for_what_it_needs(wanted, tmp_path):
    _, runs = wanted(seeds=2)
    queue = Noted()
    doing = put_in(runs, tmp_path, queue)
    assert len(queue.jobs) == len(runs) == 6
    ids = {run: doing.jobs[run] for run in runs}
    for run in runs:
        assert queue.after[ids[run]] == tuple(ids[each] for each in run.before)
    by_command = [each.words[0] for each in queue.jobs]
    assert by_command.count("pretrain") == 2
    assert set(doing.board.states()) == {"queued"}


def test_the_same_command_puts_nothing_in_twice(wanted, tmp_path, capsys):
    _, runs = wanted()
    queue = Noted()
    put_in(runs, tmp_path, queue)
    queue.known = dict.fromkeys(queue.known, "RUNNING")
    again = put_in(runs, tmp_path, queue)
    assert len(queue.jobs) == 3
    assert sorted(again.jobs.values()) == sorted(queue.known)
    assert "put in before" in capsys.readouterr().out


def test_a_job_that_failed_is_put_in_anew_with_all_that_waits_for_it(wanted, tmp_path):
    _, runs = wanted()
    queue = Noted()
    first = put_in(runs, tmp_path, queue)
    before = next(run for run in runs if run.command == "pretrain")
    after = next(run for run in runs if run.needs == before)
    queue.known[first.jobs[before]] = "FAILED"
    again = put_in(runs, tmp_path, queue)
    assert queue.out == [first.jobs[after]], "it would wait for ever"
    assert queue.after[again.jobs[after]] == (again.jobs[before],)
    assert len(queue.jobs) == 5, "the third is under way all the same"


def test_a_command_that_was_killed_before_it_noted_a_job_is_told_by_that_job(wanted, tmp_path):
    """It puts another one in; the first, whose number nobody knows, does no work."""
    _, runs = wanted()
    queue = Noted()
    put_in(runs, tmp_path, queue)
    lost = queue.jobs[0]
    entry = Path(lost.entry)
    entry.write_text(json.dumps({"ticket": lost.ticket}))
    lost.refuse()
    put_in(runs, tmp_path, queue)
    with pytest.raises(RunError, match="this run belongs to another job by now"):
        lost.refuse()


def test_what_a_cluster_refuses_is_one_line(wanted, tmp_path):
    spec, runs = wanted()
    queue = Noted()
    queue.refuses = "pretrain-"
    with pytest.raises(RunError, match=r"3 of 3 runs failed.*Invalid qos specification") as error:
        carry_out(runs, spec, tmp_path, ALONE, queue=queue, detach=True)
    assert "\n" not in str(error.value)


def test_two_commands_at_once(wanted, tmp_path):
    _, runs = wanted()
    with Clustered(runs, tmp_path, ALONE, Noted()).alone():
        with pytest.raises(RunError, match="another process puts jobs in for these runs"):
            put_in(runs, tmp_path, Noted())


def test_a_job_that_ends_without_a_result(wanted, tmp_path, monkeypatch):
    """Its line tells the cluster's word, the last of this start, and where all of it is."""
    monkeypatch.setattr(clustered, "LOOK", 0.0)
    monkeypatch.setattr(clustered, "ASK", 0.0)
    monkeypatch.setattr(clustered, "LATE", 0.0)
    _, runs = wanted()
    queue = Noted()
    doing = Clustered(runs, tmp_path, ALONE, queue)
    with doing.alone():
        doing.begin()
    monkeypatch.setattr(queue, "states", lambda: dict.fromkeys(queue.known, "TIMEOUT"))
    said = Path(queue.jobs[0].said)
    said.write_text(
        "--- job 1 on a\nmae-bench: stopped by SIGTERM\n--- job 100 on b\nloss 3\n"
        "mae-bench: error: out of memory\nmae-bench: error: exit code 2\n"
    )
    doing.all()
    rows = {row.run.name: row for row in doing.board.rows.values()}
    row = rows[Path(queue.jobs[0].folder).name]
    assert row.state == "failed"
    assert row.said.startswith("job 100 has ended (TIMEOUT): error: out of memory (all of it in ")
    (waited,) = (row for row in rows.values() if row.run.needs)
    assert waited.said == f"needs {waited.run.needs.name}, which failed"
    assert not doing.jobs


SBATCH = """#!/usr/bin/env python3
import pathlib, sys
here = pathlib.Path(__file__).parent
text = pathlib.Path(sys.argv[1]).read_text()
if "partition=nowhere" in text:
    sys.exit("sbatch: error: invalid partition specified: nowhere\\n"
             "sbatch: error: Batch job submission failed: Invalid partition name specified")
number = 41 + len(list(here.glob("script-*")))
(here / f"script-{number}").write_text(text)
print(f"Submitted batch job {number}")
"""
SQUEUE = """#!/bin/sh
cat "$(dirname "$0")/answer" 2>/dev/null || true
"""


@pytest.fixture
def commands(tmp_path, monkeypatch) -> Path:
    """A folder of commands that answer as Slurm's do, and do nothing."""
    place = tmp_path / "bin"
    place.mkdir()
    for name, text in {"sbatch": SBATCH, "squeue": SQUEUE, "srun": SQUEUE}.items():
        (place / name).write_text(text.replace("/usr/bin/env python3", sys.executable))
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=":")
    return place


def words(world: Path, out: Path, *more: str) -> list[str]:
    given = ["--pretrain", "mae", "--init", "scratch", "--tasks", "imagenet1k", "--seeds", "2"]
    given += ["--data-root", str(world), "--out", str(out), "--workers", "5"]
    return ["suite", *given, "--launcher", "slurm", "--detach", *more]


def test_what_slurm_is_asked_for(world, tmp_path, commands, capsys):
    asked = ["--time", "1-12", "--partition", "gpu", "--nodes", "2", "--gpus-per-node", "4"]
    asked += ["--account", "vision", "--qos", "high", "--jobs", "1", "--setup", "module load cuda"]
    asked += ["--sbatch", "mem=64G", "cpus-per-task=12", "signal=USR2@600"]
    assert call(words(world, tmp_path / "runs", *asked)) == 0
    first, then = (set((commands / f"script-{n}").read_text().splitlines()) for n in (41, 42))
    same = {
        "#SBATCH --partition=gpu", "#SBATCH --time=2160", "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=4", "#SBATCH --gpus-per-node=4", "#SBATCH --account=vision",
        "#SBATCH --qos=high", "#SBATCH --mem=64G", "#SBATCH --cpus-per-task=12",
        "#SBATCH --signal=USR2@600", "#SBATCH --requeue", "#SBATCH --open-mode=append",
        "module load cuda",
    }  # fmt: skip
    assert same <= first
    assert same <= then
    assert "#SBATCH --array=0-3%1" in first, "two pre-trainings and two from random weights"
    assert not [line for line in first if "dependency" in line]
    assert "#SBATCH --dependency=afterok:41_2" in then
    assert "#SBATCH --kill-on-invalid-dep=yes" in then
    assert not [line for line in then if "--array" in line]
    assert "--dependency=afterok:41_3" in (commands / "script-43").read_text()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("next       mae-bench suite ")
    assert "--launcher slurm" in last
    assert "--detach" not in last
    assert "--sbatch mem=64G cpus-per-task=12 signal=USR2@600" in last


def test_what_slurm_refuses_and_how_it_answers(world, tmp_path, commands, capsys):
    argv = words(world, tmp_path / "runs", "--time", "60", "--partition", "nowhere")
    assert call(argv) == 2
    said = capsys.readouterr()
    assert "Batch job submission failed: Invalid partition name specified" in said.err
    assert "Traceback" not in said.err
    (commands / "answer").write_text("7_0|RUNNING\n7_1|PENDING\n8|COMPLETED\n")
    queue = SlurmQueue(Slurm(time="60"), tmp_path / "jobs", None, 2)
    assert queue.states() == {"7_0": "RUNNING", "7_1": "PENDING", "8": "COMPLETED"}
    (commands / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert queue.states() is None
    assert call(argv) == 2
    assert "squeue does not answer; the same command tries again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "--launcher slurm needs --time, for example 24:00:00"),
        (["--time", "a day"], "--time a day: expected 24:00:00, 2-12 (days and hours) or minutes"),
        (["--time", "2"], "--time 2: expected more than 3 minutes, to save in"),
        (["--nodes", "0"], "nodes is 0; expected a whole number, 1 or more"),
        (["--sbatch", "exclusive"], "--sbatch exclusive: expected NAME=VALUE"),
        (["--launcher", "local", "--qos", "a"], "--qos, --detach: for --launcher slurm alone"),
    ],
)
def test_what_is_asked_wrongly(world, tmp_path, commands, capsys, more, said):
    assert call(words(world, tmp_path / "runs", *more)) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_where_there_is_no_submitit_and_where_no_slurm(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    argv = words(world, tmp_path / "runs", "--time", "60")
    assert call(argv) == 2
    assert "--launcher slurm: there is no sbatch here; give the command" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert call(argv) == 2
    assert "pip install 'mae-bench[slurm]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("time", "expected"),
    [("90", 90), ("90:30", 91), ("24:00:00", 1440), ("2-12", 3600), ("1-0:30", 1470),
     ("0-01:00:01", 61)],
)  # fmt: skip
def test_times_are_slurms(time, expected):
    """Its manual: minutes, minutes:seconds, hours:minutes:seconds, days-hours and so on."""
    assert minutes(time) == expected
