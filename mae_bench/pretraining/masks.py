"""Which patches the encoder sees.

Shapes: B images, N patches, V of them visible, M = N - V masked.
"""

import torch
from torch import Tensor


def random(noise: Tensor, num_visible: int) -> tuple[Tensor, Tensor]:
    """Indices of the visible (B, V) and the masked (B, M) patches, by rank of the noise (B, N).

    The patches with the smallest values stay visible: facebookresearch/mae, models_mae.py.
    """
    order = noise.argsort(dim=1)
    return order[:, :num_visible], order[:, num_visible:]


def pick(rows: Tensor, indices: Tensor) -> Tensor:
    """Rows of (B, N, C) at `indices` (B, K): (B, K, C)."""
    return rows[torch.arange(len(rows), device=rows.device)[:, None], indices]
