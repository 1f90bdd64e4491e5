"""The dense ViT with a class token and a table of biases a block: against timm's BEiT,
mmsegmentation's MAE and the plain ViT; and the loading of its checkpoints."""

import warnings
from pathlib import Path

import pytest
import torch
from timm.models.beit import Attention as BeitAttention
from timm.models.beit import gen_relative_position_index
from torch import Tensor

import backbones
from backbones import Dense
from backbones.checkpoint import save
from backbones.dense import DenseViT, WindowAttention
from backbones.posembed import resize, resize_offsets, sincos_2d
from backbones.relative import class_token_bias, shared_bias
from backbones.vit import TokenAttention

TINY = backbones.Size(embed_dim=32, depth=4, num_heads=2, patch_size=8, pretrain_image=32)
BEIT = Dense(relative_position="per_block", resize_position="load", class_token=True)
TABLE = "attn.relative_position_bias_table"


@pytest.fixture(autouse=True)
def tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backbones.SIZES, "tiny", TINY)


def build(dense: Dense = BEIT, image_size: int = 48) -> DenseViT:
    """One whose parameters are not at their initial values."""
    torch.manual_seed(0)
    vit = backbones.create("tiny", image_size, dense=dense)
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            size = 0.5 if name.endswith(TABLE) else 0.05
            parameter.add_(size * torch.randn_like(parameter))
    return vit


def images_for(vit: DenseViT) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, vit.image_size, vit.image_size, generator=generator)


def test_bias_is_beits() -> None:
    torch.manual_seed(0)
    side, heads = 4, 3
    table = torch.randn((2 * side - 1) ** 2 + 3, heads, requires_grad=True)
    bias = class_token_bias(table)
    assert bias.shape == (1, heads, 1 + side**2, 1 + side**2)
    expected = table[gen_relative_position_index((side, side))].permute(2, 0, 1)[None]
    assert torch.equal(bias, expected)
    upstream = torch.randn_like(bias)
    (own,), (other,) = (torch.autograd.grad(each, table, upstream) for each in (bias, expected))
    torch.testing.assert_close(own, other)


def test_attention_is_timms_beits() -> None:
    """On equal non-zero weights: output, and gradients of input and table, to 1e-5."""
    torch.manual_seed(0)
    ours = TokenAttention(32, 2, side=5, biased=True)
    theirs = BeitAttention(32, 2, qkv_bias=True, window_size=(5, 5))
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
        ours.qkv.bias[32:64] = 0  # BEiT's keys have none
        theirs.q_bias.copy_(ours.qkv.bias[:32])
        theirs.v_bias.copy_(ours.qkv.bias[64:])
        theirs.qkv.weight.copy_(ours.qkv.weight)
        theirs.proj.load_state_dict(ours.proj.state_dict())
        theirs.relative_position_bias_table.copy_(ours.relative_position_bias_table)
    results = []
    for attention in (ours, theirs):
        x = torch.randn(2, 26, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
        out = attention(x)
        upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
        table = attention.relative_position_bias_table
        results.append((out, *torch.autograd.grad(out, (x, table), upstream)))
    for own, other in zip(*results, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-5)


def test_equals_mmsegmentations_mae() -> None:
    """With its layer scale at 1: the whole backbone on mapped weights, to 1e-5."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mae = pytest.importorskip("mmseg.models.backbones.mae")
        vit = build()
        theirs = mae.MAE(
            img_size=48, patch_size=8, embed_dims=32, num_layers=4, num_heads=2,
            out_indices=[0, 2, 3], norm_cfg={"type": "LN", "eps": 1e-6}, init_values=1.0,
        )  # fmt: skip
    renamed = {
        "blocks.": "layers.",
        ".norm1.": ".ln1.",
        ".norm2.": ".ln2.",
        ".mlp.fc1.": ".ffn.layers.0.0.",
        ".mlp.fc2.": ".ffn.layers.1.",
        "patch_embed.proj": "patch_embed.projection",
    }
    state = {}
    for key, value in vit.state_dict().items():
        for old, new in renamed.items():
            key = key.replace(old, new)
        state[key] = value
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert unexpected == []
    assert all(name.endswith(("gamma_1", "gamma_2", "position_index")) for name in missing)
    maps = vit.feature_maps(images_for(vit), [0, 2, 3])
    theirs.eval()
    for own, other in zip(maps, theirs(images_for(vit)), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-5)


def test_equals_the_plain_vit_while_tables_are_zero(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = backbones.create("tiny", 48)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    torch.save({"model": plain.state_dict()}, tmp_path / "mae.pth")
    for relative in ("per_block", "none"):
        dense = Dense(relative_position=relative, resize_position="load", class_token=True)
        vit, report = backbones.load("tiny", tmp_path / "mae.pth", 48, dense=dense)
        images = images_for(vit)
        blocks = [3, 0, 0]
        pairs = zip(
            vit.feature_maps(images, blocks), plain.feature_maps(images, blocks), strict=True
        )
        for own, expected in pairs:
            torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
        assert set(report.skipped) == {"norm.weight", "norm.bias"}
        assert report.resized == {}
        tables = [f"blocks.{i}.{TABLE}" for i in range(4)] if relative == "per_block" else []
        assert report.fresh == dict.fromkeys(tables, "relative position, starts at zero")


def test_windows_with_a_table_a_block() -> None:
    """Without a class token there may be windows; a block's bias is what `shared_bias` makes."""
    vit = build(Dense(4, (3,), "per_block"))
    attention, x = vit.blocks[0].attn, torch.randn(2, 8, 8, 32)
    assert attention.relative_position_bias_table.shape == (49, 2)
    assert vit.blocks[3].attn.relative_position_bias_table.shape == (121, 2)
    twin = WindowAttention(32, 2, 4, "shared")
    twin.load_state_dict({k: v for k, v in attention.state_dict().items() if "table" not in k})
    expected = twin(x, shared_bias(attention.relative_position_bias_table))
    torch.testing.assert_close(attention(x), expected)
    assert [m.shape for m in vit.feature_maps(images_for(vit), [0, 3])] == [(2, 32, 6, 6)] * 2


def test_every_weight_trains_also_recomputed() -> None:
    results = []
    for again in (False, True):
        vit = build()
        for block in vit.blocks:
            if again:
                block.recompute()
        vit.feature_maps(images_for(vit), [3])[0].square().sum().backward()
        results.append([p.grad for p in vit.parameters()])
    assert all(g is not None and g.any() for g in results[0])
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_autocast_computes_in_bfloat16() -> None:
    vit = build()
    (expected,) = vit.feature_maps(images_for(vit), [3])
    with torch.autocast("cpu", torch.bfloat16):
        assert vit.blocks[0].attn(torch.randn(1, 37, 32)).dtype == torch.bfloat16
        (own,) = vit.feature_maps(images_for(vit), [3])
    torch.testing.assert_close(own.float(), expected, rtol=0.1, atol=0.1)


def test_positions_layers_and_decay() -> None:
    vit = backbones.create("tiny", 48, dense=BEIT)
    assert torch.equal(vit.pos_embed, resize(sincos_2d(32, 4), 6))
    forward = backbones.create("tiny", 48, dense=Dense(class_token=True))
    assert torch.equal(forward.pos_embed, sincos_2d(32, 4))
    assert forward.feature_maps(images_for(forward), [0])[0].shape == (2, 32, 6, 6)
    names = [name for name, _ in vit.named_parameters()]
    assert {vit.layer_index(name) for name in names} == {0, 1, 2, 3, 4}
    assert vit.layer_index("cls_token") == 0
    assert vit.layer_index(f"blocks.2.{TABLE}") == 3
    assert vit.no_decay() == {"pos_embed", "cls_token"} <= set(names)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window_size": 4}, "class_token with window_size 4"),
        ({"relative_position": "shared"}, "class_token with relative_position 'shared'"),
        ({"relative_position": "decomposed"}, "class_token with relative_position 'decomposed'"),
    ],
)
def test_a_class_token_is_refused_where_it_has_no_place(options: dict, said: str) -> None:
    with pytest.raises(backbones.BackboneError, match=said) as error:
        Dense(class_token=True, **options)
    assert "\n" not in str(error.value)


