"""Attention of bfloat16 on a CPU: no less exact than torch's own, and as exact as its type."""

import pytest
import torch
import torch.nn.functional as F

from backbones.precision import attention


def exact(q, k, v, bias):
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return (logits + (0 if bias is None else bias)).softmax(dim=-1) @ v


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("by_autocast", [False, True])
def test_bfloat16_on_a_cpu(biased, by_autocast):
    """Outputs and gradients against float64, as wide as one rounding and no wider than torch's."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, weight = torch.randn(4, 2, 3, 50, 64, generator=generator).bfloat16()
    bias = torch.randn(1, 3, 50, 50, generator=generator).bfloat16() if biased else None

    def passes(function, dtype):
        given = [x.to(dtype, copy=True).requires_grad_() for x in (q, k, v)]
        added = None if bias is None else bias.to(dtype, copy=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=by_autocast and dtype != torch.float64):
            out = function(*given, added)
        return out, torch.autograd.grad(out, given, weight.to(out.dtype))

    expected, gradients = passes(exact, torch.float64)
    kind = torch.float32 if by_autocast else torch.bfloat16
    found, ours = passes(attention, kind)
    _, theirs = passes(lambda q, k, v, b: F.scaled_dot_product_attention(q, k, v, b), kind)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-5)
    for mine, other, right in zip(ours, theirs, gradients, strict=True):
        error = (mine.double() - right).norm() / right.norm()
        assert error < 2**-8
        assert error <= 1.05 * (other.double() - right).norm() / right.norm()


def test_float32_is_torchs_to_the_bit():
    q, k, v = torch.randn(3, 2, 3, 50, 64)
    assert torch.equal(attention(q, k, v), F.scaled_dot_product_attention(q, k, v))
