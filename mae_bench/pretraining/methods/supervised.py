"""Supervised pre-training: the recipe is that of training from scratch. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import tasks
from mae_bench.pretraining.method import Method
from tasks.check import MAX_BAD_IMAGES, Check
from tasks.classification.recipe import ClassificationRecipe
from tasks.recipe import Sourced

if TYPE_CHECKING:
    from mae_bench.pretraining.supervised import SupervisedPretraining

LABELLED, OWN = "imagenet1k", "folder"
PROTOCOL = "scratch"
ASKED = ("protocol", "backbone")


class Labelled(NamedTuple):
    """Images with labels, as they were read."""

    root: Path
    check: Check


class Supervised(Method):
    """A classifier from random weights, whose backbone is kept: the paper's supervised baseline.

    All numbers are those of imagenet1k/scratch (MAE Table 11), and so is the training, to the bit.
    """

    name: ClassVar = "supervised"
    title: ClassVar = "supervised pre-training"
    recipe_type: ClassVar = ClassificationRecipe
    continues: ClassVar = False

    def rows(self, backbone: str) -> Sourced:
        rows = tasks.sourced(LABELLED, backbone, PROTOCOL)
        return {name: row for name, row in rows.items() if name not in ASKED}

    def find(self, source: str | Path) -> list[Path]:
        from mae_bench.data import task_root

        return [task_root(LABELLED, source)]

    def read(self, source: str | Path, max_bad_images: int = MAX_BAD_IMAGES) -> Labelled:
        """ImageNet, also the miniature world's, or one's own images in class folders."""
        from mae_bench.data import usable
        from tasks.classification.class_folders import named_by_wnids
        from tasks.classification.datasets import KAGGLE

        (root,) = self.find(source)
        trains = (root / "train", root / KAGGLE / "train")
        kind = LABELLED if any(map(named_by_wnids, trains)) else OWN
        return Labelled(root, usable(kind, root, max_bad_images))

    def build(
        self, recipe: ClassificationRecipe, data: Labelled, seed: int
    ) -> SupervisedPretraining:
        from mae_bench.pretraining.supervised import SupervisedPretraining

        return SupervisedPretraining(recipe, data, seed)


SUPERVISED = Supervised()
