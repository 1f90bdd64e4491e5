"""The dense ViT against timm's `VisionTransformerSAM`, detectron2's ViT, timm's BEiT and formulas
written out, and the loading of plain and dense checkpoints."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from timm.models.beit import gen_relative_position_index
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

import backbones
from backbones import Dense
from backbones.checkpoint import save
from backbones.dense import DenseViT, join_windows, split_windows
from backbones.loading import load_into, read
from backbones.posembed import resize_grid, sincos_2d
from backbones.relative import (
    attend_decomposed,
    attend_fused,
    attend_tiled,
    by_distance,
    distance_terms,
    shared_bias,
)
from backbones.tiled import tiles

# 32 / 8 = 4 tokens in pre-training, 10 in the tests: windows of 4 need two rows of padding.
TINY = backbones.Size(embed_dim=32, depth=4, num_heads=2, patch_size=8, pretrain_image=32)
VITDET = Dense(window_size=4, global_blocks=(1, 3), relative_position="decomposed")
SHARED = Dense(4, (1, 3), "shared", resize_position="load")


@pytest.fixture(autouse=True)
def tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network that nevertheless takes the way of large ones through `linear`."""
    monkeypatch.setattr("backbones.linear.LEAST_WORK", 1)
    monkeypatch.setitem(backbones.SIZES, "tiny", TINY)


def build(dense: Dense = VITDET, image_size: int = 80, drop_path: float = 0.0) -> DenseViT:
    """One whose norms, positions and relative positions are not at their initial values."""
    torch.manual_seed(0)
    vit = backbones.create("tiny", image_size, drop_path, dense=dense)
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            size = 0.5 if "rel_pos" in name else 0.05
            parameter.add_(size * torch.randn_like(parameter))
    return vit


def images_for(vit: DenseViT, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, vit.image_size, vit.image_size, generator=generator)


def gradients(vit: nn.Module, maps: list[Tensor]) -> dict[str, Tensor]:
    """Of a fixed random projection of the maps, by parameter."""
    torch.manual_seed(2)
    vit.zero_grad()
    sum((m * torch.randn(m.shape)).sum() for m in maps).backward()
    return {key: p.grad.clone() for key, p in vit.named_parameters() if p.grad is not None}


def assert_near(own: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """All gradients, to 1e-5 of their norm."""
    assert set(own) == set(expected)
    for key, value in expected.items():
        distance = (own[key].reshape(value.shape) - value).norm() / value.norm()
        assert distance < 1e-5, f"{key}: {distance:.1e}"


# --- Against other implementations ------------------------------------------------------------


def timm_twin(vit: DenseViT) -> VisionTransformerSAM:
    """timm resizes positions with antialiasing, so it gets them resized by us."""
    twin = VisionTransformerSAM(
        img_size=vit.image_size,
        patch_size=vit.patch_size,
        embed_dim=vit.embed_dim,
        depth=vit.depth,
        num_heads=vit.num_heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=vit.dense.relative_position == "decomposed",
        window_size=vit.dense.window_size or 0,
        global_attn_indexes=vit.dense.global_blocks,
        neck_chans=0,
        num_classes=0,
    )
    twin.neck = nn.Identity()
    state = {key: value.clone() for key, value in vit.state_dict().items()}
    side = vit.grid_size
    state["pos_embed"] = resize_grid(state["pos_embed"], side).view(1, side, side, -1)
    twin.load_state_dict(state, strict=True)
    return twin


@pytest.mark.parametrize(
    ("dense", "image_size"),
    [
        (VITDET, 80),
        (VITDET, 64),  # nothing to pad
        (VITDET, 24),  # windows larger than the map
        (Dense(relative_position="decomposed"), 80),
        (Dense(window_size=3, relative_position="decomposed"), 80),
        (Dense(window_size=4, global_blocks=(0,)), 80),
        (Dense(), 40),
        (Dense(4, (1, 3), "decomposed", patch_size=10, resize_position="load"), 70),
    ],
)
def test_equals_timm(dense: Dense, image_size: int) -> None:
    vit = build(dense, image_size)
    twin, images = timm_twin(vit), images_for(vit)
    blocks = [0, 1, 3]
    maps = vit.feature_maps(images, blocks)
    expected = twin.forward_intermediates(images, indices=blocks, intermediates_only=True)
    for own, theirs in zip(maps, expected, strict=True):
        assert own.shape == (2, vit.embed_dim, vit.grid_size, vit.grid_size)
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-5)
    own, theirs = gradients(vit, maps), gradients(twin, expected)
    if vit.pos_embed.shape[1] != vit.grid_size**2:
        table = vit.pos_embed.detach().clone().requires_grad_()
        resized = resize_grid(table, vit.grid_size)
        upstream = theirs["pos_embed"].flatten(1, 2)
        (theirs["pos_embed"],) = torch.autograd.grad(resized, table, upstream)
    assert set(own) == {name for name, _ in vit.named_parameters()}
    assert_near(own, theirs)


