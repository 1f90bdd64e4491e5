"""The probes' recipes: DINO's numbers, and what a recipe refuses."""

import dataclasses
import subprocess
import sys

import pytest

from tasks.classification.probe_recipes import (
    PROTOCOLS,
    KnnRecipe,
    LogisticRecipe,
    ProbeRecipe,
    recipe_type,
    sourced,
)
from tasks.recipe import made


def recipe_of(backbone: str, protocol: str) -> ProbeRecipe:
    return made(recipe_type(protocol), sourced("imagenet1k", backbone, protocol))


def test_knn_is_dinos() -> None:
    """Typed from facebookresearch/dino, eval_knn.py."""
    recipe = recipe_of("vit_b", "knn")
    assert isinstance(recipe, KnnRecipe)
    assert recipe.protocol == "imagenet1k/knn@1"
    assert recipe.neighbours == (10, 20, 100, 200)
    assert (recipe.headline_neighbours, recipe.temperature) == (20, 0.07)
    assert (recipe.image_size, int(recipe.image_size / recipe.crop_ratio)) == (224, 256)
    assert (recipe.pooling, recipe.precision) == ("cls", "fp32")


def test_logistic_regression_searches_six_decades() -> None:
    recipe = recipe_of("vit_l", "logistic")
    assert isinstance(recipe, LogisticRecipe)
    assert (recipe.l2[0], recipe.l2[-1], len(recipe.l2)) == (1.0, 1e-6, 13)
    steps = [a / b for a, b in zip(recipe.l2, recipe.l2[1:], strict=False)]
    assert all(2.9 < step < 3.4 for step in steps)
    assert recipe.max_iter == 1000


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("backbone", ["vit_mini", "vit_s", "vit_h"])
def test_every_field_has_a_source(backbone: str, protocol: str) -> None:
    told = sourced("places205", backbone, protocol)
    assert told["protocol"][0] == f"places205/{protocol}@1"
    assert told["image_size"][0] == (32 if backbone == "vit_mini" else 224)
    for _, source in told.values():
        assert source.split(":")[0].split()[0] in ("DINO", "dino", "CLIP", "mae", "ours")


@pytest.mark.parametrize(
    ("protocol", "changes", "told"),
    [
        ("knn", {"pooling": "mean"}, "pooling is 'mean'; expected cls or patches"),
        ("knn", {"crop_ratio": 1.1}, "crop_ratio is 1.1; expected above 0 and at most 1"),
        ("knn", {"neighbours": ()}, r"neighbours is \(\); expected rising numbers"),
        ("knn", {"neighbours": (20, 10)}, r"neighbours is \(20, 10\); expected rising numbers"),
        ("knn", {"neighbours": (0, 20)}, r"neighbours is \(0, 20\); expected at least 1"),
        ("knn", {"neighbours": (5,)}, r"headline_neighbours is 20; expected one of .*\(5,\)"),
        ("knn", {"temperature": 0.0}, "temperature is 0.0; expected at least 0.001"),
        ("logistic", {"l2": ()}, r"l2 is \(\); expected falling numbers"),
        ("logistic", {"l2": (0.1, 1.0)}, r"l2 is \(0.1, 1.0\); expected falling numbers"),
        (
            "logistic",
            {"l2": (0.1, -1.0)},
            r"l2 is \(0.1, -1.0\); expected at least 0 and at most",
        ),
        ("logistic", {"holdout": 1.0}, "holdout is 1.0; expected between 0 and 1"),
        ("logistic", {"max_iter": 0}, "max_iter is 0; expected at least 1"),
        ("logistic", {"tolerance": 0.0}, "tolerance is 0.0; expected above 0"),
    ],
)
def test_bad_fields_are_named(protocol: str, changes: dict, told: str) -> None:
    with pytest.raises(ValueError, match=f"recipe field {told}"):
        dataclasses.replace(recipe_of("vit_b", protocol), **changes)


def test_recipes_do_not_import_torch() -> None:
    code = "import tasks.classification.probe_recipes, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