def test_own_checkpoint_loads_exactly(tmp_path: Path) -> None:
    source, file = build(), tmp_path / "dense.safetensors"
    save(source.state_dict(), file, {"backbone": "tiny"})
    vit, report = backbones.load("tiny", file, 48, dense=BEIT)
    assert report.loaded == sorted(source.state_dict())
    assert report.fresh == report.skipped == report.resized == {}
    assert all(torch.equal(vit.state_dict()[k], v) for k, v in source.state_dict().items())


def test_tables_of_another_window_are_resized(tmp_path: Path) -> None:
    """By BEiT's rule (test_formats.py has its code); the class token's rows stay as they are."""
    source, file = build(), tmp_path / "dense.safetensors"
    save(source.state_dict(), file, {"backbone": "tiny"})
    vit, report = backbones.load("tiny", file, 80, dense=BEIT)
    key = f"blocks.1.{TABLE}"
    assert report.resized[key] == "124 -> 364 offsets, geometric spacing, cubic"
    assert report.resized["pos_embed"] == "37 -> 101 positions, bicubic"
    old, new = source.state_dict()[key], vit.state_dict()[key]
    assert torch.equal(new[:-3], resize_offsets(old[:-3], 10))
    assert torch.equal(new[-3:], old[-3:])
    grid = new[:-3].view(19, 19, 2)
    torch.testing.assert_close(grid[9, 9], old[:-3].view(11, 11, 2)[5, 5])


def test_class_rows_are_dropped_without_a_class_token(tmp_path: Path) -> None:
    source, file = build(), tmp_path / "dense.safetensors"
    save(source.state_dict(), file, {"backbone": "tiny"})
    dense = Dense(relative_position="per_block", resize_position="load")
    vit, report = backbones.load("tiny", file, 48, dense=dense)
    key = f"blocks.1.{TABLE}"
    assert report.resized[key] == "124 -> 121 offsets, class rows dropped"
    assert torch.equal(vit.state_dict()[key], source.state_dict()[key][:-3])
    assert set(report.skipped) == {"cls_token"}


def test_half_a_set_of_tables_is_refused(tmp_path: Path) -> None:
    state = build().state_dict()
    del state[f"blocks.2.{TABLE}"]
    torch.save(state, tmp_path / "half.pth")
    with pytest.raises(backbones.BackboneError, match=r"missing blocks.2.attn.relative"):
        backbones.load("tiny", tmp_path / "half.pth", 48, dense=BEIT)
    state = {k: v[:-3] if k.endswith(TABLE) else v for k, v in build().state_dict().items()}
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(backbones.BackboneError, match="shapes"):
        backbones.load("tiny", tmp_path / "other.pth", 48, dense=BEIT)
