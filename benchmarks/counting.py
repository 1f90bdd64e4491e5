"""Floating-point operations of a training step of any network, forward and backward."""

import torch
from torch import Tensor, nn


def training_flops(network: nn.Module, *inputs: Tensor) -> float | None:
    """Of a batch, as `mae_bench.cost` counts; nothing is computed. None if it cannot be counted.

    The network returns its loss, or something whose `loss` that is.
    """
    from mae_bench.cost import SHAPES, counted  # needs all that mae-bench needs

    def step(state: dict[str, Tensor]) -> None:
        there = tuple(each.to(SHAPES) for each in inputs)
        loss = loss_of(torch.func.functional_call(network, state, there))
        trained = [tensor for tensor in state.values() if tensor.requires_grad]
        torch.autograd.grad(loss, trained, allow_unused=True)

    return counted(network, step)


def loss_of(out: object) -> Tensor:
    return out if isinstance(out, Tensor) else out.loss  # type: ignore[attr-defined]
