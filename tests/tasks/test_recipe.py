"""What every recipe has: rows that are its fields, and numbers within bounds."""

import dataclasses
import math
from typing import Any, get_type_hints

import pytest

import tasks
from mae_bench.errors import RunError
from mae_bench.pretraining.methods import METHODS
from mae_bench.recipes import PRETRAIN, override, recipe
from tasks.recipe import Recipe, Within, bounds_of, complete, made, said_by

RECIPES = [
    recipe(PRETRAIN, "vit_b", "mae"),
    recipe("imagenet1k", "vit_b", "finetune"),
    recipe("imagenet1k", "vit_b", "partial:2"),
    recipe("imagenet1k", "vit_b", "knn"),
    recipe("imagenet1k", "vit_b", "logistic"),
    recipe("coco", "vit_b", "mask_rcnn-vitdet"),
    recipe("ade20k", "vit_b", "upernet-512-160k"),
]
WRONG = (math.nan, math.inf, -math.inf, 1e31, 10**400, -8, "3", True)
NUMBERS = [(each, name) for each in RECIPES for name in bounds_of(type(each))]


def named(case: Any) -> str:
    return case.protocol if isinstance(case, Recipe) else str(case)


def numeric(hint: Any) -> bool:
    """Whether a field's type has numbers in it."""
    parts = getattr(hint, "__args__", ()) or (hint,)
    return any(part in (int, float) for part in parts)


@pytest.mark.parametrize("whole", RECIPES, ids=named)
def test_every_number_has_bounds(whole):
    hints = get_type_hints(type(whole))
    assert {name for name, hint in hints.items() if numeric(hint)} == set(bounds_of(type(whole)))


@pytest.mark.parametrize(("whole", "name"), NUMBERS, ids=named)
def test_a_number_out_of_bounds_is_named(whole, name):
    value = getattr(whole, name)
    for wrong in WRONG:
        several = [wrong]
        if isinstance(value, tuple):  # any of several
            length = len(value) or 1
            several = [(*value[:at], wrong, *value[at + 1 :]) for at in range(length)]
        for each in several:
            with pytest.raises(ValueError, match=f"recipe field {name} is .*; expected"):
                dataclasses.replace(whole, **{name: each})
            if "3" in (each, wrong):  # as text it is the number
                continue
            with pytest.raises(RunError, match=f"recipe field {name} is ") as refused:
                override(whole, {name: each})
            assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "text"),
    [
        (Within(1, 5), (1, 5), (0, 6), "at least 1 and at most 5"),
        (Within(0, 1, open_low=True), (0.5, 1), (0, 1.1), "above 0 and at most 1"),
        (Within(0, 1, open_high=True), (0, 0.9), (-0.1, 1), "at least 0 and below 1"),
        (Within(0, 1, open_low=True, open_high=True), (0.5,), (0, 1), "between 0 and 1"),
    ],
)
def test_bounds(bounds, inside, outside, text):
    assert all(map(bounds.hold, inside))
    assert not any(map(bounds.hold, outside))
    assert bounds.hold(None)
    assert bounds.hold(inside)
    assert not bounds.hold((*inside, *outside))
    assert str(bounds) == text


def test_rows_and_fields_are_the_same():
    """A misspelt row is a fault of the program, in every recipe."""
    for whole in RECIPES:
        rows = said_by("here", **whole.to_dict())
        shuffled = dict(reversed(rows.items()))
        assert list(complete(type(whole), shuffled)) == list(rows)
        assert made(type(whole), shuffled) == whole
        misspelt = rows | said_by("here", warmup_epoch=99)
        with pytest.raises(TypeError, match=r"differ: warmup_epoch$"):
            complete(type(whole), misspelt)
        del misspelt["warmup_epoch"], misspelt["backbone"]
        with pytest.raises(TypeError, match=r"differ: backbone$"):
            complete(type(whole), misspelt)


@pytest.mark.parametrize("backbone", ["vit_mini", "vit_s", "vit_h"])
@pytest.mark.parametrize("task", [PRETRAIN, "imagenet1k", "inat2018", "coco", "ade20k"])
def test_a_misspelt_row_of_any_table_is_refused(task, backbone, monkeypatch):
    """Whichever function makes a recipe completes its rows."""
    import mae_bench.pretraining.method as pretraining
    from tasks.ade20k import recipes as ade20k
    from tasks.classification import probe_recipes
    from tasks.classification import recipes as classification
    from tasks.coco import recipes as coco

    def misspelt(kind: type, rows: dict) -> dict:
        return complete(kind, rows | said_by("here", warmup_epoch=99))

    for module in (pretraining, ade20k, classification, probe_recipes, coco):
        monkeypatch.setattr(module, "complete", misspelt)
    for protocol in METHODS if task == PRETRAIN else tasks.protocols(task):
        with pytest.raises(TypeError, match=r"differ: warmup_epoch$"):
            recipe(task, backbone, protocol.replace("K", "2"))
