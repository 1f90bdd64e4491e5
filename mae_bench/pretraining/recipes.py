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

    def idle(self) -> dict[str, str]:
        # Its methods have one layer: layer decay is a fine-tuning device.
        return super().idle() | {"layer_decay": "a pre-training without labels"}


CODE_PIXELS = 8
"""side of what a code of a tokenizer stands for: three poolings by two (openai/DALL-E)"""
DALLE_CODES = 8192
"""openai/DALL-E, dall_e/encoder.py"""
MINIATURE_CODES = 128
"""codebook of the miniature world's tokenizer, and so of all that predicts its tokens"""
MOST_CODES = 2**20
Codes = Annotated[int, Within(2, MOST_CODES)]
