"""A suite: what it consists of, which runs that is, and how they are carried out.

Importing this package imports nothing slow: the command line reads a number of `suite.cost`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mae_bench.suite.running import suite

__all__ = ["suite"]


def __getattr__(name: str) -> Any:
    if name != "suite":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mae_bench.suite.running import suite

    return suite