@pytest.mark.parametrize("patch_size", [None, 16])
def test_equals_detectron2(patch_size: int | None, tmp_path: Path) -> None:
    """The same file in both: positions of a 14 x 14 grid with a class row, resized to 10 x 10."""
    theirs = pytest.importorskip("detectron2.modeling.backbone.vit")
    pytest.importorskip("timm.models.layers", reason="detectron2 takes its layers from there")
    size = 10 * (patch_size or 8)
    reference = theirs.ViT(
        img_size=size, patch_size=patch_size or 8, embed_dim=32, depth=4, num_heads=2,
        norm_layer=partial(nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=4,
        window_block_indexes=(0, 2), pretrain_img_size=14 * (patch_size or 8),
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            parameter.add_((0.5 if "rel_pos" in name else 0.05) * torch.randn_like(parameter))
    torch.save(reference.state_dict(), tmp_path / "d2.pth")
    backbones.SIZES["tiny"] = backbones.Size(32, 4, 2, patch_size=8, pretrain_image=14 * 8)
    dense = Dense(4, (1, 3), "decomposed", patch_size=patch_size)
    vit, report = backbones.load("tiny", tmp_path / "d2.pth", size, dense=dense)
    assert report.resized == {"pos_embed": "197 -> 196 positions, class row dropped"}
    images = images_for(vit)
    (own,), expected = vit.feature_maps(images, [3]), reference(images)["last_feat"]
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    own_gradients, their_gradients = gradients(vit, [own]), gradients(reference, [expected])
    assert not their_gradients["pos_embed"][:, 0].any()
    their_gradients["pos_embed"] = their_gradients["pos_embed"][:, 1:]
    assert_near(own_gradients, their_gradients)


def attention_inputs(
    batch: int, side: int, width: int, dtype: torch.dtype
) -> tuple[list[Tensor], Tensor]:
    """Strided q, k, v as the packed projection leaves them, two tables; an upstream gradient."""
    torch.manual_seed(0)
    shape = (batch, side**2, 3, 2, width)
    q, k, v = torch.randn(shape, dtype=dtype).unbind(2)
    tables = [torch.randn(2 * side - 1, width, dtype=dtype) for _ in range(2)]
    inputs = [q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), *tables]
    return [t.requires_grad_() for t in inputs], torch.randn(batch, 2, side**2, width, dtype=dtype)


def attend_by_hand(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """All N x N logits, one after the other."""
    side = (len(rel_h) + 1) // 2
    places = [(row, column) for row in range(side) for column in range(side)]
    logits = [
        torch.stack([
            (q[:, :, i] * k[:, :, j]).sum(-1) * q.shape[-1] ** -0.5
            + q[:, :, i] @ rel_h[row - key_row + side - 1]
            + q[:, :, i] @ rel_w[column - key_column + side - 1]
            for j, (key_row, key_column) in enumerate(places)
        ], dim=-1)
        for i, (row, column) in enumerate(places)
    ]  # fmt: skip
    return torch.stack(logits, dim=2).softmax(dim=-1) @ v


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["f32", "f64"]
)
@pytest.mark.parametrize(
    ("batch", "side", "width"), [(1, 7, 16), (6, 4, 12), (2, 1, 8)], ids=["image", "windows", "1"]
)
@pytest.mark.parametrize("way", [attend_fused, attend_tiled])
def test_decomposed_attention_by_hand(
    way: Callable, batch: int, side: int, width: int, dtype: torch.dtype, tolerance: float
) -> None:
    inputs, upstream = attention_inputs(batch, side, width, dtype)
    out, expected = attend_by(way, *inputs), attend_by_hand(*inputs)
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    own = torch.autograd.grad(out, inputs, upstream)
    for mine, theirs in zip(own, torch.autograd.grad(expected, inputs, upstream), strict=True):
        near = tolerance * max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=near)


