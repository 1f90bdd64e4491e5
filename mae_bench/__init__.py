"""mae-bench: transfer learning from masked autoencoders, measured next to the published numbers.

    mae_bench.pretrain(data="mini", backbone="vit_mini")
    mae_bench.transfer(task="imagenet1k", backbone="vit_l", checkpoint="mae_pretrain_vit_large.pth")
    mae_bench.report()

Importing this package does not import torch; pre-training and transfer do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mae_bench.pretrain import pretrain
    from mae_bench.quickstart import quickstart
    from mae_bench.report import report
    from mae_bench.transfer import transfer

__version__ = "0.1.0"
__all__ = ["pretrain", "quickstart", "report", "transfer"]


def __getattr__(name: str) -> Any:
    """The commands, imported when first asked for: each is a function in the module of its name."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    command = getattr(import_module(f"mae_bench.{name}"), name)
    globals()[name] = command  # importing the submodule bound the module to this name
    return command
