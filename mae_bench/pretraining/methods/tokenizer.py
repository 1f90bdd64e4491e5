"""A tokenizer of one's own: the recipe, every number with its source. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from mae_bench.pretraining.method import Method
from mae_bench.pretraining.recipes import (
    CODE_PIXELS,
    DALLE_CODES,
    MINIATURE_CODES,
    Codes,
    PretrainRecipe,
)
from tasks.recipe import MOST, Sourced, Within, require, said_by

if TYPE_CHECKING:
    from mae_bench.pretraining.tokenizer_task import TokenizerPretraining


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe(PretrainRecipe):
    """Every number that can change a tokenizer; its backbone is the one it is to serve."""

    codebook: Codes
    """codes of the codebook"""
    width: Annotated[int, Within(4, 4096)]
    """channels of the first blocks; those of the last ones are eight times as many"""
    depth: Annotated[int, Within(1, 64)]
    """blocks of each of the four groups"""
    narrow: Annotated[int, Within(1, 65_536)]
    """channels that the decoder makes of the codes at first"""
    temperature: Annotated[float, Within(0, 1000, open_low=True)]
    """of the relaxed codes at the start"""
    last_temperature: Annotated[float, Within(0, 1000, open_low=True)]
    """of the relaxed codes once it has come down, along a half-cosine"""
    temperature_epochs: Annotated[float, Within(0, MOST)]
    """epochs that it takes to come down"""
    kl_weight: Annotated[float, Within(0, MOST)]
    """weight of the codes' divergence from a uniform prior"""
    kl_epochs: Annotated[float, Within(0, MOST)]
    """epochs that the weight takes to rise from 0, along a half-cosine"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "width", self.width % 4 == 0, "a multiple of 4")
        whole = self.image_size % CODE_PIXELS == 0
        require(self, "image_size", whole, f"a multiple of {CODE_PIXELS}, the pixels of a code")


PUBLISHED = (
    said_by("DALL-E paper (2102.12092), A.2: 3,000,000 steps of 512, on ImageNet-1k", epochs=1200)
    | said_by("DALL-E paper, A.2", optimizer="adamw", betas=(0.9, 0.999), weight_decay=1e-4)
    | said_by("DALL-E paper, A.2 (1e-4 for 512 images)", base_lr=5e-5, batch_size=512)
    | said_by("DALL-E paper, A.2", device_batch=8, min_lr=1.25e-6, ema_decay=0.999)
    | said_by("DALL-E paper, A.2", temperature=1.0, last_temperature=1 / 16, kl_weight=6.6)
    | said_by("DALL-E paper, A.2 (150,000 steps)", temperature_epochs=60.0)
    | said_by("DALL-E paper, A.2 (5,000 steps)", kl_epochs=2.0)
    | said_by("DALL-E paper, section 2", image_size=256)
    | said_by("DALL-E dall_e/encoder.py", codebook=DALLE_CODES, width=256, depth=2)
    | said_by("DALL-E dall_e/decoder.py", narrow=128)
    | said_by("DALL-E paper, A.2, names none", clip_grad=None, layer_decay=1.0, warmup_epochs=0.0)
    | said_by("ours: the cosine takes all epochs", schedule="cosine", milestones=())
    | said_by("ours: no warmup", warmup_start=0.0)
    | said_by("ours: crops as beit cuts them for its tokenizer", min_crop_area=0.08)
    | said_by("ours: DALL-E's was trained in float16", precision="fp32")
)

MINIATURE = said_by(
    "ours: for the miniature world, a minute; little tuned (a kl_weight of 1 uses fewer codes)",
    image_size=32,
    epochs=1,
    batch_size=64,
    device_batch=64,
    base_lr=8e-3,
    warmup_epochs=0.1,
    min_crop_area=0.5,
    ema_decay=None,
    codebook=MINIATURE_CODES,
    width=12,
    depth=1,
    narrow=32,
    temperature_epochs=0.8,
    kl_epochs=0.2,
)


class Tokenizer(Method):
    """The discrete VAE of DALL-E (arXiv 2102.12092), for `--tokenizer` of other methods."""

    name: ClassVar = "tokenizer"
    title: ClassVar = "discrete VAE (tokenizer) training"
    recipe_type: ClassVar = TokenizerRecipe
    makes_encoder: ClassVar = False
    continues: ClassVar = False

    def rows(self, backbone: str) -> Sourced:
        return PUBLISHED | (MINIATURE if backbone == "vit_mini" else {})

    def build(self, recipe: TokenizerRecipe, data: list[Path], seed: int) -> TokenizerPretraining:
        from mae_bench.pretraining.tokenizer_task import TokenizerPretraining

        return TokenizerPretraining(recipe, data, seed)


TOKENIZER = Tokenizer()
