"""Pyramids and their norms, against detectron2, torch and hand-computed cases."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from tasks.coco.pyramid import LEVELS, FourStagePyramid, SimplePyramid, norm_layer
from tasks.norms import SyncBatchNorm


@pytest.mark.parametrize(("pyramid", "taps"), [(SimplePyramid, 1), (FourStagePyramid, 4)])
@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_levels_halve_and_every_weight_trains(pyramid, taps, norm):
    torch.manual_seed(0)
    module = pyramid(64, 16, norm_layer(norm))
    levels = module([torch.randn(2, 64, 8, 12) for _ in range(taps)])
    shapes = [tuple(level.shape) for level in levels.values()]
    assert tuple(levels) == LEVELS
    assert shapes == [(2, 16, 32 >> i, 48 >> i) for i in range(5)]
    sum(level.square().sum() for level in list(levels.values())[:4]).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_four_stages_by_hand():
    """2111.11429: the earliest tap is the finest; group norm in it alone; p5 is p4's max-pool."""
    module = FourStagePyramid(64, 16, norm_layer("batch"))
    kinds = [[type(layer).__name__ for layer in adapter.modules()] for adapter in module.adapters]
    finest = ["Sequential", "ConvTranspose2d", "GroupNorm", "GELU", "ConvTranspose2d"]
    assert kinds[0] == finest
    assert kinds[1][-1] == "ConvTranspose2d"
    assert kinds[2] == ["Identity"]
    assert kinds[3][-1] == "MaxPool2d"
    assert module.adapters[0][1].num_groups == 32
    norms = [each for each in module.fpn.modules() if isinstance(each, nn.BatchNorm2d)]
    assert len(norms) == 8  # a lateral and an output convolution a level, each with one
    maps = [torch.full((1, 64, 2, 2), float(i)) for i in range(4)]
    seen = []
    for adapter in module.adapters:
        adapter.register_forward_hook(lambda _m, given, _out: seen.append(given[0].mean().item()))
    module(maps)
    assert seen == [0.0, 1.0, 2.0, 3.0]


def test_simple_pyramid_has_detectron2s_layers():
    """The same kinds of layers with the same shapes, level by level."""
    pytest.importorskip("detectron2")
    from detectron2.modeling import SimpleFeaturePyramid, ViT

    net = ViT(img_size=64, embed_dim=64, depth=1, num_heads=2)
    scales = (4.0, 2.0, 1.0, 0.5)
    theirs = SimpleFeaturePyramid(net, "last_feat", 16, scales, norm="LN")
    ours = SimplePyramid(64, 16, norm_layer("layer"))
    for name, stage in zip(LEVELS, theirs.stages, strict=False):
        expected = [tuple(each.shape) for each in stage.state_dict().values()]
        assert [tuple(p.shape) for p in getattr(ours, name).state_dict().values()] == expected


def test_layer_norm_is_over_channels():
    x = torch.randn(2, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    normed = norm_layer("layer")(6)(x)
    expected = (x - x.mean(1, keepdim=True)) / (
        x.var(1, unbiased=False, keepdim=True) + 1e-6
    ).sqrt()
    torch.testing.assert_close(normed, expected, rtol=1e-5, atol=1e-6)


def test_sync_batch_norm_alone_is_torchs():
    torch.manual_seed(0)
    ours, theirs = SyncBatchNorm(5), nn.BatchNorm2d(5)
    for x in torch.randn(3, 4, 5, 6, 6):
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_sync_batch_norm_of_no_regions_keeps_its_statistics():
    norm = SyncBatchNorm(5)
    out = norm(torch.zeros(0, 5, 7, 7, requires_grad=True))
    out.sum().backward()
    assert out.shape == (0, 5, 7, 7)
    assert norm.weight.grad is not None
    assert torch.equal(norm.running_mean, torch.zeros(5))
    assert torch.equal(norm.running_var, torch.ones(5))


def normalise_in_process(rank: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    torch.save(normalise(SHARES[rank]), Path(out) / f"{rank}.pt")
    dist.destroy_process_group()


SHARES = (slice(0, 1), slice(1, 6))
"""one region for the first process, five for the second"""


def normalise(share: slice) -> dict[str, torch.Tensor]:
    """Output and gradients of one process's share of six regions, after two passes."""
    regions = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    x = regions[share].clone().requires_grad_()
    norm = SyncBatchNorm(3)
    norm(x)
    out = norm(x)
    (out * regions[share].roll(1, dims=1)).sum().backward()
    return {
        "out": out.detach(),
        "x": x.grad,
        "weight": norm.weight.grad,
        "mean": norm.running_mean,
        "var": norm.running_var,
        "batches": norm.num_batches_tracked,
    }


def test_sync_batch_norm_of_two_processes_is_that_of_one(tmp_path):
    whole = normalise(slice(0, 6))
    arguments = (str(tmp_path / "store"), str(tmp_path))
    mp.start_processes(normalise_in_process, arguments, nprocs=2, start_method="fork")
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    close = {"rtol": 1e-5, "atol": 1e-6}
    for name in ("out", "x"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole[name], **close)
    torch.testing.assert_close(parts[0]["weight"] + parts[1]["weight"], whole["weight"], **close)
    for name in ("mean", "var", "batches"):
        for part in parts:
            torch.testing.assert_close(part[name], whole[name], **close)
