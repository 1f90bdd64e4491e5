"""Multinomial logistic regression on frozen features, by L-BFGS over all images at once.

Shapes: N images, C channels of a feature, K classes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOGITS_AT_ONCE = 2**24
"""64 MiB of float32"""
CHANNELS_AT_ONCE = 32
VARIANCE_FLOOR = 1e-6
"""added to a variance; eps of the batch norm in facebookresearch/mae, main_linprobe.py"""


@dataclass(frozen=True)
class Solution:
    """Where the solver stopped."""

    parameters: Tensor
    """weights and, last, biases: float64 (K, C + 1)"""
    iterations: int
    gradient: float
    """largest entry of the gradient there, as a share of the largest one at zero"""
    converged: bool


@dataclass(frozen=True)
class Tried:
    """One l2 of a grid."""

    l2: float
    accuracy: float
    """held-out top-1 in percent"""
    solution: Solution


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, float64 (C,), of features (N, C)."""
    parts = features.split(CHANNELS_AT_ONCE, dim=1)
    found = [torch.var_mean(part.double(), dim=0, correction=0) for part in parts]
    variance, mean = (torch.cat(each) for each in zip(*found, strict=True))
    return mean, variance


def solve(
    features: Tensor,
    targets: Tensor,
    num_classes: int,
    l2: float,
    *,
    max_iter: int,
    tolerance: float,
    start: Tensor | None = None,
) -> Solution:
    """Minimise mean cross-entropy + l2/2 x |weights|^2; biases are not penalised.

    For features (N, C) and class indices (N,), from `start` (K, C + 1) or zeros, for `max_iter`
    iterations or until the largest entry of the gradient is no more than `tolerance` of the
    largest one at zero, which makes it mean the same for ten classes and for ten thousand. It is
    scikit-learn's `LogisticRegression(C=1 / (l2 x N))`. Logits have the type of the features; the
    parameters and sums over images are float64.
    """
    shape = (num_classes, features.shape[1] + 1)
    zeros = torch.zeros(shape, dtype=torch.float64, device=features.device)
    steepest = float(objective(zeros, features, targets, l2)[1].abs().max())
    parameters = nn.Parameter(zeros if start is None else start.clone())
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=max_iter,
        max_eval=10 * max_iter,
        tolerance_grad=tolerance * steepest,
        tolerance_change=0.0,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def evaluate() -> Tensor:
        loss, parameters.grad = objective(parameters.detach(), features, targets, l2)
        return loss

    optimizer.step(evaluate)
    evaluate()
    assert parameters.grad is not None
    steps = optimizer.state[parameters]["n_iter"]
    left = float(parameters.grad.abs().max())
    share = left / steepest if steepest else 0.0
    return Solution(parameters.detach(), steps, share, share <= tolerance)


def objective(
    parameters: Tensor, features: Tensor, targets: Tensor, l2: float
) -> tuple[Tensor, Tensor]:
    """What `solve` minimises, float64 (), and its gradient (K, C + 1)."""
    weight, bias = parameters[:, :-1], parameters[:, -1]
    loss = 0.5 * l2 * weight.square().sum()
    gradient = torch.zeros_like(parameters)
    gradient[:, :-1] = l2 * weight
    weight, bias = weight.to(features.dtype), bias.to(features.dtype)
    for x, y in in_parts(len(parameters), features, targets):
        log_p = F.log_softmax(x @ weight.T + bias, dim=1)  # (B, K)
        chosen = y[:, None]
        loss -= log_p.gather(1, chosen).double().sum() / len(features)
        error = log_p.exp_().scatter_add_(1, chosen, torch.full_like(log_p[:, :1], -1))
        gradient[:, :-1] += (error.T @ x).double() / len(features)
        gradient[:, -1] += error.sum(dim=0, dtype=torch.float64) / len(features)
    return loss, gradient


def logits(parameters: Tensor, features: Tensor) -> Tensor:
    """Logits (N, K) of features (N, C), in the features' type."""
    own = parameters.to(features)
    return features @ own[:, :-1].T + own[:, -1]


def in_parts(num_classes: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors (N, ...) by as many rows as may have their logits in memory at once."""
    rows = max(1, LOGITS_AT_ONCE // num_classes)
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def search(
    features: Tensor,
    targets: Tensor,
    num_classes: int,
    grid: Sequence[float],
    held: int,
    *,
    max_iter: int,
    tolerance: float,
    say: Callable[[str], None],
) -> list[Tried]:
    """Solve for each l2 of `grid` without the last `held` rows, which then are to be recognised.

    Each solution starts from the one before.
    """
    rest, tried = len(features) - held, []
    start: Tensor | None = None
    for l2 in grid:
        found = solve(
            features[:rest],
            targets[:rest],
            num_classes,
            l2,
            max_iter=max_iter,
            tolerance=tolerance,
            start=start,
        )
        start = found.parameters
        hits = sum(
            int((logits(start, x).argmax(dim=1) == y).sum())
            for x, y in in_parts(num_classes, features[rest:], targets[rest:])
        )
        tried.append(Tried(l2, 100 * hits / held, found))
        stopped = "" if found.converged else ", not converged"
        say(
            f"l2 {l2:g}: held-out top-1 {tried[-1].accuracy:.2f} after {found.iterations} "
            f"iterations{stopped}"
        )
    return tried
