"""What the decoder is to predict of a patch (MAE, Table 1d).

Shapes: n = 3·p·p numbers of a patch, K principal components.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_COMPONENTS = 96
"""MAE, section 4.1"""


def normalised(patches: Tensor) -> Tensor:
    """Patches (..., n) with their own mean and deviation taken out: unbiased variance, eps 1e-6.

    A layer norm divides by the biased deviation, (n - 1) / n of the variance wanted here; so
    the factor is taken out of both its eps and its result. Source: facebookresearch/mae,
    models_mae.py (`norm_pix_loss`).
    """
    n = patches.shape[-1]
    bias = (n - 1) / n
    scale = patches.new_full((n,), bias**0.5)
    return F.layer_norm(patches, (n,), weight=scale, eps=1e-6 * bias)


class PrincipalComponents(nn.Module):
    """The largest principal components of patches, as buffers that go with the weights.

    Coefficients are not divided by their deviations: the paper names their number alone.
    """

    mean: Tensor
    """(n,)"""
    basis: Tensor
    """(n, K), orthonormal columns, the largest variance first"""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.count = min(NUM_COMPONENTS, size)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("basis", torch.eye(size)[:, : self.count].clone())

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """To a sample of patches (..., n); in float64, each component's largest entry positive."""
        count = 0
        total = torch.zeros_like(self.mean, dtype=torch.float64)
        products = torch.outer(total, total)
        for batch in batches:
            rows = batch.flatten(0, -2).double()
            count += len(rows)
            total += rows.sum(dim=0)
            products += rows.T @ rows
        mean = total / count
        values, vectors = torch.linalg.eigh(products / count - torch.outer(mean, mean))
        basis = vectors[:, values.argsort(descending=True)[: self.count]]
        peaks = basis.gather(0, basis.abs().argmax(dim=0, keepdim=True))
        self.mean.copy_(mean)
        self.basis.copy_(basis * peaks.sign())

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (..., n) to coefficients (..., K)."""
        return (patches - self.mean) @ self.basis

    def inverse(self, coefficients: Tensor) -> Tensor:
        """The patches (..., n) nearest to coefficients (..., K)."""
        return coefficients @ self.basis.T + self.mean
