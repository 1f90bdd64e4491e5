"""A first signal is obeyed in order, wherever it comes; a second one at once."""

import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import torch
from small_runs import SMALL, SMALL_MAE, assert_same_bits, flags, steps_logged, wait_for
from toy import Samples, Toy, toy_recipe, train

import mae_bench
from mae_bench.cli import call
from mae_bench.errors import Interrupted
from mae_bench.execution import Execution
from mae_bench.run.files import BACKBONE_FILE, MAE_FILE
from mae_bench.signals import ONE
from tasks.images import UnlabelledImages

LONG = {**SMALL_MAE, "epochs": 10}
"""thirty steps of two micro-batches"""


@pytest.fixture(scope="module")
def command(world) -> list[str]:
    options = flags(data=world / "unlabelled", name="run", save_minutes=10, **LONG)
    return ["pretrain", *options, "--out"]


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    mae_bench.pretrain(
        data=world / "unlabelled", out=out, name="run", execution=Execution(workers=0), **LONG
    )
    return out / "run"


@pytest.fixture
def said_to_hang(tmp_path, monkeypatch) -> Path:
    """A file that appears once something hangs."""
    monkeypatch.setenv("HANGING", str(tmp_path / "hanging"))
    return tmp_path / "hanging"


def hang(*_, **__):
    """As a file on a server that is gone."""
    Path(os.environ["HANGING"]).touch()
    while True:
        time.sleep(600)


def hang_in_micro_batch(number: int) -> None:
    load, calls = UnlabelledImages.__getitems__, []

    def loaded(self, keys):
        calls.append(keys)
        return load(self, keys) if len(calls) < number else hang()

    UnlabelledImages.__getitems__ = loaded  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGTERM, 0), (signal.SIGINT, 1), (signal.SIGHUP, 1)]
)
def test_one_signal_ends_the_wait_for_images(
    command, undisturbed, tmp_path, fork, said_to_hang, number, workers
):
    """In the middle of the fifth step: what was trained before is saved."""
    run, argv = tmp_path / "run", [*command, str(tmp_path), "--workers", str(workers)]
    process = fork(argv, lambda: hang_in_micro_batch(10))
    wait_for(lambda: said_to_hang.exists() and steps_logged(run) == 4, "four steps, and no more")
    process.kill(number)
    assert process.exit_code() == 128 + number
    name = signal.Signals(number).name
    assert (
        f"stopped by {name} after step 4 of 30; state saved in" in process.said().splitlines()[-1]
    )
    assert "Traceback" not in process.said()
    assert (run / "state/step-00000004.pt").exists()
    assert call([*command, str(tmp_path), "--workers", "0"]) == 0
    assert_same_bits(run, undisturbed, BACKBONE_FILE)
    assert_same_bits(run, undisturbed, MAE_FILE)


def test_a_signal_before_the_first_step(command, tmp_path, fork, said_to_hang):
    """There is nothing to save, and nothing that the next start could stumble over."""
    process = fork([*command, str(tmp_path), "--workers", "0"], lambda: hang_in_micro_batch(1))
    wait_for(said_to_hang.exists, "images that hang")
    process.kill(signal.SIGTERM)
    assert process.exit_code() == 143
    assert "after step 0 of 30; the same command begins again" in process.said().splitlines()[-1]
    assert not list((tmp_path / "run/state").glob("*"))


class Counting(Toy):
    """Its forward pass changes a buffer, as batch norm does, and the loss depends on it."""

    def __init__(self, *given) -> None:
        super().__init__(*given)
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def forward(self, batch):
        self.seen.add_(batch["x"].sum())
        return {"loss": super().forward(batch)["loss"] * (1 + self.seen.sigmoid())}


class Signalling(Samples):
    """Gives its process a signal before the last micro-batch of the sixth step."""

    def __getitems__(self, keys):
        if len(self.asked) == 6 * 4 - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__getitems__(keys)


def test_a_step_that_is_cut_short_leaves_no_trace(tmp_path):
    """Nor in what its first micro-batches have changed without the optimiser."""
    recipe = toy_recipe(device_batch=2, ema_decay=0.9)
    with pytest.raises(Interrupted, match="by SIGTERM after step 5 of 12") as caught:
        train(Counting(recipe, Signalling()), tmp_path / "run")
    assert caught.value.exit_code == 143
    ours, _ = train(Counting(recipe), tmp_path / "run")
    theirs, _ = train(Counting(recipe), tmp_path / "whole")
    for key, value in theirs.model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[key], value), key
    assert ours.last_loss == theirs.last_loss


