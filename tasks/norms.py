"""Norm layers that several tasks share."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from backbones.precision import as_they_are


class Sum(torch.autograd.Function):
    """The sum of a tensor over all processes, and of its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over the samples of all processes, on any device; there may be one or none.

    Of maps (B, C, H, W) or rows (B, C). Torch's own runs on GPUs only. Each process's sums count by
    its samples, as regions of interest differ in number.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim not in (2, 4):
            raise ValueError(f"expected maps or rows, got {input.ndim} dimensions")

    def forward(self, x: Tensor) -> Tensor:
        alone = not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
        if not self.training or (alone and x.numel() > self.num_features):
            return super().forward(x)
        with as_they_are(x.device.type):
            values = x.float()
            dims, channels = [0, *range(2, x.ndim)], (1, -1) + (1,) * (x.ndim - 2)
            count = torch.full((1,), values.numel() / self.num_features, device=x.device)
            sums = torch.cat([values.sum(dims), values.square().sum(dims), count])
            if not alone:
                sums = Sum.apply(sums)
            total, squares, number = sums.split([self.num_features, self.num_features, 1])
            number = number.clamp(min=1)
            mean = total / number
            variance = squares / number - mean.square()
            self.keep_running(mean.detach(), variance.detach(), number)
            scale = torch.rsqrt(variance.clamp(min=0) + self.eps)
            shift = -mean * scale
            if self.affine:
                scale, shift = self.weight * scale, self.bias + self.weight * shift
            return values * scale.view(channels) + shift.view(channels)

    @torch.no_grad()
    def keep_running(self, mean: Tensor, variance: Tensor, number: Tensor) -> None:
        """Move the running statistics, with the unbiased variance, as torch does."""
        if self.running_mean is None or self.running_var is None:
            return
        momentum, several = self.momentum or 0.0, number > 1  # known to the device alone
        unbiased = variance * number / (number - 1)
        for kept, found in ((self.running_mean, mean), (self.running_var, unbiased)):
            kept.copy_(torch.where(several, kept.lerp(found, momentum), kept))
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(several.view(()))