def attend_by(way: Callable, q: Tensor, k: Tensor, v: Tensor, *tables: Tensor) -> Tensor:
    return way(q, k, v, *(term.flatten(2, 3) for term in distance_terms(q, *tables)))


@pytest.mark.parametrize("tile", [1, 100, 16 * 16 * 2 + 5, 2**17])
def test_tiles(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any size: each logit once, and the derivatives are those of the function."""
    monkeypatch.setattr("backbones.tiled.TILE", tile)
    seen = torch.zeros(5, 16)
    for group, part in tiles(5, 16):
        assert seen[group, part].numel() * 16 <= max(tile, 16)
        seen[group, part] += 1
    assert (seen == 1).all()
    inputs, _ = attention_inputs(1, 3, 3, torch.float64)
    assert torch.autograd.gradcheck(attend_decomposed, inputs)


FLASH = "aten._scaled_dot_product_flash_attention_for_cpu.default"


class Operators(TorchDispatchMode):
    """Records the operators that run, with the number of elements of their largest output."""

    def __init__(self) -> None:
        super().__init__()
        self.largest: dict[str, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in (out if isinstance(out, tuple) else (out,)) if isinstance(t, Tensor)]
        size = max((t.numel() for t in tensors), default=0)
        self.largest[str(func)] = max(self.largest.get(str(func), 0), size)
        return out


@pytest.mark.parametrize("autocast", [False, True])
def test_which_way_is_taken(autocast: bool) -> None:
    inputs, _ = attention_inputs(1, 4, 8, torch.float32)
    with Operators() as operators, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        attend_decomposed(*inputs)
    assert (FLASH in operators.largest) == autocast


@pytest.mark.parametrize("way", [attend_fused, attend_tiled])
def test_global_attention_makes_no_square_tensor(way: Callable) -> None:
    """Neither in the forward nor in the backward pass; a flash kernel is the fused one."""
    inputs, upstream = attention_inputs(1, 24, 8, torch.float32)
    tokens, saved = 24**2, []
    with Operators() as operators:
        with saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
            out = attend_by(way, *inputs)
        torch.autograd.grad(out, inputs, upstream)
    backward = FLASH.replace(".default", "_backward.default")
    assert (FLASH in operators.largest) == (way is attend_fused)
    assert (backward in operators.largest) == (way is attend_fused)
    assert max(operators.largest.values()) < tokens**2
    assert max(saved) < tokens**2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decomposed_attention_on_a_gpu(dtype: torch.dtype) -> None:
    inputs, upstream = attention_inputs(2, 14, 64, torch.float32)
    expected = attend_decomposed(*inputs)
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    there = [t.detach().to("cuda", dtype).requires_grad_() for t in inputs]
    out = attend_decomposed(*there)
    torch.testing.assert_close(out.cpu().float(), expected, rtol=tolerance, atol=tolerance)
    own = torch.autograd.grad(out, there, upstream.to("cuda", dtype))
    for mine, theirs in zip(own, torch.autograd.grad(expected, inputs, upstream), strict=True):
        assert (mine.cpu().float() - theirs).norm() < tolerance * theirs.norm()


def test_shared_bias_by_hand_and_as_beit() -> None:
    torch.manual_seed(0)
    side, heads = 4, 3
    table = torch.randn((2 * side - 1) ** 2, heads, requires_grad=True)
    bias = shared_bias(table)
    assert bias.shape == (1, heads, side**2, side**2)
    for q in range(side**2):
        for k in range(side**2):
            rows, columns = q // side - k // side, q % side - k % side
            entry = table[(rows + side - 1) * (2 * side - 1) + columns + side - 1]
            assert torch.equal(bias[0, :, q, k], entry)
    index = gen_relative_position_index((side, side))[1:, 1:]  # without the class token
    expected = table[index].permute(2, 0, 1)[None]
    assert torch.equal(bias, expected)
    upstream = torch.randn_like(bias)
    own = torch.autograd.grad(bias, table, upstream)
    torch.testing.assert_close(own, torch.autograd.grad(expected, table, upstream))


def test_by_distance() -> None:
    table = torch.arange(5)
    assert by_distance(table).tolist() == [[2, 1, 0], [3, 2, 1], [4, 3, 2]]
    vectors = torch.randn(5, 4)
    assert torch.equal(by_distance(vectors)[2, :, 0], vectors[4])
    assert by_distance(vectors).shape == (3, 4, 3)


@pytest.mark.parametrize("block", [0, 1], ids=["window", "global"])
def test_shared_attention_by_hand(block: int) -> None:
    """A whole attention layer in a few lines: zero padding before the projection, one bias."""
    vit = build(SHARED)
    attn, side = vit.blocks[block].attn, 10 if block else 4
    x = torch.randn(2, 10, 10, 32)
    out = attn(x, vit.bias(vit.kind(block)))
    padding = -10 % side
    padded = F.pad(x, (0, 0, 0, padding, 0, padding))
    expected = torch.zeros(2, 12, 12, 32)
    for top in range(0, 10, side):
        for left in range(0, 10, side):
            window = padded[:, top : top + side, left : left + side].reshape(2, side**2, 32)
            q, k, v = attn.qkv(window).view(2, side**2, 3, 2, 16).permute(2, 0, 3, 1, 4)
            logits = q @ k.transpose(2, 3) / 4 + shared_bias(
                vit.rel_pos_global if block else vit.rel_pos_window
            )
            mixed = attn.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
            expected[:, top : top + side, left : left + side] = mixed.unflatten(1, (side, side))
    torch.testing.assert_close(out, expected[:, :10, :10], rtol=1e-5, atol=1e-5)


# --- The network ------------------------------------------------------------------------------


def test_windows_there_and_back() -> None:
    x = torch.arange(2 * 5 * 7 * 1.0).view(2, 5, 7, 1)
    windows = split_windows(x, 3, padding=torch.tensor([-1.0]))
    assert windows.shape == (2 * 2 * 3, 9, 1)
    assert windows[0, :, 0].tolist() == [0, 1, 2, 7, 8, 9, 14, 15, 16]
    assert windows[5, :, 0].tolist() == [27, -1, -1, 34, -1, -1, -1, -1, -1]
    assert torch.equal(join_windows(windows, 3, 5, 7), x)


@pytest.mark.parametrize("blocks", [[0, 1, 3], [3], [2, 0], [1, 1], []])
def test_feature_maps_come_as_asked(blocks: list[int]) -> None:
    vit = build()
    images = images_for(vit)
    everything = vit.feature_maps(images, range(4))
    maps = vit.feature_maps(images, blocks)
    assert len(maps) == len(blocks)
    assert all(torch.equal(m, everything[i]) for m, i in zip(maps, blocks, strict=True))


@pytest.mark.parametrize("dense", [VITDET, SHARED], ids=["decomposed", "shared"])
def test_relative_positions_start_without_effect(dense: Dense) -> None:
    torch.manual_seed(0)
    vit = backbones.create("tiny", 80, dense=dense)
    plain = Dense(dense.window_size, dense.global_blocks, resize_position=dense.resize_position)
    other = backbones.create("tiny", 80, dense=plain)
    other.load_state_dict({k: v for k, v in vit.state_dict().items() if "rel_pos" not in k})
    images = images_for(vit)
    torch.testing.assert_close(vit.feature_maps(images, [3]), other.feature_maps(images, [3]))


@pytest.mark.parametrize("dense", [VITDET, SHARED], ids=["decomposed", "shared"])
def test_recomputing_changes_nothing(dense: Dense) -> None:
    """Also with stochastic depth, whose random numbers have to be the same again."""
    networks = [build(dense, drop_path=0.5).train() for _ in range(2)]
    for block in networks[1].blocks:
        block.recompute()
    results, saved = [], []
    for vit in networks:
        torch.manual_seed(5)
        sizes: list[int] = []
        with saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            maps = vit.feature_maps(images_for(vit), [1, 3])
        saved.append(sum(sizes))
        results.append((maps, gradients(vit, maps)))
    (plain, plain_gradients), (again, again_gradients) = results
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert set(plain_gradients) == {name for name, _ in vit.named_parameters()}
    assert all(torch.equal(again_gradients[k], g) for k, g in plain_gradients.items())
    assert saved[1] < saved[0] / 2


@pytest.mark.parametrize("dense", [VITDET, SHARED], ids=["decomposed", "shared"])
def test_autocast_computes_in_bfloat16(dense: Dense) -> None:
    vit = build(dense)
    images = images_for(vit)
    with torch.autocast("cpu", torch.bfloat16):
        assert vit.blocks[0].attn(torch.randn(1, 10, 10, 32), vit.bias("window")).dtype == (
            torch.bfloat16
        )
        (own,) = vit.feature_maps(images, [3])
    (expected,) = vit.feature_maps(images, [3])
    torch.testing.assert_close(own.float(), expected, rtol=0.1, atol=0.1)
    near, exact = gradients(vit, [own.float()]), gradients(vit, [expected])
    for key, gradient in exact.items():
        assert (near[key] - gradient).norm() < 0.1 * gradient.norm(), key


def test_layer_index_by_hand() -> None:
    expected = {
        "pos_embed": 0,
        "patch_embed.proj.weight": 0,
        "patch_embed.proj.bias": 0,
        "blocks.0.norm1.weight": 1,
        "blocks.1.attn.rel_pos_h": 2,
        "blocks.3.attn.rel_pos_w": 4,
    }
    vit = build()
    assert {name: vit.layer_index(name) for name in expected} == expected
    assert {vit.layer_index(name) for name, _ in vit.named_parameters()} == {0, 1, 2, 3, 4}
    shared = build(SHARED)
    assert {shared.layer_index(name) for name, _ in shared.named_parameters()} == {0, 1, 2, 3, 4, 5}
    assert shared.layer_index("rel_pos_window") == shared.layer_index("rel_pos_global") == 5
    with pytest.raises(backbones.BackboneError, match="cls_token"):
        vit.layer_index("cls_token")


def test_only_tables_that_are_used_exist() -> None:
    def tables(*arguments: object) -> set[str]:
        state = backbones.create("tiny", 80, dense=Dense(*arguments)).state_dict()
        return {name for name in state if "rel_pos" in name}

    assert tables(4, (1,), "shared") == {"rel_pos_window", "rel_pos_global"}
    assert tables(4, (), "shared") == {"rel_pos_window"}
    assert tables(None, (), "shared") == {"rel_pos_global"}
    assert tables(4, (1,), "none") == set()


def test_no_decay_names_parameters() -> None:
    vit = build()
    assert vit.no_decay() == {"pos_embed"} <= {name for name, _ in vit.named_parameters()}


def test_positions_at_the_start() -> None:
    """At the grid of pre-training, which is the name's own even with another patch size."""
    forward = backbones.create("tiny", 80, dense=Dense(patch_size=10))
    assert torch.equal(forward.pos_embed, sincos_2d(32, 4)[:, 1:])
    loaded = backbones.create("tiny", 80, dense=Dense(resize_position="load"))
    assert torch.equal(loaded.pos_embed, resize_grid(sincos_2d(32, 4)[:, 1:], 10))
    with torch.device("meta"):
        huge = backbones.create("vit_h", 1024, dense=Dense(14, (7, 15), patch_size=16))
    assert huge.pos_embed.shape == (1, 16**2, 1280)
    assert huge.grid_size == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_size": 0}, "window_size is 0; expected at least 1"),
        ({"patch_size": -1}, "patch_size is -1; expected at least 1"),
        ({"global_blocks": (0, 4)}, r"has blocks 0 to 3; asked for \[4\]"),
        ({"global_blocks": (-1,)}, r"has blocks 0 to 3; asked for \[-1\]"),
        ({"relative_position": "both"}, "relative_position is 'both'; there are none, decomposed"),
        ({"resize_position": "never"}, "resize_position is 'never'; there are forward, load"),
        ({"patch_size": 9}, "not divisible by the patch size 9 of tiny; nearest: 81"),
    ],
)
def test_refuses_options(options: dict, message: str) -> None:
    with pytest.raises(backbones.BackboneError, match=message) as error:
        backbones.create("tiny", 80, dense=Dense(**options))
    assert "\n" not in str(error.value)


