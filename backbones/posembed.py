"""Position embeddings: the fixed 2-D sin-cos table and the resize of any table."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def sincos_2d(dim: int, grid_size: int | tuple[int, int], temperature: float = 10000.0) -> Tensor:
    """Fixed table (1, 1 + rows·columns, dim) with a zero row for the class token.

    `grid_size` is the number of both, or rows and columns.

    The first half of the channels encodes the column, the second half the row; within each half
    all sines come before all cosines. Source: facebookresearch/mae, util/pos_embed.py, whose
    variable names suggest the opposite order.
    """
    if dim % 4:
        raise ValueError(f"dim is {dim}; a 2-D sin-cos table needs a multiple of 4")
    rows, columns = (grid_size, grid_size) if isinstance(grid_size, int) else grid_size
    frequency = temperature ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    angle = torch.arange(max(rows, columns), dtype=torch.float64)[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)  # (longer side, dim / 2)
    column = axis[None, :columns, :].expand(rows, -1, -1)
    row = axis[:rows, None, :].expand(-1, columns, -1)
    table = torch.cat([column, row], dim=2).reshape(1, rows * columns, dim)
    return torch.cat([torch.zeros(1, 1, dim, dtype=table.dtype), table], dim=1).float()


def resize(table: Tensor, grid_size: int) -> Tensor:
    """A table (1, 1 + n², C) resized to (1, 1 + grid_size², C); the class row is kept.

    Bicubic, corners not aligned, no antialiasing: facebookresearch/mae, util/pos_embed.py.
    timm antialiases here and differs numerically.
    """
    if not is_square(table.shape[1] - 1):
        raise ValueError(f"pos_embed has {table.shape[1]} positions; expected 1 + a square")
    return torch.cat([table[:, :1], resize_grid(table[:, 1:], grid_size)], dim=1)


def resize_grid(table: Tensor, grid_size: int, grid: tuple[int, int] | None = None) -> Tensor:
    """A table without class row, (1, n², C), resized in the same way to (1, grid_size², C).

    `grid`: its rows and columns where they differ. detectron2, modeling/backbone/utils.py
    (`get_abs_pos`) does the same.
    """
    old = math.isqrt(table.shape[1])
    rows, columns = grid or (old, old)
    old_grid = table.reshape(1, rows, columns, -1).permute(0, 3, 1, 2)
    size = (grid_size, grid_size)
    resized = F.interpolate(old_grid, size=size, mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2)


def resize_offsets(table: Tensor, side: int) -> Tensor:
    """Biases of relative positions ((2n - 1)², H) resized to ((2 side - 1)², H).

    Source offsets are spaced geometrically, so that the nearest keep their distance and the
    farthest reach the edge; between them, a cubic spline. Source: microsoft/unilm,
    beit/run_class_finetuning.py, whose `interp2d(kind="cubic")` scipy replaced by the spline here.
    """
    from scipy.interpolate import RectBivariateSpline

    old, new = math.isqrt(len(table)) // 2, side - 1
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        low, high = (low, ratio) if (1 - ratio**old) / (1 - ratio) > new else (ratio, high)
    steps = np.cumsum(ratio ** np.arange(old))
    given, wanted = np.concatenate([-steps[::-1], [0.0], steps]), np.arange(-new, new + 1)
    degree = min(3, 2 * old)
    heads = [
        RectBivariateSpline(given, given, head, kx=degree, ky=degree)(wanted, wanted)
        for head in table.T.reshape(-1, len(given), len(given)).double().numpy()
    ]
    return torch.from_numpy(np.stack(heads)).flatten(1).T.to(table.dtype)


def is_square(number: int) -> bool:
    """Whether so many positions, one at least, fill a square grid."""
    return number > 0 and math.isqrt(number) ** 2 == number
