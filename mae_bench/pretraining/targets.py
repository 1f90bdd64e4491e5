"""What the decoder is to predict."""

import torch.nn.functional as F
from torch import Tensor


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
