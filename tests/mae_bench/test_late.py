"""A step's numbers may be read a step later, as on a GPU, and nothing else differs."""

import pytest
import torch
from small_runs import log_of
from test_signals import Counting, Signalling
from test_train import BrokenSamples, Diverging, Noisy
from toy import Samples, Toy, toy_recipe, train

from mae_bench import late
from mae_bench.errors import Interrupted, RunError
from tasks.errors import TaskError


@pytest.fixture(params=[0, 1, 2])
def lag(request, monkeypatch) -> int:
    monkeypatch.setitem(late.LAG, "cpu", request.param)
    return request.param


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("at_once")
    recipe = toy_recipe(device_batch=4, ema_decay=0.5, clip_grad=0.5)
    return train(Noisy(recipe), folder / "run")[0], log_of(folder / "run")


@pytest.mark.parametrize("save_minutes", [0, 10])
def test_log_and_weights_are_the_same(at_once, tmp_path, lag, save_minutes):
    recipe = toy_recipe(device_batch=4, ema_decay=0.5, clip_grad=0.5)
    fitted, run = train(Noisy(recipe), tmp_path / "run", save_minutes=save_minutes)
    assert torch.equal(fitted.model.head.weight, at_once[0].model.head.weight)
    assert fitted.last_loss == at_once[0].last_loss
    assert log_of(run.folder) == at_once[1]


@pytest.mark.parametrize("save_minutes", [0, 10])
def test_nothing_of_a_step_without_a_finite_loss_is_kept(tmp_path, lag, save_minutes):
    """Whatever was computed after it before its loss was read."""
    data = Samples()
    with pytest.raises(RunError) as caught:
        train(
            Diverging(toy_recipe(device_batch=4), data), tmp_path / "run",
            save_minutes=save_minutes,
        )  # fmt: skip
    (keys,) = (keys for keys in data.asked[:8] if (0, 13) in keys)
    step = data.asked.index(keys) // 2 + 1
    assert f"loss is not finite at step {step} of 12 (lr " in str(caught.value)
    names = (tmp_path / "run/not_finite.txt").read_text().splitlines()
    assert names == sorted(f"sample {index}" for _, index in keys)
    assert len(log_of(tmp_path / "run")) < step
    for file in tmp_path.rglob("step-*.pt"):
        assert int(file.stem.removeprefix("step-")) < step
        assert torch.load(file)["model"]["head.weight"].isfinite().all()


class Choking(Toy):
    """Not finite from the start, and an error where weights are not."""

    def forward(self, batch):
        if not self.head.weight.isfinite().all():
            raise ValueError("NaN is no index")
        return {"loss": super().forward(batch)["loss"] * float("inf")}


def test_an_error_that_comes_of_it_does_not_hide_it(tmp_path, lag):
    with pytest.raises(RunError, match="loss is not finite at step 1 of 12"):
        train(Choking(toy_recipe(warmup_epochs=0.0)), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_a_step_that_is_cut_short(tmp_path, lag):
    recipe = toy_recipe(device_batch=2, ema_decay=0.9)
    with pytest.raises(Interrupted, match=r"by SIGTERM after step [567] of 12") as caught:
        train(Counting(recipe, Signalling()), tmp_path / "run")
    assert caught.value.exit_code == 143
    steps = len(log_of(tmp_path / "run"))
    assert f"after step {steps} of" in str(caught.value)
    ours, _ = train(Counting(recipe), tmp_path / "run")
    theirs, _ = train(Counting(recipe), tmp_path / "whole")
    for key, value in theirs.model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[key], value), key
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")
    assert ours.last_loss == theirs.last_loss


def test_unreadable_images_stop_the_run(tmp_path, lag):
    data = BrokenSamples()
    with pytest.raises(TaskError, match="3 image files are unreadable, more than the limit of 2"):
        train(Toy(toy_recipe(), data), tmp_path / "run", max_bad_images=2)
    assert 6 <= len(log_of(tmp_path / "run")) < 9