def test_refuses_other_images_and_blocks() -> None:
    vit = build()
    with pytest.raises(backbones.BackboneError, match="takes 80 x 80"):
        vit.feature_maps(torch.zeros(1, 3, 80, 72), [0])
    with pytest.raises(backbones.BackboneError, match="has blocks 0 to 3"):
        vit.feature_maps(images_for(vit), [4])


# --- Checkpoints ------------------------------------------------------------------------------

RELATIVE = "relative position, starts at zero"


def plain_file(
    folder: Path, change: Callable[[dict[str, Tensor]], object] = lambda _: None
) -> Path:
    """An encoder as the MAE release has it, with 4 x 4 positions and a class token."""
    torch.manual_seed(0)
    state = backbones.create("tiny", 32).state_dict()
    state = {key: value + 0.05 * torch.randn_like(value) for key, value in state.items()}
    change(state)
    torch.save({"model": state}, folder / "mae.pth")
    return folder / "mae.pth"


def refusal(file: Path, dense: Dense | None = VITDET, image_size: int = 80) -> str:
    with pytest.raises(backbones.BackboneError) as error:
        backbones.load("tiny", file, image_size, dense=dense)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_loads_a_plain_encoder(tmp_path: Path) -> None:
    file = plain_file(tmp_path)
    state = torch.load(file)["model"]
    vit, report = backbones.load("tiny", file, 80, dense=VITDET)
    relative = [key for key in vit.state_dict() if "rel_pos" in key]
    assert len(relative) == 8
    assert report.fresh == dict.fromkeys(relative, RELATIVE)
    assert report.skipped == {
        "cls_token": "class token: not used in dense prediction",
        "norm.weight": "final norm: maps are taken before it",
        "norm.bias": "final norm: maps are taken before it",
    }
    assert report.resized == {"pos_embed": "17 -> 16 positions, class row dropped"}
    assert report.loaded == sorted(set(state) - set(report.skipped))
    state["pos_embed"] = state["pos_embed"][:, 1:]
    for key, value in vit.state_dict().items():
        expected = torch.zeros_like(value) if key in relative else state[key]
        assert torch.equal(value, expected), key
    assert str(report).splitlines()[-4:] == [
        "  resized pos_embed: 17 -> 16 positions, class row dropped",
        "  skipped 1 on purpose: class token: not used in dense prediction",
        "  skipped 2 on purpose: final norm: maps are taken before it",
        "  8 not in the file: relative position, starts at zero",
    ]


