"""Nearest neighbours among frozen features, exactly and in bounded memory.

Shapes: N training images, M test images, C channels of a feature, K classes, k neighbours.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BANK_ROWS, QUERY_ROWS = 2**15, 2**9
"""training and test images that are compared at a time: 64 MiB of similarities"""


def nearest(
    queries: Tensor, bank: Tensor, k: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Cosine similarities (M, k), falling, and rows of `bank` (M, k) of the nearest neighbours.

    `queries` (M, C) and `bank` (N, C), float32, may lie anywhere; the bank goes to `device` in
    parts. Of equally similar rows the first ones are taken.
    """
    parts = F.normalize(queries.to(device), dim=1).split(QUERY_ROWS)
    best = [(part.new_empty(len(part), 0), empty_rows(part)) for part in parts]
    for start in range(0, len(bank), BANK_ROWS):
        rows = F.normalize(bank[start : start + BANK_ROWS].to(device), dim=1)
        for i, part in enumerate(parts):
            values, indices = top(part @ rows.T, min(k, len(rows)))
            best[i] = merged(best[i], (values, indices + start), k)
    values, indices = (torch.cat(each) for each in zip(*best, strict=True))
    return values, indices


def empty_rows(queries: Tensor) -> Tensor:
    return torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)


def top(similarities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of (M, N), falling, and their columns; of equals the first ones.

    `topk` alone takes any of several equals, such as two copies of an image.
    """
    values, columns = similarities.topk(k, dim=1)
    last = values[:, -1:]
    tied = (similarities == last).sum(dim=1) > (values == last).sum(dim=1)
    if tied.any():
        exact = similarities[tied].sort(dim=1, descending=True, stable=True)
        values[tied], columns[tied] = exact.values[:, :k], exact.indices[:, :k]
    columns, order = columns.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def merged(
    one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], k: int
) -> tuple[Tensor, Tensor]:
    """The k best of two lists of neighbours; of equals those of `one`, whose rows come first."""
    values, order = torch.cat([one[0], other[0]], dim=1).sort(dim=1, descending=True, stable=True)
    indices = torch.cat([one[1], other[1]], dim=1).gather(1, order)
    return values[:, :k], indices[:, :k]


def votes(
    similarities: Tensor, labels: Tensor, num_classes: int, temperature: float | None
) -> Tensor:
    """Votes (M, K), float64, of neighbours with class indices `labels` (M, k).

    A neighbour of similarity s has exp(s / temperature) votes, up to a factor for each test image
    that makes the nearest one's 1; or one vote if `temperature` is None. Of classes with equal
    votes, none included, the one with the lower index is to come first, as in scikit-learn; that
    is also what the sort in facebookresearch/dino, eval_knn.py, comes to.
    """
    weights = torch.ones_like(similarities, dtype=torch.float64)
    if temperature is not None:
        similarities = similarities.double()
        weights = ((similarities - similarities[:, :1]) / temperature).exp()
    counts = torch.zeros(len(labels), num_classes, dtype=torch.float64, device=labels.device)
    return counts.scatter_add_(1, labels, weights)
