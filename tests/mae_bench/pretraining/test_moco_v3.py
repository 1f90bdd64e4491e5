"""MoCo v3 against the paper's Algorithm 1, written plainly, and against numbers of the reference.

The loss and the gradients of two sizes, and four steps of AdamW with the momentum encoder, were
also compared with facebookresearch/moco-v3 itself (commit c349e6e) in float64: equal to 1e-11.
"""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter, ImageOps
from safetensors.torch import load_file
from small_runs import SMALL, flags
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

import backbones
from mae_bench import pretrain, transfer
from mae_bench.cli import call
from mae_bench.cost import flops_per_image
from mae_bench.pretraining.momentum_contrast import (
    MocoPretraining,
    MomentumContrast,
    create,
    momentum_at,
)
from mae_bench.recipes import override, recipe, sourced

ALL = {"jitter", "grey", "blur", "solarise"}
TINY = {**SMALL, "feature_dim": 16, "mlp_dim": 32}


@pytest.fixture
def moco() -> MomentumContrast:
    torch.manual_seed(0)
    return MomentumContrast(create("vit_mini", 32), mlp_dim=64, feature_dim=16).double()


def features(branch, images):
    """The encoder as it is used elsewhere, its class token, and the projector."""
    return branch.head(branch.encoder(images)[:, 0])


def plain_loss(model, first, second):
    """Algorithm 1 of 2104.02057."""
    losses = []
    for one, other in ((first, second), (second, first)):
        q = F.normalize(model.predictor(features(model.base, one)), dim=1)
        with torch.no_grad():
            k = F.normalize(features(model.average, other), dim=1)
        logits = torch.einsum("nc,mc->nm", q, k)
        losses.append(F.cross_entropy(logits / 0.2, torch.arange(len(q))) * 2 * 0.2)
    return sum(losses)


def test_loss_and_gradients_are_algorithm_1s(moco: MomentumContrast) -> None:
    with torch.no_grad():  # so that the two branches differ, as they do in training
        for parameter in moco.base.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
    plain = copy.deepcopy(moco)
    first, second = torch.randn(2, 6, 3, 32, 32).double()
    ours, theirs = moco(first, second), plain_loss(plain, first, second)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-12)
    ours.backward()
    theirs.backward()
    pairs = list(zip(moco.named_parameters(), plain.parameters(), strict=True))
    trained = {name for (name, one), _ in pairs if one.grad is not None}
    for (name, one), other in pairs:
        if name in trained:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-12)
    frozen = {"base.encoder.pos_embed", "base.encoder.patch_embed.proj.weight"}
    frozen |= {"base.encoder.patch_embed.proj.bias"}
    averaged = {name for name, _ in moco.named_parameters() if name.startswith("average.")}
    assert {name for (name, _), _ in pairs} - trained == frozen | averaged


def test_batch_norm_sees_one_view_at_a_time(moco: MomentumContrast) -> None:
    first, second = torch.randn(2, 6, 3, 32, 32).double()
    out = moco.base(moco.base.patches(torch.cat([first, second])))
    for each in out:
        assert each.mean(0).abs().max() < 1e-6
        assert each.var(0, unbiased=False).mean().item() == pytest.approx(1, abs=1e-3)


def test_the_average_follows_main_mocos_momentum(moco: MomentumContrast) -> None:
    """m rises from 0.99 to 1 by a half-cosine; printed by `adjust_moco_momentum` of the release."""
    printed = [0.99, 0.990954915, 0.99345491503, 0.99654508497, 0.99904508497]
    found = [momentum_at(step, 5, 0.99) for step in range(5)]
    assert found == pytest.approx(printed, abs=1e-9)
    assert momentum_at(5, 5, 0.99) == 1
    before = copy.deepcopy(moco.average)
    with torch.no_grad():
        for parameter in moco.base.parameters():
            parameter.add_(torch.randn_like(parameter))
    moco.move_average(0.9)
    triples = zip(
        before.parameters(), moco.base.parameters(), moco.average.parameters(), strict=True
    )
    for old, new, mean in triples:
        torch.testing.assert_close(mean, old * 0.9 + new * 0.1, rtol=0, atol=1e-12)


def test_the_average_of_what_is_frozen_stays_to_the_bit(moco: MomentumContrast) -> None:
    """Both branches take their patches from one computation."""
    moco.float()
    before = copy.deepcopy(moco.base.encoder.patch_embed)
    for step in range(1, 20):
        moco.move_average(momentum_at(step, 20, 0.3))
    for branch in (moco.base, moco.average):
        assert before.proj.weight.equal(branch.encoder.patch_embed.proj.weight)
        assert before.proj.bias.equal(branch.encoder.patch_embed.proj.bias)
    assert moco.base.encoder.pos_embed.equal(moco.average.encoder.pos_embed)


def test_positions_have_rows_first() -> None:
    """Those of vits.py, whose first half is the sine and cosine of the row."""
    vit = create("vit_mini", 32)
    rows = torch.arange(16) // 4
    omega = 1 / 10000 ** (torch.arange(32) / 32)
    expected = torch.cat([(rows[:, None] * omega).sin(), (rows[:, None] * omega).cos()], dim=1)
    torch.testing.assert_close(vit.pos_embed[0, 1:, :64], expected, rtol=0, atol=1e-6)
    assert vit.pos_embed[0, 0].abs().max() == 0
    assert create("vit_s", 32).num_heads == 12


