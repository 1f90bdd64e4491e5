"""A network whose numbers lie in parts in the processes of a run: none has to hold all of them.

torch's `fully_shard` splits every parameter along its first axis: each process keeps its part, of
the gradient and of the optimiser's moments too. A transformer block is whole only while it
computes. What is computed is what one process computes, to rounding: sums differ in their order.

States and weights are saved whole, in the form of other runs, so that any number of processes goes
on from them, sharded or not. (accelerate's own way to `fully_shard` takes no CPUs, and turns all
later runs of a Python process into sharded ones.)
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from backbones.vit import Backbone, Block
from mae_bench.errors import RunError
from mae_bench.progress import say
from tasks.processes import num_processes
from tasks.task import Batch, Task


def refuse_unshardable(task: Task) -> None:
    """Raise `RunError` for a network that would not be computed as it is if it were sharded."""
    for name, parameter in task.named_parameters():
        if parameter.ndim == 0:
            raise RunError(
                f"--shard: parameter {name} is a single number, which cannot be split; leave it out"
            )
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            raise RunError(
                f"--shard: parameter {name} has a hook on its gradient, which would be lost; leave "
                "it out"
            )


def unsharded_twin(task: Task) -> Task:
    """A copy of the network, to be sharded; data and all else that is no network are shared."""
    shared = {id(value): value for name, value in vars(task).items() if name[0] != "_"}
    return deepcopy(task, shared)


def shard(network: nn.Module, device: torch.device) -> None:
    """Keep a part of each parameter in each process, on `device`; the first process's numbers."""
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.contiguous()  # torch shards no others
    take_the_first(network, device)
    mesh = init_device_mesh(device.type, (num_processes(),))
    for modules in units(network):
        fully_shard(modules, mesh=mesh)
    fully_shard(network, mesh=mesh)


def units(network: nn.Module) -> Iterator[list[nn.Module]]:
    """What is gathered together in a forward pass; all the rest is gathered for the whole of it.

    A transformer block, of a backbone from outside too; where blocks share a parameter, as BEiT's
    table of positions, those of its layers that share none.
    """
    backbone = getattr(network, "backbone", None)
    foreign = [] if isinstance(backbone, Backbone) else [*getattr(backbone, "blocks", ())]
    ours = [module for module in network.modules() if isinstance(module, Block)]
    owners = Counter(
        id(parameter)
        for module in network.modules()
        for parameter in module.parameters(recurse=False)
    )
    for block in ours or foreign:
        layers = [layer for layer in block.modules() if [*layer.parameters(recurse=False)]]
        alone = [
            layer
            for layer in layers
            if all(owners[id(each)] == 1 for each in layer.parameters(recurse=False))
        ]
        yield [block] if len(alone) == len(layers) else alone


def take_the_first(network: nn.Module, device: torch.device, buffers_only: bool = False) -> None:
    """Give all processes the first one's numbers, as torch's DistributedDataParallel does."""
    if num_processes() == 1:
        return
    for tensor in (*(() if buffers_only else network.parameters()), *network.buffers()):
        sent = tensor.detach().to(device)
        dist.broadcast(sent, 0)
        tensor.data.copy_(sent)


def whole(state: Any, everywhere: bool = False) -> Any:
    """A state with whole tensors, on the CPU, in place of parts; all processes have to ask for it.

    In the first process; in the others None stands for a tensor, unless it is to be everywhere.
    """
    if isinstance(state, DTensor):
        full = state.full_tensor()
        return full.cpu() if everywhere or dist.get_rank() == 0 else None
    if isinstance(state, dict):
        return {key: whole(value, everywhere) for key, value in state.items()}
    return state


def parts(state: dict[str, Any], owner: nn.Module | Optimizer) -> dict[str, Any]:
    """What `owner.load_state_dict` takes of a whole state: parts where its own tensors are."""
    if not isinstance(owner, Optimizer):
        own = owner.state_dict()
        return {name: part(value, own.get(name)) for name, value in state.items()}
    trained = dict(enumerate(each for group in owner.param_groups for each in group["params"]))
    moments = {
        index: {name: part(value, trained.get(index)) for name, value in kept.items()}
        for index, kept in state["state"].items()
    }
    return state | {"state": moments}


def part(value: Any, like: Any) -> Any:
    """This process's part of a whole tensor, if `like` is such a part of one of that shape."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    # A copy, for the whole one may be a file that is looked into.
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None).clone()


class Sealed:
    """A batch that nobody looks into before the network does.

    Around a network torch's DistributedDataParallel and `fully_shard` move every tensor to a GPU,
    also those that `Batch` says stay where the host reads them, and wait for each.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch


def take_sealed(network: nn.Module) -> None:
    """Have a network take its batches sealed."""
    network.register_forward_pre_hook(opened)


def opened(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a network is called with, unsealed: a hook of its forward pass."""
    return tuple(each.batch if isinstance(each, Sealed) else each for each in given)


class Networks:
    """What is trained of a task, and its running average if the recipe wants one.

    The task itself; or a sharded twin of it, while the task waits whole in the CPU's memory.
    """

    def __init__(self, task: Task, device: torch.device, sharded: bool) -> None:
        self.task, self.device, self.sharded = task, device, sharded
        self.trained = unsharded_twin(task) if sharded else task.to(device)
        decay = task.recipe.ema_decay
        # Parts and whole buffers cannot be averaged in one call.
        self.ema = ModelEmaV3(self.trained, decay, foreach=not sharded) if decay else None

    def shard(self) -> None:
        """Shard them, if that is asked for, and say so."""
        if not self.sharded:
            return
        for network in (self.trained, self.ema.module if self.ema else None):
            if network is not None:
                shard(network, self.device)
        number = sum(each.numel() for each in self.trained.parameters())
        say(f"sharded: {number:,} parameters in {num_processes()} processes")

    def wrapped(self, accelerator: Accelerator) -> nn.Module:
        """What a sealed batch is given to."""
        take_sealed(self.trained)
        return self.trained if self.sharded else accelerator.prepare_model(self.trained)

    def finished(self) -> Task:
        """The weights to evaluate, the averaged ones if there are any, whole in every process."""
        best = self.ema.module if self.ema else self.trained
        if self.sharded:
            self.task.load_state_dict(whole(best.state_dict(), everywhere=True))
            best = self.task.to(self.device)
        # Batch norm's statistics are each process's own; those of the first one are kept.
        take_the_first(best, self.device, buffers_only=True)
        return best

    @contextmanager
    def assembled(self) -> Iterator[Task]:
        """The same for a while, in the middle of training."""
        yield self.finished()
        if self.sharded:
            self.task.cpu()
