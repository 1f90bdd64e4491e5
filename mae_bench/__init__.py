"""mae-bench: transfer learning from masked autoencoders, measured next to the published numbers.

    mae_bench.pretrain(data="mini", backbone="vit_mini")
    mae_bench.transfer(task="imagenet1k", backbone="vit_l", checkpoint="mae_pretrain_vit_large.pth")
    mae_bench.report()
    mae_bench.records()  # a pandas data frame

Importing this package does not import torch; pre-training and transfer do.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mae_bench.calls import remembered

if TYPE_CHECKING:
    from mae_bench.evaluate import evaluate
    from mae_bench.export import export
    from mae_bench.partial_curve import partial_curve
    from mae_bench.plan import plan
    from mae_bench.predict import predict
    from mae_bench.pretrain import pretrain
    from mae_bench.push import push
    from mae_bench.quickstart import quickstart
    from mae_bench.records import records
    from mae_bench.report import report
    from mae_bench.suite import suite
    from mae_bench.transfer import transfer

__version__ = "0.1.0"
__all__ = [
    "evaluate",
    "export",
    "partial_curve",
    "plan",
    "predict",
    "pretrain",
    "push",
    "quickstart",
    "records",
    "report",
    "suite",
    "transfer",
]


def __getattr__(name: str) -> Any:
    """The commands, imported when first asked for: each is a function in the module of its name."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return remembered(name, getattr(import_module(f"mae_bench.{name}"), name))


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])


class Package(ModuleType):
    """A package in which a command's name stays free of the module of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):  # which importing it would set
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = Package
