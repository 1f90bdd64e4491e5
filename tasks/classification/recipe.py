"""What a classification recipe says. Imports no torch."""

import re
from dataclasses import dataclass
from typing import Literal

from tasks.recipe import TransferRecipe, require

RAND_AUGMENT = re.compile(r"rand(-(m|n|p|mstd|mmax|inc)\d+(\.\d+)?)*")


@dataclass(frozen=True, kw_only=True)
class ClassificationRecipe(TransferRecipe):
    """Every number that can change a classification score."""

    trained_blocks: float | None
    """last blocks that train, 0.5 being the MLP half of the last one; None: the whole backbone"""
    pooling: Literal["patches", "cls"]
    """patches: mean of the patch tokens, a new layer norm; cls: class token, the backbone's norm"""
    head_batch_norm: bool
    """batch norm without weights (eps 1e-6, statistics per device) before the classifier"""
    head_init_std: float
    """standard deviation of the classifier's initial weights (truncated normal)"""
    min_crop_area: float
    """smallest share of an image's area that a training crop takes; the largest is 1"""
    oversize_crop: Literal["redraw", "clip"]
    """where a drawn crop exceeds the image: redraw up to ten times, or clip it to the image"""
    flip_prob: float
    """probability of a horizontal flip"""
    rand_augment: str | None
    """RandAugment in timm's notation, for example rand-m9-mstd0.5-inc1; None: off"""
    erase_prob: float
    """probability that a rectangle of an image is erased"""
    mixup: float
    """alpha of mixup's beta distribution; 0 switches it off"""
    cutmix: float
    """alpha of cutmix's beta distribution; 0 switches it off"""
    mix_switch_prob: float
    """probability of cutmix rather than mixup where both are on"""
    label_smoothing: float
    """share of the target spread evenly over all classes"""
    test_crop_ratio: float | None
    """side of the test crop / side of the resized image; None: 0.875 up to 224 pixels, 1 above"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("flip_prob", "erase_prob", "mix_switch_prob"):
            require(self, name, 0 <= getattr(self, name) <= 1, "0 to 1")
        smoothing = self.label_smoothing
        require(self, "label_smoothing", 0 <= smoothing < 1, "0 or more and below 1")
        for name in ("mixup", "cutmix"):
            require(self, name, getattr(self, name) >= 0, "0 or more")
        require(self, "min_crop_area", 0 < self.min_crop_area <= 1, "above 0 and at most 1")
        require(self, "head_init_std", self.head_init_std > 0, "above 0")
        require(self, "pooling", self.pooling in ("patches", "cls"), "patches or cls")
        require(self, "oversize_crop", self.oversize_crop in ("redraw", "clip"), "redraw or clip")
        blocks = self.trained_blocks
        whole = blocks is None or blocks == 0.5 or (blocks >= 0 and blocks == int(blocks))
        require(self, "trained_blocks", whole, "None, 0, 0.5, or a whole number of blocks")
        frozen = blocks == 0
        require(self, "drop_path", not (frozen and self.drop_path), "0 with a frozen backbone")
        policy = self.rand_augment
        require(
            self,
            "rand_augment",
            policy is None or RAND_AUGMENT.fullmatch(policy) is not None,
            "None or timm's notation, for example rand-m9-mstd0.5-inc1",
        )
        mixes = self.mixup > 0 or self.cutmix > 0
        even = self.device_batch % 2 == 0
        require(self, "device_batch", even or not mixes, "even, for mixup and cutmix pair images")
        many = self.device_batch > 1
        require(self, "device_batch", many or not self.head_batch_norm, "2 or more for batch norm")
        ratio = self.test_crop_ratio
        require(self, "test_crop_ratio", ratio is None or 0 < ratio <= 1, "None or in (0, 1]")

    @property
    def crop_ratio(self) -> float:
        """Side of the test crop / side of the resized image (mae util/datasets.py)."""
        if self.test_crop_ratio is not None:
            return self.test_crop_ratio
        return 224 / 256 if self.image_size <= 224 else 1.0
