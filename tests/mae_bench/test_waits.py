"""In no task does a step make the host wait for the device, but where its algorithm asks for it."""

import sys
from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.optim.optimizer as optimizer
from fake_device import DEVICE, FakeDevice
from small_runs import SMALL, SMALL_MAE
from test_processes import ADE20K, COCO, MOCO
from torch.distributed.utils import _to_kwargs

import mae_bench
from mae_bench.execution import Execution
from mae_bench.late import Known, Step, Steps
from mae_bench.run.keeping import Keeper
from tasks.norms import SyncBatchNorm


def moving(model: Any) -> Any:
    """A network called as DistributedDataParallel and `fully_shard` do: all moved first."""
    return lambda *given: model(*_to_kwargs(given, {}, DEVICE, False)[0][0])


class Enough(Exception):
    """The steps that are to be seen are over."""


@pytest.fixture
def waits_of(monkeypatch):
    """waits_of(command, **options): what waited in the third step of a run, how often."""

    def look(command, **options: Any) -> Counter:
        loop = sys.modules["mae_bench.train"]
        fake = FakeDevice()
        accelerator = SimpleNamespace(
            device=DEVICE, num_processes=1, process_index=0, is_main_process=True,
            prepare_model=moving, no_sync=lambda model: nullcontext(),
        )  # fmt: skip
        seen: list[int] = []
        seed, autocast, fit = loop.seed_forward, torch.autocast, loop.fit

        def begin(*arguments: Any) -> None:
            seen.append(len(fake.waits))
            if len(seen) == 4:
                raise Enough
            seed(*arguments)

        def autocast_of(kind: str, *given: Any, **options: Any) -> Any:
            return nullcontext() if kind == DEVICE.type else autocast(kind, *given, **options)

        def fit_there(task, run, _, *given: Any) -> None:
            with fake:
                fit(task, run, accelerator, *given)

        monkeypatch.setattr(loop, "seed_forward", begin)
        monkeypatch.setattr(torch, "autocast", autocast_of)
        monkeypatch.setattr(sys.modules[command.__module__], "fit", fit_there)
        fused = optimizer._get_fused_kernels_supported_devices
        monkeypatch.setattr(
            optimizer, "_get_fused_kernels_supported_devices", lambda: [*fused(), DEVICE.type]
        )
        generator = torch.Generator
        monkeypatch.setattr(torch, "Generator", lambda device: generator())
        monkeypatch.setattr(Keeper, "save", lambda *_: None)
        options.setdefault("execution", Execution(workers=0))
        with pytest.raises(Enough):
            command(name="run", **options)
        return Counter(fake.waits[seen[2] : seen[3]])

    return look


TINY = {**SMALL, "codebook": 16, "width": 4, "narrow": 8, "base_lr": 0.1}
STEPS = {**SMALL, "batch_size": 6, "device_batch": 6}


@pytest.mark.parametrize(
    "changes", [{"norm_pix": True}, {"norm_pix": False, "mask": "grid", "target": "pca"}]
)
def test_masked_autoencoder(waits_of, world, tmp_path, changes):
    options = {**SMALL_MAE, **STEPS, **changes}
    assert not waits_of(mae_bench.pretrain, data=world / "unlabelled", out=tmp_path, **options)


def test_two_views(waits_of, world, tmp_path):
    options = {**MOCO, **STEPS, "method": "moco_v3"}
    assert not waits_of(mae_bench.pretrain, data=world / "unlabelled", out=tmp_path, **options)


def test_tokens(waits_of, world, tmp_path):
    options = {"data": world / "unlabelled", "out": tmp_path}
    mae_bench.pretrain(
        method="tokenizer", name="tok", execution=Execution(workers=0), **options, **TINY
    )
    codes = {"tokenizer": tmp_path / "tok", "codebook": 16}
    assert not waits_of(mae_bench.pretrain, method="beit", **options, **{**STEPS, **codes})


def test_tokenizer(waits_of, world, tmp_path):
    options = {"data": world / "unlabelled", "out": tmp_path, "method": "tokenizer"}
    assert not waits_of(mae_bench.pretrain, **options, **{**TINY, **STEPS})


