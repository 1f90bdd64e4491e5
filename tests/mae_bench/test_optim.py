"""Groups, optimisers, schedule and clipping, against timm and the reference's formulas."""

import dataclasses
import math

import pytest
import timm.optim
import torch
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from toy import Toy, toy_recipe

import backbones
from mae_bench.optim import Lars, build_optimizer, build_schedule, clip, parameter_groups
from mae_bench.pretraining.masked import MaskedPretraining
from mae_bench.recipes import recipe
from tasks.classification import layout
from tasks.classification.task import Classification

STEPS_PER_EPOCH = 7


@pytest.fixture
def finetuning(world):
    """vit_mini under a classifier, fine-tuned with a layer decay of 0.65."""
    base = dataclasses.replace(recipe("imagenet1k", "vit_mini", "finetune"), layer_decay=0.65)
    vit = backbones.create("vit_mini", base.image_size)
    return Classification(base, vit, layout.read("imagenet1k", world / "imagenet1k"), seed=0)


@pytest.fixture
def pretraining(world):
    return MaskedPretraining(recipe("pretrain", "vit_mini", "mae"), [world / "unlabelled"], seed=0)


def settings(task, groups) -> dict[str, tuple[float, float]]:
    """Parameter name -> (learning-rate factor, weight decay)."""
    names = {parameter: name for name, parameter in task.named_parameters()}
    return {
        names[parameter]: (group["lr_scale"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }


def test_finetuning_groups_are_timms(finetuning):
    """Ours are named as timm's, but for the prefix; timm calls the last layer `head` too."""
    ours = settings(finetuning, parameter_groups(finetuning, finetuning.recipe))
    num_classes = finetuning.num_classes
    twin = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=128, depth=4, num_heads=4, num_classes=num_classes,
        global_pool="avg", fc_norm=True,
    )  # fmt: skip
    theirs = settings(
        twin,
        param_groups_layer_decay(
            twin, weight_decay=0.05, no_weight_decay_list=twin.no_weight_decay(), layer_decay=0.65
        ),
    )
    renamed = {
        name.removeprefix("backbone.").replace("head.0.", "head."): value
        for name, value in ours.items()
    }
    assert renamed.keys() == theirs.keys()
    for name, (scale, decay) in renamed.items():
        assert scale == pytest.approx(theirs[name][0], rel=1e-12), name
        assert decay == theirs[name][1], name


def test_finetuning_groups_by_hand(finetuning):
    found = settings(finetuning, parameter_groups(finetuning, finetuning.recipe))
    assert found["backbone.patch_embed.proj.weight"] == (pytest.approx(0.65**5), 0.05)
    assert found["backbone.cls_token"] == (pytest.approx(0.65**5), 0.0)
    assert found["backbone.pos_embed"] == (pytest.approx(0.65**5), 0.0)
    assert found["backbone.blocks.0.mlp.fc1.weight"] == (pytest.approx(0.65**4), 0.05)
    assert found["backbone.blocks.3.mlp.fc1.weight"] == (pytest.approx(0.65), 0.05)
    assert found["backbone.blocks.3.attn.qkv.bias"] == (pytest.approx(0.65), 0.0)
    assert found["backbone.blocks.3.norm1.weight"] == (pytest.approx(0.65), 0.0)
    assert found["fc_norm.weight"] == (1.0, 0.0)
    assert found["head.0.weight"] == (1.0, 0.05)
    assert found["head.0.bias"] == (1.0, 0.0)


def test_pretraining_decays_the_tokens_and_leaves_positions_out(pretraining):
    """The reference exempts 1-D tensors only; its tokens are 3-D (main_pretrain.py, timm 0.3.2)."""
    found = settings(pretraining, parameter_groups(pretraining, pretraining.recipe))
    assert found["mae.encoder.cls_token"] == (1.0, 0.05)
    assert found["mae.mask_token"] == (1.0, 0.05)
    assert found["mae.decoder_pred.weight"] == (1.0, 0.05)
    assert found["mae.decoder_pred.bias"] == (1.0, 0.0)
    assert found["mae.encoder.norm.weight"] == (1.0, 0.0)
    assert not {"mae.encoder.pos_embed", "mae.decoder_pos_embed"} & found.keys()


def test_no_layer_decay_makes_two_groups(pretraining):
    groups = parameter_groups(pretraining, pretraining.recipe)
    assert [group["weight_decay"] for group in groups] == [0.0, 0.05]


def test_linear_probe_trains_the_classifier_only(world):
    base = recipe("imagenet1k", "vit_mini", "linear")
    vit = backbones.create("vit_mini", base.image_size)
    task = Classification(base, vit, layout.read("imagenet1k", world / "imagenet1k"), seed=0)
    found = settings(task, parameter_groups(task, base))
    assert found.keys() == {"head.1.weight", "head.1.bias"}


def reference_lr(step: int, lr: float, min_lr: float, epochs: int, warmup: float) -> float:
    """What facebookresearch/mae, util/lr_sched.py sets before a step, at its fractional epoch."""
    epoch = step / STEPS_PER_EPOCH
    if epoch < warmup:
        return lr * epoch / warmup
    along = (epoch - warmup) / (epochs - warmup)
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * along)) / 2