def test_maps_equal_those_of_the_plain_vit_without_class_token(tmp_path: Path) -> None:
    """At the grid of pre-training, the dense ViT is the plain one minus a token."""
    file = plain_file(tmp_path)
    plain, _ = backbones.load("tiny", file, 32)
    vit, _ = backbones.load("tiny", file, 32, dense=Dense())
    x = plain.patch_embed(images_for(vit)) + plain.pos_embed[:, 1:]
    for block in plain.blocks:
        x = block(x)
    (own,) = vit.feature_maps(images_for(vit), [3])
    torch.testing.assert_close(own.flatten(2).transpose(1, 2), x, rtol=1e-5, atol=1e-5)


def test_positions_resized_at_loading(tmp_path: Path) -> None:
    """Once at loading or in every forward pass: the same maps."""
    file = plain_file(tmp_path)
    late, _ = backbones.load("tiny", file, 80, dense=Dense())
    early, report = backbones.load("tiny", file, 80, dense=Dense(resize_position="load"))
    assert early.pos_embed.shape == (1, 100, 32)
    assert report.resized == {"pos_embed": "17 -> 100 positions, class row dropped, bicubic"}
    images = images_for(late)
    assert torch.equal(*(vit.feature_maps(images, [3])[0] for vit in (late, early)))


