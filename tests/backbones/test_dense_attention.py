"""Attention with relative positions: by hand, in tiles, and as BEiT's."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from dense_networks import SHARED, TINY, build
from timm.models.beit import gen_relative_position_index
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

import backbones
from backbones.relative import (
    attend_decomposed,
    attend_fused,
    attend_tiled,
    by_distance,
    distance_terms,
    shared_bias,
)
from backbones.tiled import tiles


@pytest.fixture(autouse=True)
def tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network that nevertheless takes the way of large ones through `linear`."""
    monkeypatch.setattr("backbones.linear.LEAST_WORK", 1)
    monkeypatch.setitem(backbones.SIZES, "tiny", TINY)


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
