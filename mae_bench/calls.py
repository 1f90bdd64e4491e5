"""What was called where no command line was typed: in a notebook, at a prompt. Imports no torch."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

called: ContextVar[str | None] = ContextVar("called", default=None)
"""the outermost function of ours that is at work, as it can be typed again"""
chosen: ContextVar[str | None] = ContextVar("chosen", default=None)
"""the checkpoint that a transfer has taken by itself"""
NOTEBOOKS = ("ipykernel_launcher", "colab_kernel_launcher", "ipython", "ipython3")


@functools.cache
def remembered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which `called` tells of while it works."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if called.get() is not None:
            return function(*arguments, **named)
        tokens = called.set(written(name, function, arguments, named)), chosen.set(None)
        try:
            return function(*arguments, **named)
        finally:
            called.reset(tokens[0])
            chosen.reset(tokens[1])

    return call


def written(
    name: str, function: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]
) -> str:
    """ "mae_bench.transfer(task='coco', seed=1)", whatever was given by its place."""
    try:
        given = inspect.signature(function).bind(*arguments, **named).arguments
    except TypeError:  # which the call itself says
        return f"mae_bench.{name}(...)"
    flat: dict[str, Any] = {}
    kinds = inspect.signature(function).parameters
    for key, value in given.items():
        flat |= value if kinds[key].kind is inspect.Parameter.VAR_KEYWORD else {key: value}
    words = (f"{key}={shown(value)}" for key, value in flat.items())
    return f"mae_bench.{name}({', '.join(words)})"


def shown(value: Any) -> str:
    """A value as it can be typed: of settings those that are not at their defaults."""
    if isinstance(value, Path):
        return repr(str(value))
    if not is_dataclass(value) or isinstance(value, type):
        return repr(value)
    set_to = {each.name: getattr(value, each.name) for each in fields(value)}
    words = [
        f"{f.name}={shown(set_to[f.name])}" for f in fields(value) if set_to[f.name] != f.default
    ]
    return f"{type(value).__name__}({', '.join(words)})"


def is_interactive() -> bool:
    """Whether what started this process is no command that could be typed again."""
    program = Path(sys.argv[0]).stem if sys.argv else ""
    return program in (*NOTEBOOKS, "", "-c") or hasattr(sys, "ps1")