def test_larger_patches(tmp_path: Path) -> None:
    """A shrunken analogue of ViT-H's 14 x 14 to 16 x 16; a file of such patches loads exactly."""
    file, dense = plain_file(tmp_path), Dense(patch_size=10)
    vit, report = backbones.load("tiny", file, 80, dense=dense)
    weight = torch.load(file)["model"]["patch_embed.proj.weight"]
    expected = F.interpolate(weight, size=(10, 10), mode="bicubic", align_corners=False)
    assert torch.equal(vit.patch_embed.proj.weight, expected)
    assert report.resized["patch_embed.proj.weight"] == "8 x 8 -> 10 x 10 pixels, bicubic"
    save(vit.state_dict(), tmp_path / "own.safetensors", {"backbone": "tiny"})
    again, report = backbones.load("tiny", tmp_path / "own.safetensors", 80, dense=dense)
    assert torch.equal(again.patch_embed.proj.weight, expected)
    assert report.resized == {}


def test_patches_of_14_to_16_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ViT-H's, as ViTDet takes it: positions stay those of 4 x 4 patches of 14 pixels."""
    size = backbones.Size(embed_dim=32, depth=2, num_heads=2, patch_size=14, pretrain_image=56)
    monkeypatch.setitem(backbones.SIZES, "tiny14", size)
    torch.manual_seed(0)
    plain, file = backbones.create("tiny14", 56), tmp_path / "mae.pth"
    torch.save({"model": plain.state_dict()}, file)
    vit, report = backbones.load("tiny14", file, 64, dense=Dense(patch_size=16))
    weight = plain.patch_embed.proj.weight
    expected = F.interpolate(weight, size=(16, 16), mode="bicubic", align_corners=False)
    assert torch.equal(vit.patch_embed.proj.weight, expected)
    assert torch.equal(vit.pos_embed, plain.pos_embed[:, 1:])
    assert report.resized["patch_embed.proj.weight"] == "14 x 14 -> 16 x 16 pixels, bicubic"
    assert vit.feature_maps(torch.zeros(1, 3, 64, 64), [1])[0].shape == (1, 32, 4, 4)


