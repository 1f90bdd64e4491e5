"""Nearest neighbours among frozen features, exactly and in bounded memory.

Shapes: N training images, M test images, C channels of a feature, K classes, k neighbours.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.linear import linear

BANK_ROWS, QUERY_ROWS = 2**15, 2**9
"""training and test images that are compared at a time: 64 MiB of similarities"""
GROUP = 16
"""columns of which the largest is looked at first"""


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
            found = best[i][0]
            bound = found[:, -1:] if found.shape[1] == k else None
            values, indices = top(linear(part, rows), min(k, len(rows)), bound)
            best[i] = merged(best[i], (values, indices + start), k)
    values, indices = (torch.cat(each) for each in zip(*best, strict=True))
    return values, indices


def empty_rows(queries: Tensor) -> Tensor:
    return torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)


def top(similarities: Tensor, k: int, bound: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k largest of each row of (M, N), falling, and their columns; of equals the first ones.

    Fewer than k where no row has so many above its `bound` (M, 1). The largest lie in the k groups
    of columns with the largest maxima, so that few columns are sorted.
    """
    groups, rest = divmod(similarities.shape[1], GROUP)
    if rest or groups < 2 * k:
        return top_of_all(similarities, k)
    # A group is every so-manieth column: the maxima of many groups at once are then fast.
    largest = similarities.view(-1, GROUP, groups).amax(dim=1)
    several = k if bound is None else min(k, most(largest > bound))
    if not several:
        return similarities[:, :0], empty_rows(similarities)
    maxima, chosen = largest.topk(several, dim=1)
    firsts = groups * torch.arange(GROUP, device=similarities.device)
    columns = (firsts[:, None] + chosen.sort(dim=1).values[:, None]).flatten(1)  # rising
    candidates = similarities.gather(1, columns)
    k = k if bound is None else min(k, most(candidates > bound))
    values, within = top_of_all(candidates, k)
    columns = columns.gather(1, within)
    tied = cut_equals(largest, maxima)
    if tied.any():
        values[tied], columns[tied] = top_of_all(similarities[tied], k)
    return values, columns


def most(mask: Tensor) -> int:
    """How many are true in the row of (M, N) where the most are."""
    return int(mask.sum(dim=1).max())


def cut_equals(all_of_them: Tensor, largest: Tensor) -> Tensor:
    """Rows (M,) in which some that equal the least of the `largest` (M, k) are not among these."""
    last = largest[:, -1:]
    return (all_of_them == last).sum(dim=1) > (largest == last).sum(dim=1)


def top_of_all(similarities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `top`. `topk` alone takes any of several equals, such as two copies of an image."""
    values, columns = similarities.topk(k, dim=1)
    tied = cut_equals(similarities, values)
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
