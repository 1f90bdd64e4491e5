"""Downstream tasks: data, head, loss and metrics around a backbone.

Importing this package, or a task's `recipes` module, does not import torch.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.recipe import Recipe, Sourced

if TYPE_CHECKING:
    from tasks.task import Measurement

TASKS = {
    "imagenet1k": "classification, top-1 and top-5 accuracy in %",
    "inat2017": "classification of species",
    "inat2018": "classification of species",
    "inat2019": "classification of species",
    "places205": "classification of places",
    "places365": "classification of places",
    "folder": "classification of your own images, in class folders",
    "coco": "object detection and instance segmentation, box and mask AP",
    "ade20k": "semantic segmentation, mIoU in %",
}
"""task -> what it measures"""


class TaskError(ValueError):
    """Bad input to a task. The message is one line for the user: what, expected, what to do."""


class AloneError(TaskError):
    """What one of several processes met alone, so that no other can tell the user."""


def protocols(task: str) -> dict[str, str]:
    """Protocols of a task and what trains in each; the first is the one that users ask for."""
    return recipes_of(task).PROTOCOLS


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
    if task != "coco":
        return None
    from tasks.coco import recipes

    return recipes.scratch_note(protocol, backbone)


def recipes_of(task: str) -> Any:
    """The module with a task's recipes: PROTOCOLS, `recipe_type` and `sourced`."""
    check_known("task", task, list(TASKS))
    if task == "coco":
        from tasks.coco import recipes as coco

        return coco
    if task == "ade20k":
        from tasks.ade20k import recipes as ade20k

        return ade20k
    from tasks.classification import recipes as classification

    return classification


def build(
    task: str,
    recipe: Recipe,
    backbone: Any,
    data_root: str | Path,
    seed: int,
    limit: int | None = None,
) -> Measurement:
    """The task around a backbone; missing or broken data fails here, with a `TaskError`."""
    check_known("task", task, list(TASKS))
    if task == "coco":
        from tasks.coco.recipes import CocoRecipe
        from tasks.coco.task import Coco

        assert isinstance(recipe, CocoRecipe)
        return Coco(recipe, backbone, data_root, seed, limit)
    if task == "ade20k":
        from tasks.ade20k.recipes import Ade20kRecipe
        from tasks.ade20k.task import Ade20k

        assert isinstance(recipe, Ade20kRecipe)
        return Ade20k(recipe, backbone, data_root, seed, limit)
    from tasks.classification.probe_recipes import KnnRecipe, LogisticRecipe
    from tasks.classification.recipe import ClassificationRecipe

    if isinstance(recipe, KnnRecipe | LogisticRecipe):
        from tasks.classification.probe import Probe

        return Probe(recipe, backbone, Path(data_root), seed, limit)
    from tasks.classification.task import Classification

    assert isinstance(recipe, ClassificationRecipe)
    return Classification(recipe, backbone, Path(data_root), seed, limit)


def check_known(kind: str, name: str, known: list[str]) -> None:
    """Raise `TaskError` with near matches and everything there is unless `name` is known."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise TaskError(f"unknown {kind} {name!r}; {hint}there are {', '.join(known)}")
