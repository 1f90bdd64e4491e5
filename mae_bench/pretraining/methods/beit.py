"""BEiT: the recipe, every number with its source. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import backbones
from mae_bench.pretraining.method import Method
from mae_bench.pretraining.recipes import (
    CODE_PIXELS,
    DALLE_CODES,
    MINIATURE_CODES,
    Codes,
    PretrainRecipe,
)
from tasks.recipe import (
    Pixels,
    Share,
    Sourced,
    Within,
    for_backbone,
    require,
    row_of,
    said_by,
)

if TYPE_CHECKING:
    from mae_bench.pretraining.beit_task import BeitPretraining


@dataclass(frozen=True, kw_only=True)
class BeitRecipe(PretrainRecipe):
    """Every number that can change a pre-trained BEiT."""

    drop_path: Annotated[float, Within(0, 1, open_high=True)]
    """stochastic depth of the last block; rises linearly from 0 at the first"""
    layer_scale: Annotated[float, Within(0, 1, open_low=True)]
    """where the learned factors of both branches of a block start"""
    num_masked: Annotated[int, Within(1, 1_000_000)]
    """patches that are masked, at most: blocks are drawn until no more fit"""
    min_block: Annotated[int, Within(1, 1_000_000)]
    """patches of a block at the least"""
    max_block: Annotated[int | None, Within(1, 1_000_000)]
    """patches of a block at the most; None: as many as are still to be masked"""
    codebook: Codes
    """codes of the tokenizer, which the head tells apart"""
    token_size: Pixels
    """side in pixels of the view that the tokenizer sees: 8 for each patch"""
    colour_jitter: Share
    """how far brightness, contrast and saturation are changed, both ways"""

    def __post_init__(self) -> None:
        super().__post_init__()
        side = self.image_size // backbones.size_of(self.backbone).patch_size
        wanted = CODE_PIXELS * side
        told = f"{wanted}: a code stands for {CODE_PIXELS} x {CODE_PIXELS} pixels, and there are "
        require(self, "token_size", self.token_size == wanted, f"{told}{side} x {side} patches")
        fits = self.num_masked <= side**2
        require(self, "num_masked", fits, f"at most the {side**2} patches of an image")
        fits = self.min_block <= self.num_masked
        require(self, "min_block", fits, f"at most num_masked {self.num_masked}")
        fits = self.min_block <= (side - 1) ** 2
        most = (
            f"at most {(side - 1) ** 2}: a block leaves a row and a column of {side} x {side} free"
        )
        require(self, "min_block", fits, most)
        fits = self.max_block is None or self.max_block >= self.min_block
        require(self, "max_block", fits, f"at least min_block {self.min_block}")

    def implied(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The tokenizer's view of images of another size."""
        implied, size = super().implied(changes), changes.get("image_size")
        if "token_size" in changes or isinstance(size, bool) or not isinstance(size, int):
            return implied
        side = size // backbones.size_of(self.backbone).patch_size
        return implied | {"token_size": CODE_PIXELS * side}


PUBLISHED = (
    said_by("beit README.md, pre-training on ImageNet-1k", epochs=800, warmup_epochs=10.0)
    | said_by("beit README.md (2048 = 16 devices x 128)", batch_size=2048, device_batch=128)
    | said_by("beit README.md (1.5e-3 for 2048 images)", base_lr=1.875e-4)
    | said_by("beit README.md, pre-training on ImageNet-1k", clip_grad=3.0, drop_path=0.1)
    | said_by("beit run_beit_pretraining.py", optimizer="adamw", betas=(0.9, 0.999))
    | said_by("beit run_beit_pretraining.py", weight_decay=0.05, min_lr=1e-5, image_size=224)
    | said_by("beit run_beit_pretraining.py", num_masked=75, min_block=16, max_block=None)
    | said_by("beit run_beit_pretraining.py (--second_input_size)", token_size=112)
    | said_by("beit utils.py", schedule="cosine", milestones=(), warmup_start=0.0)
    | said_by("beit run_beit_pretraining.py", layer_decay=1.0, ema_decay=None)
    | said_by("beit datasets.py", colour_jitter=0.4)
    | said_by("beit transforms.py", min_crop_area=0.08)
    | said_by("beit modeling_pretrain.py (DALL-E's codebook)", codebook=DALLE_CODES)
    | said_by("ours: bf16 needs no loss scaling; beit uses fp16 with it", precision="bf16")
)

LAYER_SCALES = {
    "vit_b": said_by("beit README.md (0.1 for base)", layer_scale=0.1),
    "vit_l": said_by("beit README.md (1e-5 for large)", layer_scale=1e-5),
}

MINIATURE = (
    said_by("ours: the best of three on another miniature world (1.5e-3, 3e-3, 6e-3)", base_lr=3e-3)
    | said_by(
        "ours: what the masked autoencoder has on the miniature world; as long in seconds",
        image_size=32,
        epochs=4,
        warmup_epochs=0.8,
        batch_size=128,
        device_batch=128,
        min_crop_area=0.5,
        drop_path=0.0,
        precision="fp32",
    )
    | said_by(
        "ours: beit's share of 16 patches, and its tokenizer's 8 pixels a patch",
        num_masked=6,
        min_block=1,
        token_size=32,
        codebook=MINIATURE_CODES,
    )
)


def refuse_foreign(backbone: str) -> None:
    """Raise `BackboneError` for a backbone whose anatomy is not ours to choose."""
    if backbone not in backbones.SIZES:
        raise backbones.BackboneError(
            f"backbone {backbone!r} cannot be pre-trained as BEiT, which has an anatomy of its "
            f"own; expected one of {', '.join(backbones.SIZES)}"
        )


class Beit(Method):
    """BEiT (arXiv 2106.08254)."""

    name: ClassVar = "beit"
    title: ClassVar = "BEiT pre-training"
    recipe_type: ClassVar = BeitRecipe
    continues: ClassVar = False

    def rows(self, backbone: str) -> Sourced:
        refuse_foreign(backbone)
        row = row_of(backbone, LAYER_SCALES)
        rows = PUBLISHED | for_backbone(LAYER_SCALES[row], backbone, row)
        if backbone == "vit_mini":
            return rows | MINIATURE
        size = backbones.size_of(backbone)
        side = size.pretrain_image // size.patch_size
        if CODE_PIXELS * side == PUBLISHED["token_size"][0]:
            return rows
        source = f"ours: {CODE_PIXELS} pixels for each of {side} patches"
        return rows | said_by(source, token_size=CODE_PIXELS * side)

    def codebook(self, recipe: BeitRecipe) -> int:
        return recipe.codebook

    def build(self, recipe: BeitRecipe, data: list[Path], seed: int) -> BeitPretraining:
        from mae_bench.pretraining.beit_task import BeitPretraining

        return BeitPretraining(recipe, data, seed)


BEIT = Beit()
