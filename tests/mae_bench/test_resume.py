"""Runs that are killed, stopped or broken off, and end as if nothing had happened."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_runs import SMALL, SMALL_MAE, assert_same_bits, flags, log_of, steps_logged, wait_for
from toy import Samples, Toy, toy_recipe, train

import mae_bench
import mae_bench.run.writing
from mae_bench.cli import call
from mae_bench.errors import Interrupted
from mae_bench.execution import Execution
from mae_bench.run.files import BACKBONE_FILE, MAE_FILE
from mae_bench.transfer import MODEL_FILE

LONG = {**SMALL_MAE, "epochs": 10}
"""thirty steps: enough to be hit in the middle"""
NUM_STEPS = 30


@pytest.fixture(scope="module")
def command(world) -> list[str]:
    """A pre-training run that saves its state after every step; --out is still to come."""
    options = flags(data=world / "unlabelled", name="run", workers=0, save_minutes=0, **LONG)
    return ["pretrain", *options, "--out"]


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    mae_bench.pretrain(data=world / "unlabelled", out=out, name="run", **LONG)
    return out / "run"


def finish(command: list[str], out: Path) -> Path:
    """Give the same command again, which need not save so often; the run folder."""
    assert call([*command, str(out), "--save-minutes", "10"]) == 0
    return out / "run"


def assert_same_end(run: Path, undisturbed: Path) -> None:
    """Log, weights, and what the optimiser remembers."""
    assert_same_bits(run, undisturbed, BACKBONE_FILE)
    assert_same_bits(run, undisturbed, MAE_FILE)
    last = f"state/step-{NUM_STEPS:08d}.pt"
    ours, theirs = torch.load(run / last), torch.load(undisturbed / last)
    for key in ("step", "epoch_losses", "skipped", "model"):
        torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=0)
    assert ours["optimizer"]["param_groups"] == theirs["optimizer"]["param_groups"]
    for index, state in theirs["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(ours["optimizer"]["state"][index][name], value)
    records = [json.loads((folder / "record.json").read_text()) for folder in (run, undisturbed)]
    for key in ("metrics", "recipe_hash", "data", "seed", "deviations", "skipped_images"):
        assert records[0][key] == records[1][key]


@pytest.mark.slow
def test_killed_at_an_arbitrary_step(command, undisturbed, tmp_path):
    """The command itself; its loading processes outlive it by seconds, and are in nobody's way."""
    argv = [sys.executable, "-m", "mae_bench.cli", *command, str(tmp_path), "--workers", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL)
    after = random.randrange(2, NUM_STEPS // 2)
    wait_for(lambda: steps_logged(tmp_path / "run") >= after, f"step {after}")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    steps = steps_logged(tmp_path / "run")
    assert after <= steps < NUM_STEPS
    assert_same_end(finish(command, tmp_path), undisturbed)


def test_killed_while_saving(command, undisturbed, tmp_path, fork, monkeypatch):
    """The half of a fourth state is never taken for one, and is cleared away."""
    save, calls = torch.save, []

    def save_three(state, stream):
        calls.append(1)
        if len(calls) == 4:
            stream.write(b"PK\3\4 half")
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(state, stream)

    monkeypatch.setattr(torch, "save", save_three)
    process = fork([*command, str(tmp_path)])
    monkeypatch.undo()
    assert process.exit_code() == -signal.SIGKILL
    assert len(list((tmp_path / "run/state").glob(".*.partial"))) == 1
    assert steps_logged(tmp_path / "run") == 4
    assert_same_end(finish(command, tmp_path), undisturbed)
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_sigterm_then_ctrl_c_then_a_broken_state(command, undisturbed, tmp_path, fork, capfd):
    """Each stop saves; the third start passes over a truncated state."""
    folder = tmp_path / "run"
    for number, code, name in ((signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "SIGINT")):
        before = steps_logged(folder)
        process = fork([*command, str(tmp_path)])
        wait_for(lambda start=before: steps_logged(folder) >= start + 4, "four steps")
        process.kill(number)
        assert process.exit_code() == code
        last = process.said().splitlines()[-1]
        steps = steps_logged(folder)
        assert f"stopped by {name} after step {steps} of {NUM_STEPS}; state saved in" in last
        assert "Traceback" not in process.said()
        assert (folder / f"state/step-{steps:08d}.pt").exists()
    newest = folder / f"state/step-{steps:08d}.pt"
    newest.write_bytes(newest.read_bytes()[:5000])
    finish(command, tmp_path)
    assert f"{newest.name} is damaged" in capfd.readouterr().out.replace("\n", "")
    assert_same_end(folder, undisturbed)


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_to_the_whole_group(command, undisturbed, tmp_path, fork, number):
    """As of Ctrl-C in a terminal, torchrun, or a job's end and its warning.

    The loaders must not die of it first, nor may they live on.
    """
    process = fork([*command, str(tmp_path), "--workers", "2"])
    wait_for(lambda: steps_logged(tmp_path / "run") >= 3, "three steps")
    loaders = process.loaders()
    assert len(loaders) == 2
    process.kill(number, group=True)
    assert process.exit_code() == 128 + number
    assert "stopped by" in process.said()
    assert "Traceback" not in process.said()
    assert not [pid for pid in loaders if Path(f"/proc/{pid}").exists()]
    assert_same_end(finish(command, tmp_path), undisturbed)


def test_a_signal_in_the_last_step(tmp_path):
    """Scoring is then left for the next start, for a grace period may be short."""

    class Signalled(Toy):
        def forward(self, batch):
            if len(self.train_data.asked) == 12:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().forward(batch)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="by SIGTERM after step 12 of 12") as caught:
        train(Signalled(toy_recipe()), tmp_path / "run")
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    data = Samples()
    fitted, _ = train(Toy(toy_recipe(), data), tmp_path / "run")
    assert not data.asked
    whole, _ = train(Toy(toy_recipe()), tmp_path / "whole")
    assert torch.equal(fitted.model.head.weight, whole.model.head.weight)
    assert fitted.last_loss == whole.last_loss


