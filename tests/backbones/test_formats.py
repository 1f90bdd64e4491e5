"""Every format of checkpoints, written by timm's or transformers' own models: the same features,
at the native size and after a resize."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.interpolate import RectBivariateSpline
from timm.layers import resample_abs_pos_embed
from timm.models.beit import Beit
from torch import nn
from written_checkpoints import SIZES, WRITERS, Network, images, vit, write

import backbones
from backbones import conversion
from backbones.checkpoint import read_tensors
from backbones.colour import IMAGENET_MEAN, IMAGENET_STD
from backbones.formats import FORMATS, HALF
from backbones.posembed import sincos_2d


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in SIZES.items():
        monkeypatch.setitem(backbones.SIZES, name, size)


@pytest.mark.parametrize("kind", WRITERS)
def test_features_are_equal(kind: str, tmp_path: Path) -> None:
    """To 1e-5 in float32 with nothing resized, found by the keys alone."""
    file, network = write(kind, tmp_path)
    model, report = backbones.load("tiny", file, 16)
    with torch.no_grad():
        own, expected = model.eval()(images()), network(images())
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    assert report.format == WRITERS[kind][1]
    assert report.coverage == 1
    assert report.fresh == {}
    assert report.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", WRITERS)
def test_every_key_is_accounted_for(kind: str, tmp_path: Path) -> None:
    """Exactly one format is told by a file, and each of its tensors is loaded or has a rule."""
    file, _ = write(kind, tmp_path)
    tensors, _ = read_tensors(file)
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    told = [name for name, each in FORMATS.items() if each.fits(tensors) and each.told(tensors)]
    assert told == [WRITERS[kind][1]]
    converted = conversion.convert(str(file), tensors)
    lost = sum(value.numel() for value in tensors.values()) - sum(
        value.numel() for value in converted.state.values()
    )
    skipped = sum(tensors[key].numel() for key in converted.skipped)
    made = 32 * sum("q_bias" in key or "query.bias" in key for key in tensors)  # keys' zero biases
    made *= 0 if any("key.bias" in key for key in tensors) else 1
    made += 32 * ("zeros for the class token" in str(converted.changed))
    assert lost == skipped - made


def interp2d(x: Any, y: Any, z: Any, kind: str) -> Callable[[Any, Any], Any]:
    """scipy's function that BEiT and timm call, which scipy took out: as scipy says to replace it.

    docs.scipy.org, "Interpolate transition guide"; on a regular grid equal to the bit.
    """
    assert kind == "cubic"
    spline = RectBivariateSpline(x, y, z.T)
    return lambda wanted_x, wanted_y: spline(wanted_x, wanted_y).T


def resized(model: Any, side: int) -> Network:
    """timm's model with its positions at another size, by timm's function without antialiasing."""
    grid = [side // 4, side // 4]
    if isinstance(model, Beit) and model.pos_embed is None:
        model.set_input_size((side, side))
        return model.forward_features
    table = resample_abs_pos_embed(model.pos_embed, grid, antialias=False)
    if isinstance(model, Beit):  # its own resize of these antialiases
        model.pos_embed = nn.Parameter(table)
        model.patch_embed.set_input_size((side, side))
        return model.forward_features
    larger = vit(table.detach(), img_size=side, global_pool=model.global_pool)
    state = model.state_dict() | {"pos_embed": table}
    larger.load_state_dict({key: state[key] for key in larger.state_dict()})
    return larger.forward_features


@pytest.mark.parametrize(
    "kind",
    ["mae", "mae fine-tuned", "moco v3", "timm", "dino full", "augreg", "beit", "beit fine-tuned",
     "beit in1k", "hf vit", "hf vit classifier"],
)  # fmt: skip
@pytest.mark.parametrize("side", [8, 28])
def test_features_are_equal_after_a_resize(
    kind: str, side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one rule for absolute positions (see `backbones.fit`), by BEiT's code for its tables.

    timm has that code, with the cubic interpolation where it is told that scipy is there.
    transformers resizes absolute positions by the same rule itself.
    """
    monkeypatch.setattr("timm.layers.pos_embed_rel._USE_SCIPY", True)
    monkeypatch.setattr("scipy.interpolate.interp2d", interp2d)
    file, network = write(kind, tmp_path)
    if not kind.startswith("hf"):
        network = resized(network.__self__, side)  # timm's model behind its method
    model, report = backbones.load("tiny", file, side)
    with torch.no_grad():
        own, expected = model.eval()(images(side)), network(images(side))
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    assert any("17 -> " in how or "52 -> " in how for how in report.resized.values())


