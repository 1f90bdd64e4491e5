"""Measured: what two processes send each other under DDP, and what each of them holds under FSDP.

Gloo over this machine's loopback, whose counters the kernel keeps. Others on the machine send over
it too, so the least of several steps is taken.
"""

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from growth_counted import as_on_a_gpu
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parallel import DistributedDataParallel

from mae_bench.mae import MaskedAutoencoder
from mae_bench.sharding import shard

STEPS = 4
DEVICES = Path("/proc/net/dev")


@dataclass(frozen=True)
class Found:
    trained: int
    """numbers with a gradient"""
    reduced: float
    """bytes that DDP reduces in a step"""
    sent: float | None
    """bytes that each process sends; None where the system does not count them"""
    whole: int
    """bytes of all weights"""
    part: int
    """bytes of the weights of one process under `--shard`"""
    matrices: int
    """numbers of all matrices of linear layers"""
    rounded: int
    """bytes of bf16 copies of weights that one process keeps for the backward pass"""


def traffic(options: dict[str, Any], backbone: str) -> Found:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with mp.Manager() as manager:
        found = manager.dict()
        mp.spawn(work, (port, backbone, options, found), nprocs=2)
        return Found(**found)


def work(rank: int, port: int, backbone: str, options: dict[str, Any], found: Any) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    mae = MaskedAutoencoder(backbone, **options)
    side = mae.encoder.image_size
    inputs = torch.randn(2, 3, side, side), torch.rand(2, mae.num_patches)
    facts = sends(mae, inputs) | holds(mae, inputs)
    if rank == 0:
        found.update(facts)
    dist.destroy_process_group()


def sends(mae: MaskedAutoencoder, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    """Both processes' bytes are on the loopback, so half of them are each one's."""
    model = DistributedDataParallel(Loss(mae))
    reduced: list[int] = []
    model.register_comm_hook(reduced, count_and_reduce)
    sent = []
    for _ in range(STEPS):
        reduced.clear()
        dist.barrier()
        before = loopback()
        model(*inputs).backward()
        dist.barrier()
        after = loopback()
        if before is not None and after is not None:
            sent.append(after - before)
    return {
        "trained": sum(p.numel() for p in mae.parameters() if p.requires_grad),
        "reduced": float(sum(reduced)),
        "sent": min(sent[1:]) / 2 if sent else None,
    }


def holds(mae: MaskedAutoencoder, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    """A network sharded as `--shard` does it, in a forward pass under bf16."""
    whole = sum(p.nbytes for p in mae.parameters())
    shapes = {p.shape for m in mae.modules() if isinstance(m, nn.Linear) for p in [m.weight]}
    shapes |= {torch.Size((shape[1], shape[0])) for shape in shapes}  # transposed in a product
    matrices = sum(m.weight.numel() for m in mae.modules() if isinstance(m, nn.Linear))
    shard(mae, torch.device("cpu"))
    part = sum(p.to_local().nbytes for p in mae.parameters())
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.bfloat16 and tensor.shape in shapes:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda t: t), as_on_a_gpu():
        loss = mae(*inputs).loss
    rounded = sum(each.nbytes for each in kept.values())
    del loss
    return {"whole": whole, "part": part, "matrices": matrices, "rounded": rounded}


class Loss(nn.Module):
    def __init__(self, mae: MaskedAutoencoder) -> None:
        super().__init__()
        self.mae = mae

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        return self.mae(images, noise).loss


def count_and_reduce(
    reduced: list[int], bucket: dist.GradBucket
) -> torch.futures.Future[torch.Tensor]:
    buffer = bucket.buffer()
    reduced.append(buffer.nbytes)
    return dist.all_reduce(buffer, async_op=True).get_future().then(lambda done: done.value()[0])


def loopback() -> int | None:
    """Bytes that this machine has sent to itself."""
    if not sys.platform.startswith("linux") or not DEVICES.exists():
        return None
    for line in DEVICES.read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[8])
    return None
