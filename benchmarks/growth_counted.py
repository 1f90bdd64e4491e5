"""What the formulas of `growth` are fed with: counted on shapes alone, at any size.

And the same measured, where a CPU can: memory that torch really holds, bytes that really travel.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from counting import loss_of, training_flops
from growth import Network
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

import backbones
from backbones.vit import Block
from mae_bench.mae import MaskedAutoencoder
from tasks.classification.classifier import Classifier
from tasks.classification.recipes import recipe

PROBED = (2, 4)
"""batches whose difference is an image's"""
VIEWS = {
    *("view", "_unsafe_view", "expand", "t", "transpose", "permute", "slice", "unbind", "select"),
    *("detach", "alias", "unsqueeze", "squeeze", "as_strided", "split", "unfold"),
}
"""operators that call no kernel"""


class FineTuning(nn.Module):
    """A classifier with its loss on images of float32."""

    def __init__(self, backbone: str) -> None:
        super().__init__()
        setup = recipe("imagenet1k", backbone, "finetune")
        vit = backbones.create(backbone, setup.image_size, drop_path=setup.drop_path)
        self.classifier = Classifier(setup, vit, 1000)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.classifier.logits(images), targets)


def pretraining(backbone: str, **options: Any) -> tuple[nn.Module, Any]:
    """A masked autoencoder, and its inputs for a batch."""
    mae = MaskedAutoencoder(backbone, norm_pix=True, **options)
    side = mae.encoder.image_size

    def inputs(batch: int) -> tuple[Tensor, ...]:
        return torch.randn(batch, 3, side, side), torch.rand(batch, mae.num_patches)

    return mae, inputs


def finetuning(backbone: str) -> tuple[nn.Module, Any]:
    """The same of a classifier that is fine-tuned."""
    network = FineTuning(backbone)
    side = backbones.SIZES[backbone].pretrain_image
    return network, lambda batch: (torch.randn(batch, 3, side, side), torch.arange(batch) % 1000)


def count(name: str, network: nn.Module, inputs: Any) -> Network:
    """Everything that the formulas ask of a network; nothing of its size is computed."""
    few, many = PROBED
    small, large = (saved_bytes(network, inputs(batch)) for batch in PROBED)
    each = (large - small) / (many - few)
    flops = training_flops(network, *inputs(few))
    assert flops is not None
    parameters = list(network.parameters())
    blocks = [
        sum(p.numel() for p in block.parameters())
        for block in network.modules()
        if isinstance(block, Block)
    ]
    return Network(
        name=name,
        flops=flops / few,
        forward_flops=flops / few / 3,
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        fixed=sum(p.numel() for p in parameters if not p.requires_grad),
        largest_block=max(blocks),
        outside=sum(p.numel() for p in parameters) - sum(blocks),
        activations=each,
        casts=small - few * each,
        launches=operators(network, inputs(few)),
    )


def attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """As on a GPU: in bf16, and not in float32 as `backbones.precision` has it on a CPU."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    with mock.patch("backbones.vit.attention", attention), torch.autocast("cpu", torch.bfloat16):
        yield


@contextmanager
def on_shapes(network: nn.Module, inputs: tuple[Tensor, ...]) -> Iterator[tuple[Any, Any]]:
    """The network and its inputs as tensors of a CPU without any numbers."""
    own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        # Not of the tensors themselves: a large network has none, but is on the meta device.
        fake = {
            name: torch.empty(p.shape, dtype=p.dtype).requires_grad_(p.requires_grad)
            for name, p in own.items()
        }
        given = tuple(mode.from_tensor(each) for each in inputs)

        def call() -> Tensor:
            return loss_of(torch.func.functional_call(network, fake, given))

        yield call, [p for p in fake.values() if p.requires_grad]


def saved_bytes(network: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Bytes that a forward pass under bf16 keeps, weights themselves left out."""
    with on_shapes(network, inputs) as (call, weights):
        own = {weight.untyped_storage()._cdata for weight in weights}
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            key = tensor.untyped_storage()._cdata
            if key not in own:
                kept[key] = tensor  # held, so that no other takes its place
            return tensor

        with saved_tensors_hooks(keep, lambda t: t), as_on_a_gpu():
            loss = call()
        total = sum(each.untyped_storage().nbytes() for each in kept.values())
        del loss
    return total


class Operators(TorchDispatchMode):
    """Counts operators that call a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        library, name, _ = str(func).split(".")
        self.count += library == "aten" and name not in VIEWS
        return func(*args, **(kwargs or {}))


def operators(network: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Of forward and backward; a fused optimiser adds a few."""
    with on_shapes(network, inputs) as (call, weights), Operators() as counter, as_on_a_gpu():
        torch.autograd.grad(call(), weights, allow_unused=True)
    return counter.count


def held_bytes(network: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Measured: bytes that torch's allocator holds after a forward pass more than before it."""
    network = copy.deepcopy(network)
    with as_on_a_gpu():
        loss_of(network(*inputs)).backward()  # libraries allocate what they keep
    network.zero_grad(set_to_none=True)
    recorder = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with recorder as seen, as_on_a_gpu():
        loss = loss_of(network(*inputs))
    del loss
    return float(sum(e.self_cpu_memory_usage for e in seen.key_averages()))


def state_bytes(network: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Measured: bytes of weights, gradients and moments after a step, as they lie in memory."""
    network = copy.deepcopy(network)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, fused=True)
    loss_of(network(*inputs)).backward()
    optimiser.step()
    tensors = [*network.parameters(), *(p.grad for p in trained if p.grad is not None)]
    tensors += [t for state in optimiser.state.values() for t in state.values() if t.ndim]
    return float(sum(t.untyped_storage().nbytes() for t in tensors))