def hang_in_forward() -> None:
    from mae_bench.pretraining.masked import MaskedPretraining

    MaskedPretraining.forward = hang  # type: ignore[method-assign]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_second_signal_is_obeyed_at_once(command, tmp_path, fork, said_to_hang, number):
    """Whatever hangs. The first one may come twice: launchers pass on what a terminal sends."""
    process = fork([*command, str(tmp_path), "--workers", "1"], hang_in_forward)
    wait_for(said_to_hang.exists, "a forward pass that hangs")
    (loader,) = process.loaders()
    process.kill(signal.SIGTERM)
    process.kill(number)
    time.sleep(ONE + 0.3)
    process.kill(number)
    assert process.exit_code() == 128 + number
    assert "ended at once by a second signal" in process.said()
    wait_for(lambda: not Path(f"/proc/{loader}").exists(), "the end of the loading process")
    assert call([*command, str(tmp_path), "--epochs", "1", "--name", "other"]) == 0


def test_nohup(command, tmp_path, fork):
    """Whoever started us wants work to go on after the terminal is lost."""
    process = fork(
        [*command, str(tmp_path), "--workers", "1"],
        lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    wait_for(lambda: steps_logged(tmp_path / "run") >= 2, "two steps")
    process.kill(signal.SIGHUP, group=True)
    assert process.exit_code() == 0
    assert steps_logged(tmp_path / "run") == 30


def hang_in(module: str, name: str) -> None:
    setattr(import_module(module), name, hang)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize(
    ("protocol", "module", "name"),
    [
        ("scratch", "tasks.classification.accuracy", "answers"),
        ("knn", "tasks.classification.features", "pooled"),
    ],
)
def test_a_signal_while_scoring(
    world, pretrained, tmp_path, fork, said_to_hang, number, protocol, module, name
):
    """One line, and the same command goes on: what was trained is not trained again."""
    import_module(module)  # which is forked with this process
    argv = ["transfer", *flags(protocol=protocol, data=world / "imagenet1k", out=tmp_path)]
    argv += flags(name="run", workers=0)
    if protocol == "scratch":
        argv += flags(**SMALL)
    else:
        argv += flags(checkpoint=pretrained / BACKBONE_FILE, headline_neighbours=5)
        argv += ["--neighbours", "5"]
    process = fork(argv, lambda: hang_in(module, name))
    wait_for(said_to_hang.exists, "scoring")
    log = steps_logged(tmp_path / "run")
    process.kill(number)
    assert process.exit_code() == 128 + number
    last = process.said().splitlines()[-1]
    assert last.startswith("mae-bench: stopped")
    assert "Traceback" not in process.said()
    assert not list(tmp_path.rglob("*.partial"))
    assert not (tmp_path / "run/record.json").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["mae_bench.train"], "step_gradients", None)
        assert call(argv) == 0
    assert steps_logged(tmp_path / "run") == log


def test_a_cluster_that_warns_and_then_ends_the_job_does_not_press(
    command, undisturbed, tmp_path, fork, said_to_hang
):
    """SIGUSR1, and later SIGTERM and SIGUSR2, while the first of two micro-batches takes long."""

    def slow() -> None:
        from mae_bench.pretraining.masked import MaskedPretraining

        forward = MaskedPretraining.forward

        def late(self, batch):
            if steps_logged(tmp_path / "run") == 3 and not said_to_hang.exists():
                said_to_hang.touch()
                time.sleep(3 * ONE)
            return forward(self, batch)

        MaskedPretraining.forward = late  # type: ignore[method-assign]

    process = fork([*command, str(tmp_path), "--workers", "1"], slow)
    wait_for(said_to_hang.exists, "the fourth step")
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR2):
        process.kill(number, group=True)
        time.sleep(0.6 * ONE)
    assert process.exit_code() == 128 + signal.SIGUSR1
    last = process.said().splitlines()[-1]
    assert "stopped by SIGUSR1 after step 3 of 30; state saved in" in last
    assert "Traceback" not in process.said()
    assert call([*command, str(tmp_path), "--workers", "0"]) == 0
    assert_same_bits(tmp_path / "run", undisturbed, BACKBONE_FILE)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
)
def test_a_signal_to_any_other_command(tmp_path, fork, said_to_hang, number):
    process = fork(["doctor"], lambda: hang_in("mae_bench.doctor", "examine"))
    wait_for(said_to_hang.exists, "a command that works")
    process.kill(number)
    assert process.exit_code() == 128 + number
    assert process.said().startswith("mae-bench: stopped")
    assert process.said().count("\n") == 1


def test_handlers_and_the_exit_code_belong_to_the_caller(tmp_path):
    """After a command all is as before, in a script that calls several."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    assert call(["data", "list"]) == 0
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1
