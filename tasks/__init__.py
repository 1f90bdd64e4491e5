"""Downstream tasks: data, head, loss and metrics around a backbone.

Importing this package, a task's `face` or its `recipes` module does not import torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import TaskError
from tasks.recipe import Recipe, Sourced

if TYPE_CHECKING:
    from tasks.check import Check, Progress
    from tasks.face import Face
    from tasks.task import Measurement

FACES = ["tasks.classification.face", "tasks.coco.face", "tasks.ade20k.face"]
"""modules, each with a `FACE`: a new task is one folder and one line here"""


HELD_OUT_WITHIN = 6
"""folders above one of images in which the lists of a data set may lie"""


def faces() -> list[Face]:
    """Of all tasks."""
    return [import_module(name).FACE for name in FACES]


def known() -> dict[str, str]:
    """Task -> what it measures."""
    return {name: what for face in faces() for name, what in face.tasks.items()}


def checked() -> list[str]:
    """Data sets that can be looked at: of tasks, and those that only test."""
    return [row.name for face in faces() for row in face.datasets()]


def face_of(name: str) -> Face:
    """The face of a task, or of a data set that only tests.

    Raises `TaskError` with near matches for an unknown one.
    """
    for face in faces():
        if name in face.tasks or name in face.only_test:
            return face
    check_known("task", name, list(known()))
    raise AssertionError(name)


def protocols(task: str) -> dict[str, str]:
    """Protocols of a task and what trains in each; the first is the one that users ask for."""
    return recipes_of(task).PROTOCOLS | own_protocols(task)


def own_protocols(task: str) -> dict[str, str]:
    """Of those, the ones that other tasks by the same recipes do not have."""
    return dict(getattr(recipes_of(task), "OF_ONE_TASK", {}).get(task, {}))


def recipe_type(task: str, protocol: str) -> type[Recipe]:
    """The class of a protocol's recipes."""
    return recipes_of(task).recipe_type(protocol)


def sourced(task: str, backbone: str, protocol: str) -> Sourced:
    """Every field of a recipe with its value and where that comes from.

    Raises `TaskError` with near matches for an unknown task, protocol or backbone.
    """
    return recipes_of(task).sourced(task, backbone, protocol)


def scratch_note(task: str, protocol: str, backbone: str) -> str | None:
    """What a protocol's source does otherwise with random weights, for the user, if anything."""
    return face_of(task).scratch_note(protocol, backbone)


def recipes_of(task: str) -> Any:
    """The module with a task's recipes: PROTOCOLS, `recipe_type` and `sourced`."""
    check_known("task", task, list(known()))
    return face_of(task).recipes


def check_data(
    name: str,
    source: str | Path,
    on_progress: Progress | None = None,
    max_bad_images: int = 50,
) -> Check:
    """All that can be said of a task's data before it is used: the one judgement.

    `mae-bench data check` prints it, and `mae-bench transfer` trains only on what has no problem
    in it. The test set is looked at as the scorer will see it: every label or annotation file, and
    a sample of the images.
    """
    return face_of(name).check(name, source, on_progress, max_bad_images)


def check_test(
    name: str,
    source: str | Path,
    classes: Sequence[str],
    on_progress: Progress | None = None,
    max_bad_images: int = 50,
) -> Check | None:
    """The same of a test set alone, for a model that has learnt `classes`; None if it is none."""
    return face_of(name).check_test(name, source, classes, on_progress, max_bad_images)


def held_out(folder: Path) -> dict[str, list[Path]]:
    """Words -> files below a folder, or beside it, that are no images to pre-train on.

    Test images that lie among the training images of an official data set, and label images.
    """
    from tasks.stores import opened

    place = opened(folder).absolute()
    near = [place, *place.parents[:HELD_OUT_WITHIN]]
    return {
        what: files for at in near for face in faces() for what, files in face.held_out(at).items()
    }


def build(
    task: str,
    recipe: Recipe,
    backbone: Any,
    data: Any,
    seed: int,
    limit: int | None = None,
) -> Measurement:
    """The task around a backbone; missing or broken data fails here, with a `TaskError`.

    `data` is where they lie, or what `check_data` has read.
    """
    check_known("task", task, list(known()))
    return face_of(task).build(task, recipe, backbone, data, seed, limit)


def check_known(kind: str, name: str, known: list[str]) -> None:
    """Raise `TaskError` with near matches and everything there is unless `name` is known."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise TaskError(f"unknown {kind} {name!r}; {hint}there are {', '.join(known)}")
