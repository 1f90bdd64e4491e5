"""Attention with relative positions inside a square window.

Shapes: B windows (or images), H heads, s tokens of a window's side, N = s² tokens row by row,
D channels of a head.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.precision import attention
from backbones.tiled import TiledAttention

CLASS_TOKEN_ROWS = 3
"""rows at the end of a table of biases that are the class token's"""


def attend_decomposed(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """Attention (B, H, N, D) whose logits are q·k / √D + q·rel_h[row] + q·rel_w[column].

    `rel_h` and `rel_w` (2s - 1, D) hold a vector for each distance from -(s - 1) to s - 1 between
    the rows, or columns, of query and key. The query that meets them is not scaled. Source:
    detectron2, modeling/backbone/utils.py (`add_decomposed_rel_pos`).

    Both ways are exact, and in neither does a tensor have N x N elements.
    benchmarks/detection_attention.py compares them.
    """
    rows, columns = (term.flatten(2, 3) for term in distance_terms(q, rel_h, rel_w))
    tiled = (
        not torch.compiler.is_compiling()
        and q.device.type == "cpu"
        and q.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
    )
    return (attend_tiled if tiled else attend_fused)(q, k, v, rows, columns)


def attend_tiled(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Attention with `rows` and `columns` (B, H, N, s) added to the logits; faster on a CPU."""
    operands = (q * q.shape[-1] ** -0.5, k, v, rows, columns)
    out = TiledAttention.apply(*(x.flatten(0, 1) for x in operands))
    return out.unflatten(0, q.shape[:2])


def attend_fused(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The same by PyTorch's fused attention, which adds no bias that needs a gradient.

    `rows` and `columns` are appended to the query, and the key's row and column as one-hot
    vectors to the key, so that the product of both adds the right two numbers. Flash attention on
    a GPU takes this up to a width D + 2s of 256.
    """
    width, tokens, side = q.shape[-1], q.shape[2], rows.shape[-1]
    # Fused kernels ask for one width of all three operands, the GPU's for a multiple of eight.
    padding = -(width + 2 * side) % 8
    q = F.pad(torch.cat([q * width**-0.5, rows, columns], dim=-1), (0, padding))
    one = torch.eye(side, dtype=k.dtype, device=k.device)
    places = torch.cat([one.repeat_interleave(side, dim=0), one.repeat(side, 1)], dim=1)
    places = F.pad(places, (0, padding)).expand(*k.shape[:2], tokens, -1)
    k = torch.cat([k, places], dim=-1)
    v = F.pad(v, (0, 2 * side + padding))
    return attention(q, k, v, scale=1.0)[..., :width]


def distance_terms(q: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor]:
    """Products of queries (B, H, N, D) with the vectors of their distances to rows and columns.

    Both (B, H, s, s, s): query row, query column, key row or key column.
    """
    side = (len(rel_h) + 1) // 2
    q = q.unflatten(2, (side, side))
    rows = torch.einsum("bhrcd,rdk->bhrck", q, by_distance(rel_h))
    columns = torch.einsum("bhrcd,cdk->bhrck", q, by_distance(rel_w))
    return rows, columns


def by_distance(table: Tensor) -> Tensor:
    """(2s - 1, …) to (s, …, s): the entry for each query place (first) and key place (last)."""
    side = (len(table) + 1) // 2
    # Strided windows, reversed: entry [i, j] is table[i - j + s - 1], and no index is needed.
    return table.unfold(0, side, 1).flip(-1)


def shared_bias(table: Tensor) -> Tensor:
    """Biases (1, H, N, N) of the logits, from a table ((2s - 1)², H).

    The entry of query and key is that of their distance, rows before columns, each counted from
    -(s - 1). Source: microsoft/unilm, beit/modeling_finetune.py, without its class token.
    """
    distances = math.isqrt(len(table))
    table = table.view(distances, distances, -1).movedim(-1, 0)
    side = (distances + 1) // 2
    bias = table.unfold(1, side, 1).unfold(2, side, 1).flip(3, 4)  # (H, s, s, s, s)
    return bias.reshape(1, len(table), side**2, side**2)


def class_token_bias(table: Tensor) -> Tensor:
    """Biases (1, H, 1 + N, 1 + N), class token first, from a table ((2s - 1)² + 3, H).

    The last three rows hold the bias of the class token as query, as key, and as both. Source:
    microsoft/unilm, beit/modeling_finetune.py.
    """
    grid = shared_bias(table[:-CLASS_TOKEN_ROWS])
    _, heads, tokens, _ = grid.shape
    as_query, as_key, as_both = table[-CLASS_TOKEN_ROWS:].view(-1, 1, heads, 1, 1)
    top = torch.cat([as_both, as_query.expand(-1, -1, 1, tokens)], dim=3)
    rest = torch.cat([as_key.expand(-1, -1, tokens, 1), grid], dim=3)
    return torch.cat([top, rest], dim=2)


def autocast(bias: Tensor) -> Tensor:
    """`bias` in the precision of autocast, if that is on.

    Cast once, after the gather from a table, so that the table's gradient is summed in full
    precision.
    """
    if bias.is_meta:  # where there is no autocast
        return bias
    device = bias.device.type
    return bias.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else bias