@pytest.mark.parametrize(
    ("epochs", "warmup", "min_lr"),
    [(5, 2.0, 0.0), (5, 0.0, 1e-3), (4, 1.3, 1e-2), (3, 3.0, 0.0), (1, 0.9, 1e-3), (2, 1.93, 0.0)],
)
def test_schedule_is_the_references_for_every_step_and_layer(
    finetuning, caplog, epochs, warmup, min_lr
):
    changed = dataclasses.replace(
        finetuning.recipe, epochs=epochs, warmup_epochs=warmup, min_lr=min_lr, base_lr=0.5,
        batch_size=512, device_batch=512,
    )  # fmt: skip
    optimizer = build_optimizer(finetuning, changed)
    schedule = build_schedule(optimizer, changed, epochs * STEPS_PER_EPOCH, STEPS_PER_EPOCH)
    for step in range(epochs * STEPS_PER_EPOCH):
        schedule.step_update(step)
        expected = reference_lr(step, 1.0, min_lr, epochs, warmup)
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(expected * group["lr_scale"], rel=1e-9, abs=1e-15)
    assert not caplog.records, "timm has something to say about the schedule"


def test_floor_is_scaled_by_the_layer_factor(finetuning):
    """So the lowest layers end below `min_lr`, as in the reference."""
    changed = dataclasses.replace(finetuning.recipe, epochs=100, warmup_epochs=0.0, min_lr=1e-3)
    optimizer = build_optimizer(finetuning, changed)
    build_schedule(optimizer, changed, 100, 1).step_update(99)
    lowest = min(group["lr"] for group in optimizer.param_groups)
    assert lowest == pytest.approx(1e-3 * 0.65**5, rel=0.05)


def detectron2_lr(step: int, steps: int, warmup: float) -> float:
    """Share of the peak at a step: detectron2's WarmupParamScheduler around fvcore's
    MultiStepParamScheduler with the ViTDet milestones, by hand."""
    milestones = (round(steps * 8 / 9), round(steps * 26 / 27))
    if step < warmup:
        return 0.001 + (1 - 0.001) * step / warmup
    return 0.1 ** sum(step >= milestone for milestone in milestones)


@pytest.mark.parametrize(("steps", "epoch_steps", "warmup_epochs"), [(270, 2.7, 1.0), (54, 10, 0)])
def test_step_schedule_is_detectron2s(finetuning, steps, epoch_steps, warmup_epochs):
    changed = dataclasses.replace(
        finetuning.recipe, schedule="step", milestones=(8 / 9, 26 / 27), warmup_start=0.001,
        warmup_epochs=warmup_epochs, base_lr=0.5, batch_size=512, device_batch=512,
    )  # fmt: skip
    optimizer = build_optimizer(finetuning, changed)
    schedule = build_schedule(optimizer, changed, steps, epoch_steps)
    for step in range(steps):
        schedule.step_update(step)
        expected = detectron2_lr(step, steps, warmup_epochs * epoch_steps)
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(expected * group["lr_scale"], rel=1e-9), step


