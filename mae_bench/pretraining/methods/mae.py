"""Masked autoencoders: the recipe, every number with its source. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from backbones.sizes import size_of
from mae_bench.pretraining.method import Method
from mae_bench.pretraining.recipes import DALLE_CODES, MINIATURE_CODES, MOST_CODES, PretrainRecipe
from tasks.recipe import Sourced, Width, Within, require, said_by

if TYPE_CHECKING:
    from mae_bench.pretraining.masked import MaskedPretraining


@dataclass(frozen=True, kw_only=True)
class MaeRecipe(PretrainRecipe):
    """Every number that can change a pre-trained masked autoencoder."""

    mask_ratio: Annotated[float, Within(0, 1, open_low=True, open_high=True)]
    """share of the patches that is removed"""
    norm_pix: bool
    """predict pixels normalised per patch"""
    decoder_dim: Width
    """width of the decoder"""
    decoder_depth: Annotated[int, Within(1, 100)]
    """blocks of the decoder"""
    decoder_heads: Width
    """attention heads of the decoder"""
    mask: Literal["random", "block", "grid"] = "random"
    """how patches are chosen for removal: one by one, by BEiT's blocks, or three of every four in a
    fixed pattern (mask_ratio 0.75 alone)"""
    target: Literal["pixels", "pca", "tokens"] = "pixels"
    """what is predicted of a patch: its pixels (normalised with norm_pix), or its 96 largest
    principal coefficients, of components fitted to a seeded sample, or its token by --tokenizer
    (norm_pix has no use for the last two and is switched off)"""
    encoder_mask_tokens: bool = False
    """whether the encoder sees mask tokens in place of the removed patches"""

    augmentation: Literal["none", "crop_fixed", "crop_random", "crop_random_jitter"] = "crop_random"
    """the middle of the image, a crop of fixed size, of random size, or that with colour jitter;
    all but the first are mirrored half of the time"""
    fixed_crop: Annotated[float, Within(0, 1, open_low=True)] = 0.875
    """side of the square that augmentation none and crop_fixed cut, by the image's shorter side"""
    colour_jitter: Annotated[float, Within(0, 1)] = 0.4
    """how much augmentation crop_random_jitter changes brightness, contrast and saturation"""
    codebook: Annotated[int | None, Within(2, MOST_CODES)] = None
    """codes of the tokenizer, with target tokens alone: 8,192 as DALL-E's, and those of the
    miniature world's tokenizer there"""

    def __post_init__(self) -> None:
        super().__post_init__()
        heads = self.decoder_heads
        whole = self.decoder_dim % heads == 0 and self.decoder_dim % 4 == 0
        require(self, "decoder_dim", whole, f"a multiple of 4 and of decoder_heads {heads}")
        grid = self.mask == "grid"
        require(self, "mask_ratio", not grid or self.mask_ratio == 0.75, "0.75 with mask grid")
        side = self.image_size // size_of(self.backbone).patch_size
        patches = f"of {side} x {side} patches"
        require(self, "image_size", not grid or side % 2 == 0, f"{EVEN} with mask grid ({patches})")
        some = 0 < int(side**2 * (1 - self.mask_ratio)) < side**2
        require(self, "mask_ratio", some, f"one that leaves and removes some {patches}")
        pixels = self.target == "pixels"
        tokens = self.target == "tokens"
        expected = "a number with target tokens" if tokens else "none without target tokens"
        require(self, "codebook", tokens == (self.codebook is not None), expected)
        require(self, "norm_pix", pixels or not self.norm_pix, f"False with target {self.target}")

    def idle(self) -> dict[str, str]:
        kind, why = self.augmentation, f"augmentation {self.augmentation}"
        used = {"fixed_crop"} if kind in ("none", "crop_fixed") else {"min_crop_area"}
        used |= {"colour_jitter"} if kind == "crop_random_jitter" else set()
        return super().idle() | {name: why for name in CUTTING if name not in used}

    def implied(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """What follows from changes of fields for fields that they do not name."""
        other = changes.get("target", self.target) != "pixels"
        implied = super().implied(changes)
        implied |= {"norm_pix": False} if other and "norm_pix" not in changes else {}
        if changes.get("target", self.target) == "tokens" and "codebook" not in changes:
            mini = self.backbone == "vit_mini"
            implied["codebook"] = MINIATURE_CODES if mini else DALLE_CODES
        return implied


EVEN = "an even number of patches each way"
CUTTING = ("min_crop_area", "fixed_crop", "colour_jitter")
"""numbers of `augmentation`, of which each kind uses some"""

PUBLISHED = (
    said_by("mae PRETRAIN.md (the released checkpoints: 1600, FINETUNE.md)", epochs=800)
    | said_by("mae PRETRAIN.md", norm_pix=True, device_batch=64)
    | said_by("MAE Table 8", optimizer="adamw", base_lr=1.5e-4, weight_decay=0.05)
    | said_by("MAE Table 8", betas=(0.9, 0.95), batch_size=4096, warmup_epochs=40.0)
    | said_by("mae main_pretrain.py", image_size=224, min_lr=0.0, clip_grad=None, layer_decay=1.0)
    | said_by("mae main_pretrain.py", ema_decay=None, min_crop_area=0.2)
    | said_by("mae util/lr_sched.py", schedule="cosine", milestones=(), warmup_start=0.0)
    | said_by("MAE Table 1", mask_ratio=0.75, decoder_dim=512, decoder_depth=8)
    | said_by("MAE Table 1", mask="random", target="pixels", encoder_mask_tokens=False)
    | said_by("MAE Table 1", augmentation="crop_random")
    | said_by("ours: what 224 of 256 pixels are, as in evaluation", fixed_crop=0.875)
    | said_by("ours: as strong as BEiT's; the paper does not say", colour_jitter=0.4)
    | said_by("mae models_mae.py", decoder_heads=16)
    | said_by("none: pixels need no tokenizer", codebook=None)
    | said_by("ours: bf16 needs no loss scaling; mae uses fp16 with it", precision="bf16")
)

MINIATURE = said_by(
    "ours: tuned on the miniature world",
    image_size=32,
    epochs=10,
    warmup_epochs=2.0,
    batch_size=128,
    device_batch=128,
    base_lr=3e-3,
    min_crop_area=0.5,
    decoder_dim=64,
    decoder_depth=2,
    decoder_heads=4,
    norm_pix=False,
    precision="fp32",
)


class Mae(Method):
    """Masked autoencoders (arXiv 2111.06377)."""

    name: ClassVar = "mae"
    title: ClassVar = "masked autoencoder pre-training"
    recipe_type: ClassVar = MaeRecipe

    def rows(self, backbone: str) -> Sourced:
        return PUBLISHED | (MINIATURE if backbone == "vit_mini" else {})

    def codebook(self, recipe: MaeRecipe) -> int | None:
        return recipe.codebook

    def build(self, recipe: MaeRecipe, data: list[Path], seed: int) -> MaskedPretraining:
        from mae_bench.pretraining.masked import MaskedPretraining

        return MaskedPretraining(recipe, data, seed)


MAE = Mae()