def test_what_no_source_says_of_a_size_is_assumed() -> None:
    """CONFIG.md has ViT-S and ViT-B alone."""
    for name, assumed in (("vit_s", False), ("vit_b", False), ("vit_l", True), ("vit_h", True)):
        rows = sourced("pretrain", name, "moco_v3")
        assert rows["base_lr"][0] == 1.5e-4
        assert rows["base_lr"][1].startswith("assumed") == assumed
        assert rows["batch_size"][1].startswith("assumed") == assumed


def task_of(folder: Path, **changes: object) -> MocoPretraining:
    base = override(recipe("pretrain", "vit_mini", "moco_v3"), changes)
    return MocoPretraining(base, [folder], seed=3)


def test_views_are_torchvisions_and_pillows(world: Path) -> None:
    """The same operations of the same numbers, in main_moco.py's order."""
    task = task_of(world / "unlabelled", solarise_prob=0.5, blur_probs=(0.7, 0.3))
    data = task.train_data
    seen = set()
    for index in range(12):
        sample = data.load(1, index)
        views = data.finish(sample).split(3)
        for place, (view, drawn) in enumerate(zip(views, sample.views, strict=True)):
            top, left, height, width = drawn.box
            picture = Image.fromarray(sample.pixels)
            expected = transforms.functional.resized_crop(
                picture, top, left, height, width, [32, 32]
            )
            if drawn.jitter is not None:
                theirs = transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)
                chosen = (torch.tensor(drawn.jitter.order), *drawn.jitter.factors)
                theirs.get_params = lambda *_, chosen=chosen: chosen
                expected = theirs(expected)
            if drawn.grey:
                expected = transforms.functional.rgb_to_grayscale(expected, 3)
            if drawn.blur is not None:
                expected = expected.filter(ImageFilter.GaussianBlur(radius=drawn.blur))
            if drawn.solarise:
                assert place == 1
                expected = ImageOps.solarize(expected)
            if drawn.flip:
                expected = ImageOps.mirror(expected)
            seen |= {
                name for name in ("jitter", "grey", "blur", "solarise") if getattr(drawn, name)
            }
            error = np.abs(view.permute(1, 2, 0).numpy().astype(int) - np.asarray(expected))
            # Resizing rounds otherwise by one level; solarising turns 127 and 128 apart.
            assert np.median(error) <= 1
            assert (error > 6).mean() < 0.02
    assert seen == ALL


def test_views_depend_on_seed_epoch_and_index_alone(world: Path) -> None:
    data = task_of(world / "unlabelled").train_data
    keys = [(0, 5), (1, 5), (0, 6)]
    batch = data.__getitems__(keys)["images"]
    assert torch.equal(data.__getitems__(keys[1:2])["images"][0], batch[1])
    assert not torch.equal(batch[0], batch[1])
    assert not torch.equal(batch[0, :3], batch[0, 3:])


def test_a_run_loads_as_ours_and_as_the_released_files(world: Path, tmp_path: Path) -> None:
    record = pretrain(method="moco_v3", data=world / "unlabelled", out=tmp_path, name="run", **TINY)
    assert record.protocol == "pretrain/moco_v3@1"
    assert any("negatives and batch norm of 4 images instead of 8" in d for d in record.deviations)
    ours, report = backbones.load("vit_mini", tmp_path / "run" / "backbone.safetensors", 32)
    assert report.method == "moco_v3"
    whole = load_file(tmp_path / "run" / "moco_v3.safetensors")
    released = {"state_dict": {f"module.{k}": v for k, v in whole.items()}, "epoch": 300}
    torch.save(released, tmp_path / "vit.pth.tar")
    theirs, _ = backbones.load("vit_mini", tmp_path / "vit.pth.tar", 32, heads=4)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(ours(images), theirs(images))
    again = transfer(
        checkpoint=tmp_path / "run", data=world / "imagenet1k", out=tmp_path, protocol="knn",
        neighbours=(2,), headline_neighbours=2,
    )  # fmt: skip
    assert again.init == "moco_v3"
    assert create("vit_mini", 32).num_heads == 4


def test_an_interrupted_run_goes_on_to_the_bit(world: Path, tmp_path: Path) -> None:
    how = {"method": "moco_v3", "data": world / "unlabelled", "out": tmp_path, **TINY}
    pretrain(name="whole", **how)
    from mae_bench.errors import Interrupted
    from mae_bench.execution import Execution

    real, stop = MocoPretraining.after_step, 3

    def interrupt(self, step: int, num_steps: int) -> None:
        import os
        import signal

        real(self, step, num_steps)
        if step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    MocoPretraining.after_step = interrupt  # type: ignore[method-assign]
    try:
        with pytest.raises(Interrupted):
            pretrain(name="halves", execution=Execution(workers=0), **how)
    finally:
        MocoPretraining.after_step = real  # type: ignore[method-assign]
    pretrain(name="halves", **how)
    one, other = (load_file(tmp_path / n / "moco_v3.safetensors") for n in ("whole", "halves"))
    assert all(one[k].equal(v) for k, v in other.items())


def test_its_arithmetic_is_counted(world: Path) -> None:
    """Two views go through one encoder forward and backward, and through the other forward."""
    task = task_of(world / "unlabelled")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        task.moco.average.encoder(torch.zeros(1, 3, 32, 32))
    forward = counter.get_total_flops()
    counted = flops_per_image(task)
    assert counted is not None
    # The last block is computed for the class token alone.
    assert 5 * forward < counted < 8.5 * forward


def test_a_batch_of_one_is_refused(tmp_path: Path, capsys) -> None:
    argv = ["pretrain", "--method", "moco_v3", *flags(out=tmp_path, device_batch=1)]
    assert call(argv) == 2
    assert "device_batch is 1; expected 2 or more: others are negatives" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