@pytest.mark.parametrize("protocol", ["finetune", "linear"])
def test_classification(waits_of, world, pretrained, tmp_path, protocol):
    options = {"data": world / "imagenet1k", "out": tmp_path, "protocol": protocol, **STEPS}
    if protocol == "finetune":
        options |= {"mixup": 0.8, "cutmix": 1.0, "erase_prob": 0.9, "drop_path": 0.2}
        options |= {"clip_grad": 1.0, "ema_decay": 0.9}
    checkpoint = pretrained / "backbone.safetensors"
    assert not waits_of(mae_bench.transfer, checkpoint=checkpoint, **options)


def test_segmentation(waits_of, ade20k_world, tmp_path):
    options = {**ADE20K, "device_batch": 4, "task": "ade20k", "init": "scratch"}
    assert not waits_of(mae_bench.transfer, data=ade20k_world / "ade20k", out=tmp_path, **options)


def test_detection(waits_of, coco_world, tmp_path):
    """Whose algorithm needs to know how many boxes are left, and draws masks on the host.

    For each image: which boxes have an area, non-maximum suppression (and torchvision's number 1
    for it), and the samples, positive and negative, of anchors and of regions.
    """
    options = {**COCO, **STEPS, "task": "coco", "init": "scratch", "epochs": 2}
    found = waits_of(mae_bench.transfer, data=coco_world / "coco", out=tmp_path, **options)
    images = STEPS["device_batch"]
    assert found == {
        "aten.nonzero": 6 * images + 3,
        "torchvision.nms": images,
        "copy to the device": images,
        "tolist": 3,
        "copy from the device": 1,
        "as_tensor at the device": 2,
        "tensor at the device": 2,
    }


class Two:
    """An accelerator of two processes; the other has a number's signal and skipped an image."""

    device, num_processes, process_index, is_main_process = DEVICE, 2, 0, True

    def gather(self, row):
        other = torch.zeros_like(row)
        other[0, -3:].copy_(torch.tensor([15.0, 0.0, 1.0]), non_blocking=True)
        return torch.cat([row, other])


def test_what_processes_tell_each_other(tmp_path, monkeypatch):
    """It is sent without waiting, and read a step later."""
    monkeypatch.setattr("mae_bench.late.gather_object", lambda mine: [*mine, "theirs"])
    left_out: list[Any] = []
    monkeypatch.setattr("mae_bench.late.leave_out", lambda skipped, _: left_out.append(skipped))
    keeper = SimpleNamespace(step=0)
    plan = SimpleNamespace(num_steps=9)
    steps = Steps(Two(), keeper, None, None, plan)  # type: ignore[arg-type]
    with FakeDevice() as fake:
        for step in range(2):
            losses = [torch.full((), 2.0 * step + i, device=DEVICE) for i in range(2)]
            mine = Step(losses, [[1, 2], [3, 4]], ["mine"])  # type: ignore[list-item]
            steps.send(step, 0.1, mine, stop=0, due=True)
            known = steps.settle()
            assert len(known) == step
        assert not fake.waits
    (first,) = known
    assert first == Known(0, 0.1, 0.25, 15, True, ["mine", "theirs"], [1, 2, 3, 4])
    assert left_out == [["mine", "theirs"]]
    keeper.step = 2  # saved in the meantime
    (second,) = steps.settle(0)
    assert (second.loss, second.due) == (1.25, False)


def test_batch_norm_of_several_processes(monkeypatch):
    world = SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, get_world_size=lambda: 2,
        all_reduce=lambda total: total.mul_(2),
    )  # fmt: skip
    monkeypatch.setattr("tasks.norms.dist", world)
    norm, rows = SyncBatchNorm(3), torch.randn(5, 3)
    with FakeDevice() as fake:
        norm.to(DEVICE)
        on_device = rows.to(DEVICE, non_blocking=True).requires_grad_()
        fake.waits.clear()
        norm(on_device).square().sum().backward()
        assert not fake.waits
        mean = norm.running_mean.to("cpu")
    torch.testing.assert_close(mean, 0.1 * rows.mean(dim=0))
