"""Attention with relative positions on a CPU: exact, and never all logits at once.

Shapes: G windows (or images) times heads, N = s² tokens row by row, D channels of a head.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 2**17
"""logits at a time (0.5 MiB in float32): they stay in a core's cache from product to product"""


class TiledAttention(torch.autograd.Function):
    """softmax(q kᵀ + rows + columns) v, a tile of the logits after the other.

    q, k, v (G, N, D), q already scaled; `rows` and `columns` (G, N, s) are added to the logits of
    all keys of a row and of a column. The backward pass computes the tiles again, from the
    logarithm of each softmax's denominator (FlashAttention-2, 2307.08691, algorithm 2).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        out, denominator = torch.empty_like(q), q.new_empty(*q.shape[:2], 1)
        for group, part in tiles(*q.shape[:2]):
            weights = logits(q[group, part], k[group], rows[group, part], columns[group, part])
            largest = weights.amax(dim=-1, keepdim=True)
            total = weights.sub_(largest).exp_().sum(dim=-1, keepdim=True)
            out[group, part] = torch.bmm(weights, v[group]).div_(total)
            denominator[group, part] = total.log_().add_(largest)
        ctx.save_for_backward(q, k, v, rows, columns, out, denominator)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        q, k, v, rows, columns, out, denominator = ctx.saved_tensors
        for_q, for_rows, for_columns = (torch.empty_like(x) for x in (q, rows, columns))
        for_k, for_v = torch.zeros_like(k), torch.zeros_like(v)
        mean = (grad * out).sum(dim=-1, keepdim=True)
        rows = rows - denominator
        for group, part in tiles(*q.shape[:2]):
            queries, upstream = q[group, part], grad[group, part]
            weights = logits(queries, k[group], rows[group, part], columns[group, part]).exp_()
            for_v[group].baddbmm_(weights.mT, upstream)
            change = torch.bmm(upstream, v[group].mT).sub_(mean[group, part]).mul_(weights)
            for_q[group, part] = torch.bmm(change, k[group])
            for_k[group].baddbmm_(change.mT, queries)
            change = change.unflatten(2, (rows.shape[-1], -1))
            for_rows[group, part] = change.sum(dim=3)
            for_columns[group, part] = change.sum(dim=2)
        return for_q, for_k, for_v, for_rows, for_columns


def tiles(groups: int, tokens: int) -> Iterator[tuple[slice, slice]]:
    """Which groups and which of their queries to treat at once: at most `TILE` logits, or one row.

    Whole groups where several fit, so that short sequences make no short products.
    """
    several = max(1, TILE // tokens**2)
    part = min(tokens, max(1, TILE // (several * tokens)))
    for group in range(0, groups, several):
        for query in range(0, tokens, part):
            yield slice(group, group + several), slice(query, query + part)


def logits(q: Tensor, k: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """A tile (g, n, N) of them for n of the queries."""
    found = torch.bmm(q, k.mT)
    side = rows.shape[-1]
    # Through a view: one pass over the tile for each, and no tensor of the sum of both.
    found.unflatten(2, (side, side)).add_(rows[..., :, None]).add_(columns[..., None, :])
    return found
