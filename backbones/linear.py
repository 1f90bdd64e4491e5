"""The linear layer of all our networks: `nn.Linear`, and faster than it in float32 on a CPU.

PyTorch hands float32 products on x86 to MKL. oneDNN, which it also carries, computes the
products of the forward pass and of the input's gradient a quarter to a third faster on an AMD
Zen 4 (measured in benchmarks/pretrain_step.md); the weight's gradient stays with MKL, because
oneDNN would need a transposed copy. Both are plain float32 arithmetic.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEAST_WORK = 2**25
"""multiplications of a product below which the detour through Python costs more than it saves"""


class Linear(nn.Linear):
    """`nn.Linear` in every respect but speed."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: (…, K) times a weight (N, K) to (…, N).

    oneDNN does the larger products of float32 on a CPU unless it is switched off
    (`torch.backends.mkldnn.enabled`), or torch.compile or autocast are to choose for themselves.
    """
    onednn = (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= LEAST_WORK
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
    )
    return OneDnnLinear.apply(x, weight, bias) if onednn else F.linear(x, weight, bias)


class OneDnnLinear(torch.autograd.Function):
    """`F.linear` through oneDNN's inner product, which takes the weight as it lies in memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return inner_product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            inner_product(rows, weight.t()).view(x.shape) if for_x else None,
            rows.t() @ x.reshape(-1, x.shape[-1]) if for_weight else None,
            rows.sum(dim=0) if for_bias else None,
        )


def inner_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """oneDNN's primitive, outside autograd; the weight may be a transposed view."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