def test_seconds_of_each_place_are_kept(tmp_path, monkeypatch):
    """A run that goes on elsewhere has no hours of one device."""
    loop = sys.modules["mae_bench.train"]

    class Signalled(Toy):
        def forward(self, batch):
            if len(self.train_data.asked) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().forward(batch)

    for device in ("A100", "H100", "A100"):
        monkeypatch.setattr(loop, "device_name", lambda _, name=device: name)
        with pytest.raises(Interrupted):
            train(Signalled(toy_recipe()), tmp_path / "run")
    monkeypatch.setattr(loop, "device_name", lambda _: "cpu")
    spent = train(Toy(toy_recipe()), tmp_path / "run")[0].spent
    assert [(each.device, each.processes) for each in spent.earlier] == [("A100", 1), ("H100", 1)]
    assert 0 < sum(each.seconds for each in spent.earlier) < spent.seconds
    assert train(Toy(toy_recipe()), tmp_path / "whole")[0].spent.earlier == ()


class Stop(Exception):
    """Breaks a run off."""


def test_broken_off_with_everything_random_switched_on(world, pretrained, tmp_path, monkeypatch):
    """RandAugment, mixup, cutmix, erasing, drop path, averaging, clipping, accumulation.

    Broken off in the first step that a state lies behind, inside the second epoch, in the last.
    """
    loop = sys.modules["mae_bench.train"]

    def transfer(name):
        mae_bench.transfer(
            data=world / "imagenet1k", checkpoint=pretrained / BACKBONE_FILE, out=tmp_path,
            name=name, execution=Execution(workers=0, save_minutes=0), ema_decay=0.9,
            rand_augment="rand-m9-mstd0.5-inc1", mixup=0.8, cutmix=1.0, erase_prob=0.25,
            drop_path=0.2, clip_grad=1.0, **SMALL,
        )  # fmt: skip

    transfer("whole")
    clip = loop.clip
    for step in (2, 9, 12):

        def stop_there(*arguments, last=step):
            if steps_logged(tmp_path / "run") == last - 1:
                raise Stop
            clip(*arguments)

        monkeypatch.setattr(loop, "clip", stop_there)
        with pytest.raises(Stop):
            transfer("run")
        assert steps_logged(tmp_path / "run") == step - 1
    monkeypatch.setattr(loop, "clip", clip)
    transfer("run")
    assert_same_bits(tmp_path / "run", tmp_path / "whole", MODEL_FILE)
    one, other = (
        json.loads((tmp_path / name / "record.json").read_text())["metrics"]
        for name in ("run", "whole")
    )
    assert one == other


