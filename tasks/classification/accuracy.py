"""Top-1 and top-5 over a test set, each image counted once."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from tasks import TaskError
from tasks.classification.data import EvalImages
from tasks.task import Progress


@dataclass
class Hits:
    """Counts over test images."""

    top1: int = 0
    top5: int = 0
    images: int = 0
    unreadable: list[str] = field(default_factory=list)

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Count a batch: logits (B, K), class indices (B,)."""
        if not torch.isfinite(logits).all():
            raise TaskError("the model's logits are not finite; its training has diverged")
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices  # (B, 5), best first
        hits = best == targets[:, None]
        self.top1 += int(hits[:, 0].sum())
        self.top5 += int(hits.sum())
        self.images += len(targets)

    def summed(self, device: torch.device) -> "Hits":
        """The counts of all processes together."""
        counts = torch.tensor([self.top1, self.top5, self.images], device=device)
        dist.all_reduce(counts)
        names: list[list[str]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(names, self.unreadable)
        top1, top5, images = counts.tolist()
        return Hits(top1, top5, images, sorted(name for part in names for name in part))


def count_hits(
    predict: Callable[[Tensor], Tensor],
    data: EvalImages,
    device: torch.device,
    *,
    batch_size: int,
    workers: int,
    on_progress: Progress | None,
) -> Hits:
    """Score every image once; under torch.distributed each process scores its share.

    `predict` maps uint8 images (B, 3, S, S) on `device` to logits (B, K). All processes return
    the sum.
    """
    spread = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if spread else (0, 1)
    own = range(rank, len(data), world)
    loader = DataLoader(
        data,
        batch_size=None,  # the data set makes whole batches
        sampler=[own[start : start + batch_size] for start in range(0, len(own), batch_size)],
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    hits = Hits()
    for batch in loader:
        if len(batch["targets"]):
            images = batch["images"].to(device, non_blocking=True)
            hits.add(predict(images), batch["targets"].to(device, non_blocking=True))
        hits.unreadable += batch["skipped"]
        if on_progress is not None:
            done = hits.images + len(hits.unreadable)
            on_progress(min(done * world, len(data)))
    return hits.summed(device) if spread else hits