def test_patches_of_neither_size_are_refused(tmp_path: Path) -> None:
    def other(state: dict[str, Tensor]) -> None:
        state["patch_embed.proj.weight"] = torch.zeros(32, 3, 14, 14)

    file = plain_file(tmp_path, other)
    for dense in (Dense(patch_size=10), Dense()):
        assert "shapes patch_embed.proj.weight (32, 3, 14, 14) for" in refusal(file, dense)


def test_decoder_is_skipped(tmp_path: Path) -> None:
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 32)}
    _, report = backbones.load(
        "tiny", plain_file(tmp_path, lambda state: state.update(decoder)), 80, dense=VITDET
    )
    assert {key: report.skipped[key] for key in decoder} == dict.fromkeys(decoder, "MAE decoder")


@pytest.mark.parametrize("dense", [VITDET, SHARED], ids=["decomposed", "shared"])
def test_own_checkpoint_loads_exactly(dense: Dense, tmp_path: Path) -> None:
    source, file = build(dense), tmp_path / "dense.safetensors"
    save(source.state_dict(), file, {"backbone": "tiny"})
    vit, report = backbones.load("tiny", file, 80, dense=dense)
    assert report.loaded == sorted(source.state_dict())
    assert report.fresh == report.skipped == report.resized == {}
    for key, value in source.state_dict().items():
        assert torch.equal(vit.state_dict()[key], value), key


def test_fresh_positions_overwrite_old_ones(tmp_path: Path) -> None:
    vit = build()
    load_into(vit, *read(plain_file(tmp_path)))
    assert not any(p.any() for key, p in vit.named_parameters() if "rel_pos" in key)


@pytest.mark.parametrize(
    "key", ["fc_norm.weight", "extra.weight", "rel_pos_window", "blocks.0.attn.rel_pos_x"]
)
def test_unexpected_keys_are_refused(key: str, tmp_path: Path) -> None:
    file = plain_file(tmp_path, lambda state: state.update({key: torch.zeros(3)}))
    assert f"unexpected {key}" in refusal(file)


def test_missing_keys_are_refused(tmp_path: Path) -> None:
    file = plain_file(tmp_path, lambda state: state.pop("blocks.1.attn.qkv.bias"))
    assert "missing blocks.1.attn.qkv.bias; unexpected none" in refusal(file)


def test_half_a_set_of_relative_positions_is_refused(tmp_path: Path) -> None:
    state, file = build().state_dict(), tmp_path / "half.pth"
    del state["blocks.2.attn.rel_pos_w"]
    torch.save(state, file)
    assert "missing blocks.2.attn.rel_pos_w; unexpected none" in refusal(file)


def test_relative_positions_of_another_kind_or_window_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "dense.pth"
    torch.save(build().state_dict(), file)
    message = refusal(file, SHARED)
    assert "missing rel_pos_global, rel_pos_window" in message
    assert "unexpected blocks.0.attn.rel_pos_h" in message
    assert "rel_pos_h (7, 16) for (9, 16)" in refusal(file, Dense(5, (1, 3), "decomposed"))
    assert "missing cls_token" in refusal(file, None, 32)


def test_positions_that_are_no_square(tmp_path: Path) -> None:
    file = plain_file(tmp_path, lambda state: state.update(pos_embed=torch.zeros(1, 19, 32)))
    assert "19 positions; expected a square or 1 + a square" in refusal(file)