def test_step_schedule_is_fvcores(finetuning):
    """The same with detectron2's and fvcore's own classes, at the full length of ViTDet-B."""
    solver = pytest.importorskip("detectron2.solver")
    from fvcore.common.param_scheduler import MultiStepParamScheduler

    steps = 184_375
    theirs = solver.WarmupParamScheduler(
        MultiStepParamScheduler([1.0, 0.1, 0.01], milestones=[163_889, 177_546], num_updates=steps),
        warmup_length=250 / steps,
        warmup_factor=0.001,
    )
    changed = dataclasses.replace(
        finetuning.recipe, schedule="step", milestones=(8 / 9, 26 / 27), warmup_start=0.001,
        warmup_epochs=1.0, layer_decay=1.0, base_lr=1.0, batch_size=256, device_batch=256,
    )  # fmt: skip
    optimizer = build_optimizer(finetuning, changed)
    schedule = build_schedule(optimizer, changed, steps, 250)
    around = [0, 1, 100, 249, 250, 251, 100_000]
    around += [milestone + i for milestone in (163_889, 177_546) for i in range(-3, 4)]
    for step in [*around, steps - 1]:
        schedule.step_update(step)
        found = optimizer.param_groups[0]["lr"]
        assert found == pytest.approx(theirs(step / steps), rel=1e-6), step


def reference_lars(
    parameters: list[Tensor], momenta: list[Tensor], lr: float, momentum: float
) -> None:
    """A step of facebookresearch/mae, util/lars.py, without weight decay."""
    for parameter, moving in zip(parameters, momenta, strict=True):
        update = parameter.grad
        if parameter.ndim > 1 and parameter.norm() > 0 and update.norm() > 0:
            update = update * 0.001 * parameter.norm() / update.norm()
        moving.mul_(momentum).add_(update)
        parameter.data -= lr * moving


@pytest.mark.parametrize("weights", ["random", "zero"])
def test_lars_is_the_references(weights):
    """Five steps in float64; "zero" takes the branch that leaves the update as it is."""
    task = Toy(toy_recipe(optimizer="lars", weight_decay=0.0, base_lr=32.0, warmup_epochs=0.0))
    if weights == "zero":
        nn.init.zeros_(task.head.weight)
    twin = [parameter.detach().clone() for parameter in task.parameters()]
    momenta = [torch.zeros_like(parameter) for parameter in twin]
    optimizer = build_optimizer(task, task.recipe)
    for step in range(5):
        batch = task.train_data.__getitems__([(step, index) for index in range(8)])
        optimizer.zero_grad()
        task(batch)["loss"].backward()
        for parameter, copied in zip(task.parameters(), twin, strict=True):
            copied.grad = parameter.grad.clone()
        optimizer.step()
        reference_lars(twin, momenta, lr=1.0, momentum=0.9)
        for parameter, copied in zip(task.parameters(), twin, strict=True):
            torch.testing.assert_close(parameter.data, copied, rtol=1e-12, atol=1e-14)


def test_lars_is_timms_to_the_bit():
    """With decay and momentum, in float32, with a gradient of zero and one that is missing."""
    torch.manual_seed(0)
    start = [torch.randn(7, 5), torch.randn(7), torch.randn(3, 2), torch.zeros(4, 4)]
    ours, theirs = ([nn.Parameter(x.clone()) for x in start] for _ in range(2))
    options = {"lr": 0.7, "momentum": 0.9, "weight_decay": 0.1, "trust_coeff": 0.001, "eps": 0.0}
    optimizers = Lars(ours, **options), timm.optim.Lars(theirs, **options)
    for step in range(4):
        gradients = [torch.randn_like(x) for x in start[:2]] + [torch.zeros(3, 2)]
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter, gradient in zip(parameters, gradients, strict=False):
                parameter.grad = gradient.clone()
            if step:
                parameters[3].grad = torch.ones(4, 4)
            optimizer.step()
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_adamw_is_torchs_with_the_recipes_numbers():
    task = Toy(toy_recipe(betas=(0.8, 0.7), weight_decay=0.3))
    optimizer = build_optimizer(task, task.recipe)
    assert isinstance(optimizer, torch.optim.AdamW)
    for group in optimizer.param_groups:
        assert group["betas"] == (0.8, 0.7)
        assert group["eps"] == 1e-8
        assert group["lr"] == 1.0 * 8 / 256


