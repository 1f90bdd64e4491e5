"""Recipes of every command: looked up, overridden, compared. Imports no torch.

Those of pre-training are in `mae_bench.pretraining`, those of the downstream tasks in `tasks`.
"""

import dataclasses
import difflib
from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_type_hints

import backbones
import tasks
from mae_bench.errors import RunError
from mae_bench.pretraining.methods import METHODS
from mae_bench.pretraining.recipes import PRETRAIN
from tasks.recipe import Recipe, Sourced, made

if TYPE_CHECKING:
    from results.record import Changed

# Published numbers are compared across number formats and device counts all the time; both stay
# in the recipe and in its hash.
NOT_THE_PROTOCOL = {"device_batch", "precision"}


def sourced(task: str, backbone: str, protocol: str) -> Sourced:
    """Every field of a recipe with its value and where that comes from.

    `task` is a downstream task, or "pretrain" with a method as protocol. Raises the packages'
    one-line errors for an unknown name.
    """
    backbones.size_of(backbone)
    if task != PRETRAIN:
        return tasks.sourced(task, backbone, protocol)
    tasks.check_known("method", protocol, list(METHODS))
    return METHODS[protocol].sourced(backbone)


def recipe(task: str, backbone: str, protocol: str) -> Recipe:
    """The recipe of a protocol for a backbone; `RunError` if the two do not fit each other."""
    rows = sourced(task, backbone, protocol)
    own = task == PRETRAIN
    kind = METHODS[protocol].recipe_type if own else tasks.recipe_type(task, protocol)
    try:
        return made(kind, rows)
    except ValueError as error:
        raise RunError(f"{rows['protocol'][0]} with {backbone}: {error}") from None


def override(base: Recipe, changes: dict[str, Any]) -> Recipe:
    """`base` with some fields changed; `RunError` names an unknown field or a refused value."""
    names = [f.name for f in fields(base) if f.name not in ("protocol", "backbone")]
    for name in changes:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=2)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise RunError(f"unknown recipe field {name!r}; {hint}there are {', '.join(names)}")
    kinds = get_type_hints(type(base))
    changes = base.implied(changes) | changes
    try:
        typed_changes = {k: typed(k, v, kinds[k]) for k, v in changes.items()}
        changed = dataclasses.replace(base, **typed_changes)
    except ValueError as error:
        raise RunError(str(error)) from None
    for name, why in changed.idle().items():
        value, usual = getattr(changed, name), getattr(base, name)
        if value != usual:
            raise RunError(
                f"recipe field {name} is {value!r}; with {why} it has no effect: leave it out"
            )
    return changed


def typed(name: str, value: Any, kind: Any) -> Any:
    """A recipe field's value as its type; `ValueError` if it is none, or is not finite."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError  # slow, and --help needs it not

    several = value if isinstance(value, list | tuple) else [value]
    if kind is not bool and any(isinstance(each, bool) for each in several):
        raise ValueError(f"recipe field {name} is {value!r}; expected no truth value")
    try:
        return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ValueError(f"recipe field {name} is {value!r}; {reason}") from None


def changes(base: Recipe, effective: Recipe) -> list["Changed"]:
    """What an effective recipe changes of its protocol: "epochs 100 -> 1"."""
    from results.record import Changed  # pydantic's: as above

    old, new = base.to_dict(), effective.to_dict()
    return [
        Changed(field=name, value=new[name], standard=old[name])
        for name in old
        if old[name] != new[name] and name not in NOT_THE_PROTOCOL
    ]
