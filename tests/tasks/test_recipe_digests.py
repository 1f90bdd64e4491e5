"""No number of a recipe changes unseen: the digests of all recipes, kept as they were.

A number that changes on purpose raises the version in its protocol's id; then its line here changes
with it. Lines of versions that are no more are deleted. Only the miniature world's own numbers, the
first digest of each line, change without: they stand for no published ones.
"""

from pathlib import Path

import tasks
from mae_bench.pretraining.methods import METHODS
from mae_bench.recipes import PRETRAIN, recipe

BACKBONES = ("vit_mini", "vit_t", "vit_s", "vit_b", "vit_l", "vit_h")
KEPT = Path(__file__).with_name("recipe_digests.txt")
POINTS = ("partial:0", "partial:0.5", "partial:2")


def kept() -> dict[str, list[str]]:
    """Protocol -> digests, in the order of `BACKBONES`."""
    lines = [line.split() for line in KEPT.read_text().splitlines() if not line.startswith("#")]
    return {protocol: digests for protocol, *digests in lines}


def made() -> dict[str, list[str]]:
    """The same as the recipes are now."""
    named = [(PRETRAIN, method) for method in METHODS]
    for task in tasks.known():
        for protocol in tasks.protocols(task):
            named += [(task, each) for each in (POINTS if "K" in protocol else (protocol,))]
    found = {}
    for task, protocol in named:
        whole = [recipe(task, backbone, protocol) for backbone in BACKBONES]
        found[whole[0].protocol] = [each.digest() for each in whole]
    return found


def test_no_number_changes_unseen():
    assert made() == kept()


def test_a_changed_number_would_be_seen(monkeypatch):
    """Of one backbone in one protocol."""
    from tasks.ade20k import recipes
    from tasks.recipe import said_by

    monkeypatch.setitem(recipes.BY_SIZE, "vit_l", recipes.LARGE | said_by("a slip", drop_path=0.21))
    differ = {name for name, digests in made().items() if digests != kept()[name]}
    assert differ == {"ade20k/upernet-512-160k@1", "ade20k/upernet-512-100ep@1"}
