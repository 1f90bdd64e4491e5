"""On a CUDA device: the same numbers as on the CPU, and a run that trains, stops and goes on."""

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import backbones
import mae_bench
from mae_bench.mae import MaskedAutoencoder
from tasks import miniature
from tasks.classification import knn, logistic

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_masked_autoencoder_agrees_with_the_cpu():
    torch.manual_seed(0)
    model = MaskedAutoencoder("vit_s", image_size=64, norm_pix=True, decoder_depth=2)
    images, noise = torch.randn(4, 3, 64, 64), torch.rand(4, 16)
    on_cpu = model(images, noise)
    on_cpu.loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad(set_to_none=True)
    model.cuda()
    on_gpu = model(images.cuda(), noise.cuda())
    on_gpu.loss.backward()
    torch.testing.assert_close(on_gpu.loss.cpu(), on_cpu.loss, rtol=1e-4, atol=0)
    torch.testing.assert_close(on_gpu.mask.cpu(), on_cpu.mask, rtol=0, atol=0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = expected[name].abs().max().item()
            torch.testing.assert_close(
                parameter.grad.cpu(), expected[name], rtol=1e-3, atol=1e-3 * scale
            )


def test_bf16_stays_close_to_fp32():
    torch.manual_seed(0)
    model = MaskedAutoencoder("vit_s", image_size=64).cuda()
    images, noise = torch.randn(8, 3, 64, 64).cuda(), torch.rand(8, 16).cuda()
    exact = model(images, noise).loss
    with torch.autocast("cuda", torch.bfloat16):
        rounded = model(images, noise).loss
    torch.testing.assert_close(rounded.float(), exact, rtol=2e-2, atol=0)


def test_backbone_agrees_with_the_cpu():
    torch.manual_seed(0)
    vit = backbones.create("vit_s", image_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        on_cpu = vit(images)
        on_gpu = vit.cuda()(images.cuda()).cpu()
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-3, atol=1e-3)


def test_pretrain_and_transfer_on_the_gpu(tmp_path):
    sizes = miniature.WorldSizes.only(imagenet1k_train=40, imagenet1k_val=20, unlabelled_train=64)
    world = miniature.make(tmp_path / "world", sizes=sizes, workers=1)
    common = {"out": tmp_path / "runs", "precision": "bf16"}
    small = {"epochs": 2, "warmup_epochs": 1.0, "batch_size": 16, "device_batch": 8}
    made = mae_bench.pretrain(data=world / "unlabelled", name="pre", **common, **small)
    assert made.environment.device == torch.cuda.get_device_name(0)
    lines = (tmp_path / "runs/pre/log.jsonl").read_text().splitlines()
    assert len(lines) == 8
    assert json.loads(lines[-1])["loss"] < json.loads(lines[0])["loss"]
    scored = mae_bench.transfer(
        data=world / "imagenet1k",
        checkpoint=tmp_path / "runs/pre/backbone.safetensors",
        name="finetune",
        **common,
        **small,
    )
    assert 0 <= scored.metrics["top1"] <= 100


def test_detection_agrees_with_the_cpu():
    """Losses and detections of the case that detectron2's numbers pin; nothing in it is random."""
    sys.path.insert(0, str(Path(__file__).parent / "tasks"))
    import detectron2_numbers as pinned

    expected = json.loads(pinned.FILE.read_text())
    vit, pyramid, detector = (module.cuda().eval() for module in pinned.build())
    images, sizes, targets = pinned.inputs()
    for target in targets:
        target |= {key: target[key].cuda() for key in ("boxes", "labels")}
    with torch.no_grad():
        levels = pyramid(vit.feature_maps(images.cuda(), pinned.case().taps))
        found = detector.detect(levels, images.cuda(), sizes)
        losses = detector.train().losses(levels, images.cuda(), sizes, targets)
    for name, value in expected["losses"].items():
        assert losses[name].item() == pytest.approx(value, rel=1e-3), name
    for one, other in zip(found, expected["detections"], strict=True):
        scores = torch.tensor(other["scores"])
        torch.testing.assert_close(one.scores.cpu(), scores, rtol=0, atol=1e-3)


@pytest.mark.parametrize("protocol", ["mask_rcnn-vitdet", "mask_rcnn-fpn"])
def test_coco_on_the_gpu(tmp_path, protocol):
    sizes = miniature.WorldSizes.only(coco_train=24, coco_val=8)
    world = miniature.make(tmp_path / "world", sizes=sizes, workers=1)
    record = mae_bench.transfer(
        task="coco", protocol=protocol, init="scratch", data=world / "coco",
        out=tmp_path / "runs", name="run", precision="bf16", epochs=4,
    )  # fmt: skip
    lines = (tmp_path / "runs/run/log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["loss"] < json.loads(lines[0])["loss"]
    assert {"ap_box", "ap_mask"} <= set(record.metrics)


def test_ade20k_on_the_gpu(tmp_path):
    sizes = miniature.WorldSizes.only(ade20k_train=24, ade20k_val=6)
    world = miniature.make(tmp_path / "world", sizes=sizes, workers=1)
    record = mae_bench.transfer(
        task="ade20k", init="scratch", data=world / "ade20k",
        out=tmp_path / "runs", name="run", precision="bf16", epochs=4,
    )  # fmt: skip
    lines = (tmp_path / "runs/run/log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["loss"] < json.loads(lines[0])["loss"]
    assert {"miou", "macc", "aacc"} <= set(record.metrics)


def test_nearest_neighbours_and_logistic_regression_agree_with_the_cpu():
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(600, 32, generator=generator), torch.randn(90, 32)
    targets = (bank[:, :5] + torch.randn(600, 5, generator=generator)).argmax(dim=1)
    found = [knn.nearest(queries, bank, 20, torch.device(where)) for where in ("cpu", "cuda")]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(theirs.cpu(), ours, rtol=1e-4, atol=1e-5)
    solved = [
        logistic.solve(bank.to(where), targets.to(where), 5, 1e-2, max_iter=500, tolerance=1e-5)
        for where in ("cpu", "cuda")
    ]
    scores = [
        logistic.logits(each.parameters, queries.to(each.parameters.device)) for each in solved
    ]
    scores = [each.cpu() for each in scores]
    torch.testing.assert_close(scores[1], scores[0], rtol=0, atol=1e-2)


@pytest.mark.parametrize("what", ["mae", "moco_v3", "finetune", "linear", "ade20k"])
def test_no_step_waits(tmp_path, monkeypatch, what):
    """torch raises an error where the host would wait, but for detection, which has to."""
    loop = import_module("mae_bench.train")
    seed, begun = loop.seed_forward, []

    def begin(*arguments):
        begun.append(arguments)
        torch.cuda.set_sync_debug_mode("error" if 3 <= len(begun) < 6 else "default")
        seed(*arguments)

    monkeypatch.setattr(loop, "seed_forward", begin)
    few = {"imagenet1k_train": 40, "imagenet1k_val": 8, "unlabelled_train": 40}
    few = {"ade20k_train": 24, "ade20k_val": 6} if what == "ade20k" else few
    sizes = miniature.WorldSizes.only(**few)
    world = miniature.make(tmp_path / "world", sizes=sizes, workers=1)
    common = {"out": tmp_path / "runs", "name": "run", "precision": "bf16"}
    small = {"epochs": 2, "warmup_epochs": 1.0, "batch_size": 8, "device_batch": 8}
    if what in ("mae", "moco_v3"):
        mae_bench.pretrain(method=what, data=world / "unlabelled", **common, **small)
    elif what == "ade20k":
        mae_bench.transfer(task="ade20k", init="scratch", data=world / "ade20k", epochs=2, **common)
    else:
        mixed = {"mixup": 0.8, "cutmix": 1.0, "erase_prob": 0.25} if what == "finetune" else {}
        mae_bench.transfer(
            protocol=what, init="scratch", data=world / "imagenet1k", **common, **small, **mixed
        )
    assert len(begun) > 6
