"""How much arithmetic a training step is, as torch counts it."""

import warnings
from dataclasses import replace

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.backends import mkldnn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mae_bench.errors import first_line
from mae_bench.progress import say
from mae_bench.setup import Spent
from tasks.task import Task

COUNTED_IMAGES = 4
"""in the batch that is counted; batch norm needs more than one"""


def with_flops(spent: Spent, task: Task) -> Spent:
    """What a run took, with the arithmetic of its training."""
    return replace(spent, flops_per_image=flops_per_image(task))


def flops_per_image(task: Task) -> float | None:
    """Floating-point operations of the matrix products and convolutions of one training image,
    forward and backward; a multiplication with its addition is two.

    Nothing is computed: shapes alone go through the network, and neither weights, gradients nor any
    generator change. The same on every device. None, after a line that says so, for a network that
    looks at its numbers.
    """
    device = next(task.parameters()).device
    count = min(COUNTED_IMAGES, len(task.train_data))
    batch = task.train_data.__getitems__([(0, index) for index in range(count)])
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            mkldnn.flags(enabled=False),  # torch counts no products of oneDNN,
            sdpa_kernel(SDPBackend.MATH),  # and of attention's kernels not all, nor all alike
            FakeTensorMode(allow_non_fake_inputs=True) as shapes,
            FlopCounterMode(display=False) as counter,
        ):
            there = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
            state = {**dict(task.named_parameters()), **dict(task.named_buffers())}
            fake: dict[str, Tensor] = {k: shapes.from_tensor(v) for k, v in state.items()}
            loss = torch.func.functional_call(task, fake, (there,))["loss"]
            trained = [tensor for tensor in fake.values() if tensor.requires_grad]
            torch.autograd.grad(loss, trained, allow_unused=True)
    except Exception as error:  # a count is no reason to lose what was trained
        say(f"FLOPs are not counted for this network: {first_line(error)}")
        return None
    return counter.get_total_flops() / len(batch["index"])