def most_bytes_per_file(limit: int) -> None:
    """A file that grows beyond fails with an OSError, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def test_disk_full_while_a_state_is_saved(command, undisturbed, tmp_path, fork):
    """The state takes about 10 MB. The line names the file; nothing half-written stays."""
    process = fork([*command, str(tmp_path)], lambda: most_bytes_per_file(2_000_000))
    assert process.exit_code() == 2
    last = process.said().splitlines()[-1]
    assert last.startswith(f"mae-bench: error: {tmp_path}/run/state/step-00000001.pt: File too la")
    assert "Traceback" not in process.said()
    assert not list((tmp_path / "run/state").iterdir())
    assert_same_end(finish(command, tmp_path), undisturbed)


def test_disk_full_while_logging(command, undisturbed, tmp_path, fork):
    """Only the log outgrows 1700 bytes: a state is saved at the end alone."""
    rare = [*command, str(tmp_path), "--save-minutes", "10"]
    process = fork(rare, lambda: most_bytes_per_file(1700))
    assert process.exit_code() == 2
    assert "File too large; nothing that was saved is lost" in process.said().splitlines()[-1]
    assert "Traceback" not in process.said()
    assert 10 < steps_logged(tmp_path / "run") < NUM_STEPS
    assert_same_end(finish(command, tmp_path), undisturbed)


def test_disk_full_for_tensorboard(command, undisturbed, tmp_path, fork):
    """As when no inode is left. It writes in a thread, whose traceback would say no more."""

    def fill() -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        RecordWriter.write = full

    process = fork([*command, str(tmp_path)], fill)
    assert process.exit_code() == 2
    last = process.said().splitlines()[-1]
    assert last.startswith(f"mae-bench: error: {tmp_path}/run: No space left on device; nothing")
    assert "Traceback" not in process.said()
    assert_same_end(finish(command, tmp_path), undisturbed)


@pytest.mark.parametrize("what", ["keep", "write_record"])
def test_disk_full_after_the_last_step(world, tmp_path, monkeypatch, capsys, what):
    """The weights or the record cannot be written: what was trained is not trained again."""
    argv = ["pretrain", *flags(data=world / "unlabelled", out=tmp_path, name="run", workers=0)]
    argv += flags(**SMALL_MAE)
    module = sys.modules["mae_bench.pretrain"]

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, what, full)
        assert call(argv) == 2
    line = f"mae-bench: error: {tmp_path}/run: No space left on device; nothing that was saved"
    assert capsys.readouterr().err.startswith(line)
    log = log_of(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["mae_bench.train"], "step_gradients", None)
        assert call(argv) == 0
    assert log_of(tmp_path / "run") == log
    assert (tmp_path / "run/record.json").exists()


def test_the_folder_vanishes_while_it_is_in_use(command, tmp_path, fork):
    process = fork([*command, str(tmp_path)])
    wait_for(lambda: steps_logged(tmp_path / "run") >= 3, "three steps")
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    assert process.exit_code() == 2
    assert "No such file or directory" in process.said().splitlines()[-1]
    assert "Traceback" not in process.said()
