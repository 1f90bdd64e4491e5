"""Flags made from recipes, and a parser's complaints in one line. Imports no torch."""

import ast
import inspect
import re
import textwrap
from dataclasses import field, fields, make_dataclass
from typing import Annotated, Any, get_type_hints

from tyro.conf import arg

import tasks
from mae_bench import recipes
from tasks.classification.recipes import CURVE, PARTIAL


def default_protocol(task: str) -> str:
    return next(iter(tasks.protocols(task)))


def with_recipe(command: type, task: str, backbone: str, protocol: str) -> type:
    """`command` with one more flag per recipe field: default, meaning, and the value's source."""
    hidden = {"protocol", "backbone"} | ({"trained_blocks"} if protocol == CURVE else set())
    protocol = one_point(task, protocol)
    base = recipes.recipe(task, backbone, protocol)
    kinds, meanings = get_type_hints(type(base)), field_docstrings(type(base))
    flags: list[tuple[str, Any, Any]] = []
    for name, (value, source) in recipes.sourced(task, backbone, protocol).items():
        if name not in hidden:
            help_text = f"{meanings[name]} [{source}]"
            flags.append((name, Annotated[kinds[name], arg(help=help_text)], value))
    group = make_dataclass("Recipe", flags)
    made = make_dataclass(
        command.__name__,
        [("recipe", Annotated[group, arg(name="")], field(default_factory=group))],
        bases=(command,),
    )
    made.__doc__ = command.__doc__
    return made


def changed(command: Any, task: str, protocol: str) -> dict[str, Any]:
    """Recipe fields that the command line sets to something else than the protocol."""
    base = recipes.recipe(task, command.backbone, one_point(task, protocol))
    given = {f.name: getattr(command.recipe, f.name) for f in fields(command.recipe)}
    return {name: value for name, value in given.items() if value != getattr(base, name)}


def one_point(task: str, protocol: str) -> str:
    """The protocol itself; of a whole curve, the point whose recipe its flags show."""
    whole = protocol == CURVE and PARTIAL in tasks.protocols(task)
    return "partial:1" if whole else protocol


def field_docstrings(kind: type) -> dict[str, str]:
    """The docstring under each field of a dataclass and its bases."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                found[statement.target.id] = str(after.value.value)
    return found


def in_one_line(box: str) -> str:
    """What tyro says in a box of several lines: the fault, flags that it may have meant."""
    lines = [line.strip("│ ") for line in re.sub(r"\x1b\[[\d;]*m", "", box).splitlines()[1:]]
    if set(lines[0]) == {"-"}:  # where the terminal has no boxes, a rule is below the heading
        del lines[0]
    rule = next((i for i, line in enumerate(lines) if set(line) <= set("─╰╯-")), len(lines))
    fault = " ".join(lines[:rule]).rstrip(".")
    flags = [m[0] for line in lines[rule:] if (m := re.match(r"--[a-z][\w-]*", line))]
    typed = ["--help", *re.findall(r"--[\w-]+", fault)]
    near = [flag for flag in dict.fromkeys(flags) if flag not in typed]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{fault}{hint}"
