"""Precision of what is computed inside autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def as_it_is(x: Tensor) -> AbstractContextManager[object]:
    """No autocast around what is computed of `x`, whatever is on outside.

    On the meta device, where FLOPs are counted, there is no autocast that could be switched off.
    """
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
