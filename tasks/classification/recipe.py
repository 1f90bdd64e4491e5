"""What a classification recipe says. Imports no torch."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from backbones.sizes import size_of
from tasks.recipe import MOST, Share, TransferRecipe, Within, require

RAND_AUGMENT = re.compile(r"rand(-(m|n|p|mstd|mmax|inc)\d{1,3}(\.\d+)?)*")


@dataclass(frozen=True, kw_only=True)
class ClassificationRecipe(TransferRecipe):
    """Every number that can change a classification score."""

    trained_blocks: Annotated[float | None, Within(0, 1000)]
    """last blocks that train, 0.5 being the MLP half of the last one; None: the whole backbone"""
    pooling: Literal["patches", "cls"]
    """patches: mean of the patch tokens, a new layer norm; cls: class token, the backbone's norm"""
    head_batch_norm: bool
    """batch norm without weights (eps 1e-6, statistics per device) before the classifier"""
    head_init_std: Annotated[float, Within(0, MOST, open_low=True)]
    """standard deviation of the classifier's initial weights (truncated normal)"""
    min_crop_area: Annotated[float, Within(0, 1, open_low=True)]
    """smallest share of an image's area that a training crop takes; the largest is 1"""
    oversize_crop: Literal["redraw", "clip"]
    """where a drawn crop exceeds the image: redraw up to ten times, or clip it to the image"""
    flip_prob: Share
    """probability of a horizontal flip"""
    rand_augment: str | None
    """RandAugment in timm's notation, for example rand-m9-mstd0.5-inc1; None: off"""
    erase_prob: Share
    """probability that a rectangle of an image is erased"""
    mixup: Annotated[float, Within(0, MOST)]
    """alpha of mixup's beta distribution; 0 switches it off"""
    cutmix: Annotated[float, Within(0, MOST)]
    """alpha of cutmix's beta distribution; 0 switches it off"""
    mix_switch_prob: Share
    """probability of cutmix rather than mixup where both are on"""
    label_smoothing: Annotated[float, Within(0, 1, open_high=True)]
    """share of the target spread evenly over all classes"""
    test_crop_ratio: Annotated[float | None, Within(0, 1, open_low=True)]
    """side of the test crop / side of the resized image; None: 0.875 up to 224 pixels, 1 above"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "pooling", self.pooling in ("patches", "cls"), "patches or cls")
        require(self, "oversize_crop", self.oversize_crop in ("redraw", "clip"), "redraw or clip")
        blocks = self.trained_blocks
        depth = size_of(self.backbone).depth
        whole = blocks is None or blocks == 0.5 or (blocks == int(blocks) and blocks <= depth)
        wanted = f"None, 0, 0.5, or a whole number of blocks up to {depth}"
        require(self, "trained_blocks", whole, wanted)
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

    def idle(self) -> dict[str, str]:
        idle = super().idle()
        idle |= {"layer_decay": "a frozen backbone"} if self.trained_blocks == 0 else {}
        both = self.mixup > 0 and self.cutmix > 0
        return idle | ({} if both else {"mix_switch_prob": "mixup or cutmix off"})

    @property
    def crop_ratio(self) -> float:
        """Side of the test crop / side of the resized image (mae util/datasets.py)."""
        if self.test_crop_ratio is not None:
            return self.test_crop_ratio
        return 224 / 256 if self.image_size <= 224 else 1.0