@pytest.mark.parametrize("most", [None, 0.5, 100.0])
def test_clipping_scales_the_global_norm(most):
    task = Toy(toy_recipe())
    task.head.weight.grad = torch.tensor([[3.0, 0, 0, 0, 0]], dtype=torch.float64)
    task.head.bias.grad = torch.tensor([4.0], dtype=torch.float64)
    clip(task, most)
    factor = 0.1 if most == 0.5 else 1.0  # the norm is 5
    assert task.head.weight.grad[0, 0].item() == pytest.approx(3.0 * factor, rel=1e-6)
    assert task.head.bias.grad.item() == pytest.approx(4.0 * factor, rel=1e-6)


def poly_lr(step: int, steps: int, warmup: float) -> float:
    """A line up from a millionth of the rate, and a line down to 0."""
    if step < warmup:
        return 1e-6 + (1 - 1e-6) * step / warmup
    return (steps - step) / (steps - warmup)


@pytest.mark.parametrize(
    ("steps", "epoch_steps", "warmup"), [(270, 2.7, 1.0), (54, 10, 0), (1, 1, 1)]
)
def test_poly_schedule_by_hand(finetuning, caplog, steps, epoch_steps, warmup):
    changed = dataclasses.replace(
        finetuning.recipe, schedule="poly", warmup_start=1e-6, min_lr=0.0, warmup_epochs=warmup,
        base_lr=0.5, batch_size=512, device_batch=512,
    )  # fmt: skip
    optimizer = build_optimizer(finetuning, changed)
    schedule = build_schedule(optimizer, changed, steps, epoch_steps)
    for step in range(steps):
        schedule.step_update(step)
        expected = poly_lr(step, steps, warmup * epoch_steps)
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(expected * group["lr_scale"], rel=1e-9), step
    assert not caplog.records


def test_poly_schedule_ends_at_the_least_rate(finetuning):
    changed = dataclasses.replace(
        finetuning.recipe, schedule="poly", min_lr=0.25, warmup_epochs=0.0, layer_decay=1.0,
        base_lr=0.5, batch_size=512, device_batch=512,
    )  # fmt: skip
    optimizer = build_optimizer(finetuning, changed)
    schedule = build_schedule(optimizer, changed, 100, 10)
    for step, expected in ((0, 1.0), (50, 0.625), (100, 0.25)):
        schedule.step_update(step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)


def test_poly_schedule_is_mmsegmentations(finetuning):
    """mmengine's own schedulers with the numbers of its MAE configuration, 20 times shorter.

    They count one step less in warmup and one less after it, so that the rates differ by up to one
    step of either line.
    """
    schedulers = pytest.importorskip("mmengine.optim.scheduler")
    steps, warmup = 8000, 75
    weight = nn.Parameter(torch.zeros(1))
    theirs = torch.optim.AdamW([weight], lr=1.0)
    up = schedulers.LinearLR(theirs, start_factor=1e-6, by_epoch=False, begin=0, end=warmup)
    down = schedulers.PolyLR(
        theirs, eta_min=0.0, power=1.0, by_epoch=False, begin=warmup, end=steps
    )
    changed = dataclasses.replace(
        finetuning.recipe, schedule="poly", warmup_start=1e-6, min_lr=0.0, warmup_epochs=1.0,
        layer_decay=1.0, base_lr=1.0, batch_size=256, device_batch=256,
    )  # fmt: skip
    optimizer = build_optimizer(finetuning, changed)
    schedule = build_schedule(optimizer, changed, steps, warmup)
    theirs.step()
    for step in range(steps):
        schedule.step_update(step)
        near = 1.01 / warmup if step <= warmup else 1.01 / (steps - warmup)
        found = optimizer.param_groups[0]["lr"]
        assert found == pytest.approx(theirs.param_groups[0]["lr"], abs=near), step
        up.step()
        down.step()
