"""Arithmetic in the tensors' own precision, whatever autocast says around it."""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor


def as_they_are(device: str) -> AbstractContextManager:
    """Switches autocast off on a type of device; the meta device, which only counts, has none."""
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """PyTorch's fused attention of queries, keys and values (B, H, N, D).

    Of bfloat16 on a CPU in float32: torch's kernels for bfloat16 take longer there, the backward
    pass two to three times as long (benchmarks/cpu_limit.md), and round in between.
    """
    narrow = q.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    if q.device.type != "cpu" or not narrow or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    bias = None if bias is None else bias.float()
    with as_they_are("cpu"):
        found = F.scaled_dot_product_attention(
            q.float(), k.float(), v.float(), attn_mask=bias, scale=scale
        )
    return found.to(torch.bfloat16)
