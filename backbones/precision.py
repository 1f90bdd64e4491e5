"""Arithmetic in the tensors' own precision, whatever autocast says around it."""

from contextlib import AbstractContextManager, nullcontext

import torch


def as_they_are(device: str) -> AbstractContextManager:
    """Switches autocast off on a type of device; the meta device, which only counts, has none."""
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)
