"""What the recipes of all methods of pre-training have. Imports no torch."""

from dataclasses import dataclass
from typing import Annotated

from tasks.recipe import TrainingRecipe, Within

PRETRAIN = "pretrain"
"""the task of a pre-training's record, and the first part of its protocol's id"""


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(TrainingRecipe):
    """Every number that can change pre-trained weights; each method adds its own."""

    min_crop_area: Annotated[float, Within(0, 1, open_low=True)]
    """smallest share of the image that a random resized crop takes"""
