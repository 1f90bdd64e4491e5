"""MoCo v3: the recipe, every number with its source. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import backbones
from mae_bench.pretraining.method import Method
from mae_bench.pretraining.recipes import PretrainRecipe
from tasks.recipe import Share, Sourced, Width, Within, require, said_by

if TYPE_CHECKING:
    from mae_bench.pretraining.momentum_contrast import MocoPretraining


@dataclass(frozen=True, kw_only=True)
class MocoRecipe(PretrainRecipe):
    """Every number that can change weights pre-trained by MoCo v3."""

    momentum: Share
    """of the momentum encoder at the first step; it rises to 1 by a half-cosine"""
    temperature: Annotated[float, Within(0, 1000, open_low=True)]
    """of the softmax over similarities"""
    feature_dim: Width
    """width of the compared features"""
    mlp_dim: Width
    """width of the hidden layers of projector and predictor"""
    jitter_prob: Share
    """how often the colours of a view are jittered"""
    jitter: Annotated[float, Within(0, 1)]
    """how much brightness and contrast change"""
    saturation_jitter: Annotated[float, Within(0, 1)]
    """how much saturation changes"""
    hue_jitter: Annotated[float, Within(0, 0.5)]
    """how much hue changes, in turns"""
    grey_prob: Share
    """how often a view is grey"""
    blur_probs: Annotated[tuple[float, float], Within(0, 1)]
    """how often the first and the second view are blurred"""
    blur_sigma: Annotated[tuple[float, float], Within(0, 100, open_low=True)]
    """smallest and largest standard deviation of the blur, pixels"""
    solarise_prob: Share
    """how often the second view is solarised, from 128 on"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "device_batch", self.device_batch > 1, "2 or more: others are negatives")
        low, high = self.blur_sigma
        require(self, "blur_sigma", low <= high, "the smaller one first")

    def idle(self) -> dict[str, str]:
        idle = super().idle()
        if not self.jitter_prob:
            jitters = ("jitter", "saturation_jitter", "hue_jitter")
            idle |= dict.fromkeys(jitters, "jitter_prob 0")
        return idle | ({} if any(self.blur_probs) else {"blur_sigma": "blur_probs 0 0"})


PUBLISHED = (
    said_by(
        "moco-v3 CONFIG.md (ViT)", epochs=300, warmup_epochs=40.0, base_lr=1.5e-4, weight_decay=0.1
    )
    | said_by("moco-v3 CONFIG.md (ViT)", optimizer="adamw", temperature=0.2)
    | said_by("moco-v3 CONFIG.md: 64 GPUs for ViT-B", batch_size=4096, device_batch=64)
    | said_by("moco-v3 main_moco.py: torch's defaults", betas=(0.9, 0.999))
    | said_by("moco-v3 main_moco.py", image_size=224, min_lr=0.0, clip_grad=None, layer_decay=1.0)
    | said_by("moco-v3 main_moco.py", schedule="cosine", milestones=(), warmup_start=0.0)
    | said_by("moco-v3 main_moco.py", ema_decay=None, min_crop_area=0.08)
    | said_by("moco-v3 main_moco.py", momentum=0.99, feature_dim=256, mlp_dim=4096)
    | said_by("moco-v3 main_moco.py", jitter_prob=0.8, jitter=0.4, saturation_jitter=0.2)
    | said_by("moco-v3 main_moco.py", hue_jitter=0.1, grey_prob=0.2, blur_probs=(1.0, 0.1))
    | said_by("moco-v3 main_moco.py", blur_sigma=(0.1, 2.0), solarise_prob=0.2)
    | said_by("ours: bf16 needs no loss scaling; moco-v3 uses fp16 with it", precision="bf16")
)

ASSUMED = said_by(
    "assumed: moco-v3 CONFIG.md's of ViT-S and ViT-B; none is there for this size",
    epochs=300,
    warmup_epochs=40.0,
    base_lr=1.5e-4,
    weight_decay=0.1,
    batch_size=4096,
    device_batch=64,
)

MINIATURE = said_by(
    "ours: the best of three on another miniature world (5e-4, 1e-3, 3e-3)", base_lr=3e-3
) | said_by(
    "ours: assumed for the miniature world, in proportion to its size; as long as MAE's in seconds",
    image_size=32,
    epochs=3,
    warmup_epochs=0.6,
    batch_size=128,
    device_batch=128,
    min_crop_area=0.3,
    feature_dim=64,
    mlp_dim=256,
    blur_sigma=(0.1, 0.5),
    precision="fp32",
)


class MocoV3(Method):
    """Momentum contrast for ViTs (arXiv 2104.02057)."""

    name: ClassVar = "moco_v3"
    title: ClassVar = "MoCo v3 pre-training"
    recipe_type: ClassVar = MocoRecipe

    def rows(self, backbone: str) -> Sourced:
        if backbone == "vit_mini":
            return PUBLISHED | MINIATURE
        size = backbones.size_of(backbone)
        released = (size.embed_dim, size.depth) in ((384, 12), (768, 12))
        return PUBLISHED if released else PUBLISHED | ASSUMED

    def build(self, recipe: MocoRecipe, data: list[Path], seed: int) -> MocoPretraining:
        from mae_bench.pretraining.momentum_contrast import MocoPretraining

        return MocoPretraining(recipe, data, seed)


MOCO_V3 = MocoV3()
