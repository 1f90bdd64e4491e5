"""What a network costs: its arithmetic, as torch counts it, its size, and its time for an image."""

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.backends import mkldnn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from backbones.dense import DenseViT
from backbones.vit import Block
from mae_bench.errors import first_line
from mae_bench.progress import say
from mae_bench.setup import Spent
from tasks.task import Task

COUNTED_IMAGES = 4
"""in the batch that is counted; batch norm needs more than one"""
SHAPES = "meta"
"""the device that computes nothing; unlike torch's fake tensors it leaves autograd no threads, with
which a process could not fork any more"""
WARM_UPS, TIMED = 2, 5
"""forward passes of one image, before and of which the median is taken"""


def with_flops(spent: Spent, task: Task) -> Spent:
    """What a pre-training took, with the arithmetic of its training."""
    return replace(spent, flops_per_image=flops_per_image(task))


def with_backbone(spent: Spent, backbone: nn.Module, image_size: int) -> Spent:
    """What a run took, with what its backbone costs for one image (1, 3, S, S) when it is used.

    Latency is the median time of a forward pass in float32, on the device of the backbone. A
    backbone that takes no such image is not measured, which a line says.
    """
    device = next(backbone.parameters()).device
    image = torch.zeros(1, 3, image_size, image_size, device=device)
    module = LastMap(backbone) if isinstance(backbone, DenseViT) else backbone
    try:
        with in_mode(module, training=False), torch.no_grad():
            latency = _median_time(lambda: module(image), device)
            flops = counted(module, lambda state: _forward(module, state, image))
    except Exception as error:  # a price is no reason to lose a score
        say(f"what the backbone costs is not measured: {first_line(error)}")
        return spent
    return replace(
        spent,
        parameters=sum(each.numel() for each in backbone.parameters()),
        forward_flops=flops,
        latency_seconds=latency,
    )


class LastMap(nn.Module):
    """A backbone for dense prediction up to the map (B, S / p, S / p, C) of its last block."""

    def __init__(self, backbone: DenseViT) -> None:
        super().__init__()
        self.backbone = backbone
        self.training = backbone.training

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone.feature_maps(images, (len(self.backbone.blocks) - 1,))[0]


def flops_per_image(task: Task) -> float | None:
    """Floating-point operations of the matrix products and convolutions of one training image,
    forward and backward; a multiplication with its addition is two.

    Nothing is computed: shapes alone go through the network, and neither weights, gradients nor any
    generator change. The same on every device and however a run is carried out: activations that
    are computed again for want of memory count once. What training alone does and looks at its
    numbers, as mixing images, is left out. None, after a line that says so, for a network that
    looks at its numbers in evaluation too.
    """
    count = min(COUNTED_IMAGES, len(task.train_data))
    batch = task.train_data.__getitems__([(0, index) for index in range(count)])

    def step(state: dict[str, Tensor]) -> None:
        there = {k: v.to(SHAPES) if isinstance(v, Tensor) else v for k, v in batch.items()}
        loss = torch.func.functional_call(task, state, (there,))["loss"]
        trained = [tensor for tensor in state.values() if tensor.requires_grad]
        torch.autograd.grad(loss, trained, allow_unused=True)

    with apart(task), keeping_activations(task):
        with in_mode(task, training=True):
            total = counted(task, step, quiet=True)
        if total is None:
            with in_mode(task, training=False):
                total = counted(task, step)
    return None if total is None else total / len(batch["index"])


@contextmanager
def apart(task: Task) -> Iterator[None]:
    """Keep the task's tokenizer where it is: from a device of shapes no weights come back."""
    kept = getattr(task, "tokenizer", None)
    if kept is None:
        yield
        return
    vars(task)["tokenizer"] = replace(kept, encoder=deepcopy(kept.encoder))
    try:
        yield
    finally:
        vars(task)["tokenizer"] = kept


@contextmanager
def keeping_activations(task: Task) -> Iterator[None]:
    """Compute nothing again in a backward pass, in which the shapes of parameters are gone."""
    blocks = [each for each in task.modules() if isinstance(each, Block)]
    again = {each: vars(each).pop("forward") for each in blocks if "forward" in vars(each)}
    try:
        yield
    finally:
        for block, forward in again.items():
            vars(block)["forward"] = forward


@contextmanager
def in_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Training or evaluation, for as long as it takes."""
    before = module.training
    module.train(training)
    try:
        yield
    finally:
        module.train(before)


def counted(
    module: nn.Module, work: Callable[[dict[str, Tensor]], None], quiet: bool = False
) -> float | None:
    """FLOPs of some work, which gets the shapes of the module's parameters and buffers by name."""
    device = next(module.parameters()).device
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            mkldnn.flags(enabled=False),  # torch counts no products of oneDNN,
            sdpa_kernel(SDPBackend.MATH),  # and of attention's kernels not all, nor all alike
            torch.device(SHAPES),
            FlopCounterMode(display=False) as counter,
        ):
            state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            work({name: _shape(tensor) for name, tensor in state.items()})
    except Exception as error:  # a count is no reason to lose what was trained
        if not quiet:
            say(f"FLOPs are not counted for this network: {first_line(error)}")
        return None
    return float(counter.get_total_flops())


def _shape(tensor: Tensor) -> Tensor:
    return tensor.detach().to(SHAPES).requires_grad_(tensor.requires_grad)


def _forward(backbone: nn.Module, state: dict[str, Tensor], image: Tensor) -> None:
    torch.func.functional_call(backbone, state, (image.to(SHAPES),))


def _median_time(work: Callable[[], object], device: torch.device) -> float:
    """Seconds."""
    times = []
    for _ in range(WARM_UPS + TIMED):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[WARM_UPS:])
