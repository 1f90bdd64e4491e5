"""What the loop computes, logs and refuses, mostly on a regression that can be done by hand."""

import copy
import threading
import time

import pytest
import torch
from small_runs import SMALL, SMALL_MAE, assert_same_bits, log_of
from test_optim import reference_lr
from torch import nn
from toy import Samples, Toy, toy_recipe, train

import mae_bench
from backbones.vit import Block
from mae_bench.batches import MicroBatches
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.provenance import bf16_of_cpu
from tasks.errors import TaskError
from tasks.images import Unreadable


def by_hand(recipe, steps_per_epoch=3):
    """The same training in plain PyTorch: model, averaged model, losses, learning rates."""
    task = Toy(recipe)
    averaged = copy.deepcopy(task)
    groups = [
        {"params": [task.head.weight], "weight_decay": recipe.weight_decay},
        {"params": [task.head.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas)
    order = MicroBatches(len(task.train_data), recipe, seed=0, rank=0, world=1)
    losses, rates = [], []
    for step, keys in enumerate(order):
        rate = reference_lr(
            step * 7 / steps_per_epoch, recipe.lr, recipe.min_lr, recipe.epochs,
            recipe.warmup_epochs,
        )  # fmt: skip
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = task(task.train_data.__getitems__(keys))["loss"]
        optimizer.zero_grad()
        loss.backward()
        if recipe.clip_grad:
            torch.nn.utils.clip_grad_norm_(task.parameters(), recipe.clip_grad)
        optimizer.step()
        losses.append(loss.item())
        rates.append(rate)
        with torch.no_grad():
            for slow, fast in zip(averaged.parameters(), task.parameters(), strict=True):
                decay = recipe.ema_decay or 0.0
                slow.copy_(decay * slow + (1 - decay) * fast)
    return task, averaged, losses, rates


def assert_same(model, other) -> None:
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("changes", [{}, {"clip_grad": 0.1}, {"ema_decay": 0.7}])
def test_the_loop_is_plain_training(tmp_path, changes):
    recipe = toy_recipe(**changes)
    fitted, run = train(Toy(recipe), tmp_path / "run")
    model, averaged, losses, rates = by_hand(recipe)
    assert_same(fitted.model, averaged if recipe.ema_decay else model)
    log = log_of(run.folder)
    assert [line["step"] for line in log] == list(range(1, 13))
    assert [line["epoch"] for line in log[:4]] == [0.3333, 0.6667, 1.0, 1.3333]
    assert [line["loss"] for line in log] == pytest.approx(losses, rel=1e-10)
    assert [line["lr"] for line in log] == pytest.approx(rates, rel=1e-10)
    assert fitted.last_loss == pytest.approx(sum(losses[-3:]) / 3, rel=1e-10)


@pytest.mark.parametrize("device_batch", [4, 2, 1])
def test_accumulation_is_the_whole_batch(tmp_path, device_batch):
    whole, _ = train(Toy(toy_recipe()), tmp_path / "whole")
    parts, run = train(Toy(toy_recipe(device_batch=device_batch)), tmp_path / "parts")
    assert_same(parts.model, whole.model)
    losses = [line["loss"] for line in log_of(tmp_path / "whole")]
    assert [line["loss"] for line in log_of(run.folder)] == pytest.approx(losses, rel=1e-10)


def test_another_seed_is_another_run(tmp_path):
    one, _ = train(Toy(toy_recipe()), tmp_path / "one", seed=0)
    other, _ = train(Toy(toy_recipe()), tmp_path / "other", seed=1)
    assert not torch.equal(one.model.head.weight, other.model.head.weight)


class Noisy(Toy):
    """Draws from torch's generator, as masks and drop path do."""

    def forward(self, batch):
        noise = torch.randn(batch["y"].shape, dtype=torch.float64)
        return super().forward({**batch, "y": batch["y"] + noise})


def test_what_a_forward_pass_draws_depends_on_seed_step_and_micro_batch(tmp_path):
    recipe = toy_recipe(device_batch=4)
    train(Noisy(recipe), tmp_path / "one")
    torch.rand(17)  # whatever happened before
    train(Noisy(recipe), tmp_path / "two")
    train(Noisy(recipe), tmp_path / "other", seed=1)
    one, two, other = (
        [line["loss"] for line in log_of(tmp_path / name)] for name in ("one", "two", "other")
    )
    assert one == two
    assert one != other


class Diverging(Toy):
    """Not finite as soon as a sample is in the batch."""

    def forward(self, batch):
        loss = super().forward(batch)["loss"]
        return {"loss": loss * float("inf") if 13 in batch["index"] else loss}


def test_a_loss_that_is_not_finite(tmp_path):
    """The recipe's first epoch meets sample 13 in its second step; its micro-batch is named."""
    data = Samples()
    with pytest.raises(RunError) as caught:
        train(Diverging(toy_recipe(device_batch=4), data), tmp_path / "run", save_minutes=0)
    (keys,) = (keys for keys in data.asked if (0, 13) in keys)
    names = sorted(f"sample {index}" for _, index in keys)
    step = data.asked.index(keys) // 2 + 1
    assert step > 1
    text = str(caught.value)
    assert "\n" not in text
    assert f"loss is not finite at step {step} of 12 (lr " in text
    assert f"images: {', '.join(names[:3])} and 1 more" in text
    assert "last good state" in text
    assert f"step-{step - 1:08d}.pt" in text
    assert (tmp_path / "run/not_finite.txt").read_text().splitlines() == names
    assert len(log_of(tmp_path / "run")) == step - 1
    kept = torch.load(tmp_path / f"run/state/step-{step - 1:08d}.pt")
    assert all(value.isfinite().all() for value in kept["model"].values())
    with pytest.raises(RunError, match=f"not finite at step {step} of 12"):
        train(Diverging(toy_recipe(device_batch=4)), tmp_path / "run")


class Poisoned(Toy):
    """A finite loss with gradients that are not: the derivative of a root at 0."""

    def forward(self, batch):
        root = (0 * self.head.weight).sum().sqrt()
        return {"loss": super().forward(batch)["loss"] + root}


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    with pytest.raises(RunError, match=r"weights are not finite at step 1 of 12 .*no state was"):
        train(Poisoned(toy_recipe(warmup_epochs=0.0)), tmp_path / "run", save_minutes=0)
    assert not list((tmp_path / "run").rglob("*.pt"))


class BrokenSamples(Samples):
    """Two files are unreadable in each of `epochs`, and one more in the third epoch."""

    epochs: tuple[int, ...] = (0, 1, 2, 3)

    def __getitems__(self, keys):
        batch = super().__getitems__(keys)
        bad = [f"bad-{i}.jpg" for e, i in keys if i in (3, 4) and e in self.epochs]
        bad += ["late.jpg"] * ((2, 5) in keys)
        return {**batch, "skipped": [Unreadable(name, "is broken") for name in bad]}


def test_unreadable_images_are_named_and_counted_once(tmp_path, capsys):
    fitted, _ = train(Toy(toy_recipe(), BrokenSamples()), tmp_path / "run", max_bad_images=3)
    said = capsys.readouterr().out
    assert len(fitted.spent.skipped) == 3
    assert [said.count(name) for name in ("bad-3.jpg", "bad-4.jpg", "late.jpg")] == [1, 1, 1]
    assert "left out an unreadable image, 3 of at most 3: late.jpg: is broken" in said
    rows = (tmp_path / "run/unreadable.csv").read_text().splitlines()
    assert rows[0] == "split,image,reason"
    assert sorted(rows[1:]) == [
        f"train,{name}.jpg,is broken" for name in ("bad-3", "bad-4", "late")
    ]


def test_too_many_unreadable_images_stop_the_run_even_over_a_resume(tmp_path):
    """Both times in the third epoch: what was met in the first one is remembered."""
    for _ in range(2):
        data = BrokenSamples()
        data.epochs = (0,)
        with pytest.raises(TaskError, match="3 image files are unreadable, more than the limit"):
            train(Toy(toy_recipe(), data), tmp_path / "run", max_bad_images=2, save_minutes=0)
        assert 6 <= len(log_of(tmp_path / "run")) < 9
    assert {epoch for keys in data.asked for epoch, _ in keys} == {2}


def test_training_in_a_thread(tmp_path):
    """Only the main thread may handle signals; others train without."""
    done = []
    thread = threading.Thread(target=lambda: done.append(train(Toy(toy_recipe()), tmp_path / "r")))
    thread.start()
    thread.join()
    assert len(done) == 1


def test_lines_where_there_is_no_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mae_bench.progress.SECONDS_BETWEEN_LINES", 0.0)

    class Slow(Toy):
        def forward(self, batch):
            time.sleep(0.6)
            return super().forward(batch)

    train(Slow(toy_recipe(epochs=1)), tmp_path / "run")
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert first == "training toy/toy@1 (1 epoch) ..."
    assert second.startswith("training toy/toy@1 (1 epoch): 2/3  loss ")
    assert second.endswith(" images/s  1 s left")
    assert not rest


def test_tensorboard_has_the_last_step(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, run = train(Toy(toy_recipe()), tmp_path / "run")
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "lr", "images_per_second"}
    last = events.Scalars("loss")[-1]
    assert last.step == 12
    assert last.value == pytest.approx(log_of(run.folder)[-1]["loss"], rel=1e-6)


def test_two_precisions_in_one_process(world, tmp_path, capsys):
    """Each run computes in its own; the second is what it is alone."""
    common = {"data": world / "unlabelled", "out": tmp_path, **SMALL_MAE}
    told = []
    for name, precision in (("a", "fp32"), ("b", "bf16"), ("c", "fp32")):
        record = mae_bench.pretrain(name=name, precision=precision, **common)
        told.append((record.environment.bf16, "bf16 on this CPU by " in capsys.readouterr().out))
    assert told == [(None, False), (bf16_of_cpu(), True), (None, False)]
    a, b, c = ([line["loss"] for line in log_of(tmp_path / name)] for name in "abc")
    assert a == c
    assert a != b
    assert b == pytest.approx(a, rel=2e-2)


def test_loading_processes_change_nothing(world, pretrained, tmp_path):
    """With what draws most: RandAugment, mixup, erasing and drop path."""
    for workers in (0, 2):
        mae_bench.transfer(
            data=world / "imagenet1k",
            checkpoint=pretrained / "backbone.safetensors",
            out=tmp_path,
            name=f"workers-{workers}",
            execution=Execution(workers=workers),
            rand_augment="rand-m9-mstd0.5-inc1",
            mixup=0.8,
            erase_prob=0.25,
            drop_path=0.2,
            **SMALL,
        )
    one, other = (tmp_path / f"workers-{workers}" for workers in (0, 2))
    assert_same_bits(one, other, "model.safetensors")


def test_compiled_blocks_learn_the_same(world, tmp_path, monkeypatch):
    """Traced and differentiated by the compiler, a block whole, but without making kernels."""
    compiled_blocks = []

    def trace(block):
        compiled_blocks.append(block)
        nn.Module.compile(block, backend="aot_eager", fullgraph=True)

    monkeypatch.setattr(Block, "compile", trace)
    for name, compiled in (("plain", False), ("compiled", True)):
        how = Execution(workers=0, compile=compiled)
        common = {"data": world / "unlabelled", "out": tmp_path, **SMALL_MAE}
        mae_bench.pretrain(name=name, execution=how, **common)
    plain, compiled = (log_of(tmp_path / name) for name in ("plain", "compiled"))
    losses = [line["loss"] for line in plain]
    assert [line["loss"] for line in compiled] == pytest.approx(losses, rel=1e-5)
    assert len(compiled_blocks) == 4 + 1