def test_what_belongs_to_the_weights(tmp_path: Path) -> None:
    """Statistics of the pixels, pooling, eps and heads by hand, on the backbone and its report."""
    expected: dict[str, tuple[Any, ...]] = {
        "mae": (IMAGENET_MEAN, "patches", 1e-6, 4),
        "moco v3": (IMAGENET_MEAN, "cls", 1e-6, 4),
        "timm": (IMAGENET_MEAN, "cls", 1e-6, 4),
        "augreg": (HALF, "cls", 1e-6, 4),
        "beit": (HALF, "patches", 1e-6, 4),
        "beit in1k": (IMAGENET_MEAN, "patches", 1e-6, 4),
        "hf vit": (HALF, "cls", 1e-12, 4),
        "hf vit classifier": (HALF, "cls", 1e-2, 8),
        "hf vit state": (HALF, "cls", 1e-12, 4),
        "hf mae": (IMAGENET_MEAN, "patches", 1e-12, 4),
        "mae-bench": (HALF, "cls", 1e-3, 2),
    }
    for kind, facts in expected.items():
        folder = tmp_path / kind
        folder.mkdir()
        model, report = backbones.load("tiny", write(kind, folder)[0], 16)
        found = (report.pixel_mean, report.pooling, report.norm_eps, report.num_heads)
        assert found == facts, kind
        assert model.pixel_mean == facts[0], kind
        assert model.pixel_std == (IMAGENET_STD if facts[0] == IMAGENET_MEAN else report.pixel_std)
        assert {block.attn.num_heads for block in model.blocks} == {facts[3]}
        assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {facts[2]}


def test_moco_v3s_small_vit_has_twelve_heads(tmp_path: Path) -> None:
    """facebookresearch/moco-v3/issues/7; no shape shows it, and six give other features."""
    positions = sincos_2d(384, 4).roll(192, dims=2)
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 384, "depth": 1}
    network = vit(positions, **shape, num_heads=12)
    torch.save({"model": network.state_dict()}, tmp_path / "vit-s.pth")
    model, report = backbones.load("small", tmp_path / "vit-s.pth", 32)
    with torch.no_grad():
        expected = network.forward_features(images(32))
        torch.testing.assert_close(model.eval()(images(32)), expected, rtol=1e-5, atol=1e-5)
        six, _ = backbones.load("small", tmp_path / "vit-s.pth", 32, format="deit")
        assert not torch.allclose(six.eval()(images(32)), expected, atol=1e-2)
    assert report.num_heads == 12
    (said,) = report.assumed
    assert said.startswith("12 heads, as moco_v3's of this width have")
    assert said.endswith("mmpretrain's MAE, have 6: --heads 6 for those")
    assert report.maker is None  # so that no label is refused for it
    for told in ({"format": "moco_v3"}, {"heads": 12}):
        _, report = backbones.load("small", tmp_path / "vit-s.pth", 32, **told)
        assert (report.num_heads, report.assumed) == (12, [])
    state = {f"module.base_encoder.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "original.pth")
    _, report = backbones.load("small", tmp_path / "original.pth", 32)
    assert (report.num_heads, report.assumed) == (12, [])


def test_a_name_that_states_heads_is_not_overruled_by_a_guess(tmp_path: Path) -> None:
    """mmpretrain's MAE has MoCo v3's table, and the heads of its size."""
    positions = sincos_2d(384, 14).roll(192, dims=2)
    shape = {"img_size": 224, "patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6}
    network = vit(positions, **shape)
    torch.save(network.state_dict(), tmp_path / "mae.pth")
    model, report = backbones.load("timm:vit_small_patch16_224", tmp_path / "mae.pth", 224)
    with torch.no_grad():  # twelve blocks of such weights blow up what is rounded
        expected = network.double().forward_features(images(224).double())
        own = model.eval().double()(images(224).double())
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    assert report.assumed[0].startswith("6 heads, as timm:vit_small_patch16_224 has; moco_v3's of")


@pytest.mark.parametrize("kind", ["mae", "moco v3 as deit"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounded_positions_still_tell(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """At the published widths and grids: the layout decides over heads and what is pooled."""
    file, _ = write(kind, tmp_path)
    for width, grid in ((384, 14), (1280, 16)):
        table = sincos_2d(width, grid)
        if kind != "mae":
            table = table.roll(width // 2, dims=2)
        tensors = {"patch_embed.proj.weight": torch.zeros(width, 3, 16, 16),
                   "pos_embed": table.to(dtype)}  # fmt: skip
        assert conversion.detect(str(file), tensors) == WRITERS[kind][1]


def test_a_format_that_is_named_narrows_what_is_assumed(tmp_path: Path) -> None:
    file, _ = write("timm", tmp_path)
    _, report = backbones.load("tiny", file, 16)
    assert "AugReg" in report.assumed[0]
    assert "assumed: ImageNet's pixel statistics" in str(report)
    model, report = backbones.load("tiny", file, 16, format="augreg")
    assert model.pixel_mean == model.pixel_std == HALF
    assert report.assumed == ["4 heads, as tiny has; no tensor shows them"]


def test_a_bias_of_keys_changes_nothing_and_learns_nothing(tmp_path: Path) -> None:
    """BEiT's keys have none. A softmax over keys does not see what is added for all of them."""
    model, _ = backbones.load("tiny", write("beit", tmp_path)[0], 16)
    before = model.eval()(images())
    generator = torch.Generator().manual_seed(2)
    (before * torch.randn(before.shape, generator=generator)).sum().backward()
    for block in model.blocks:
        queries, keys, values = block.attn.qkv.bias.grad.chunk(3)
        assert keys.norm() < 1e-5 * min(queries.norm(), values.norm())
        assert not block.attn.qkv.bias[32:64].any()
        block.attn.qkv.bias.data[32:64] = torch.randn(32, generator=generator)
    torch.testing.assert_close(model(images()), before, rtol=1e-5, atol=1e-5)
