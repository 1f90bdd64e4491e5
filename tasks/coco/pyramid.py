"""Feature pyramids on a plain ViT, and the norm layers of pyramid and heads.

Shapes: B images, C channels of a token, D channels of the pyramid, (h, w) the token grid. Both
pyramids give five levels, finest first: 4, 2, 1, 1/2 and 1/4 of the token grid.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from tasks.coco.recipes import NUM_GROUPS
from tasks.norms import SyncBatchNorm

Norm = Callable[[int], nn.Module]
"""makes a norm layer for a number of channels"""

LEVELS = ("p2", "p3", "p4", "p5", "p6")
"""finest first; p4 has the patches' stride"""


def norm_layer(kind: Literal["layer", "batch"]) -> Norm:
    """Channel-wise layer norm with eps 1e-6 (detectron2, layers/batch_norm.py), or batch norm."""
    return partial(LayerNorm2d, eps=1e-6) if kind == "layer" else SyncBatchNorm


def upsample(dim: int, out: int) -> nn.ConvTranspose2d:
    """Transposed 2 x 2 convolution that doubles the sides."""
    return nn.ConvTranspose2d(dim, out, kernel_size=2, stride=2)


class SimplePyramid(nn.Module):
    """Every level from the last map alone: (B, C, h, w) to five maps of D channels.

    Source: ViTDet (2203.16527), detectron2 modeling/backbone/vit.py (SimpleFeaturePyramid).
    """

    def __init__(self, dim: int, channels: int, norm: Norm) -> None:
        super().__init__()

        def level(width: int, *resample: nn.Module) -> nn.Sequential:
            return nn.Sequential(
                *resample,
                nn.Conv2d(width, channels, kernel_size=1, bias=False),
                norm(channels),
                nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
                norm(channels),
            )

        finest = (upsample(dim, dim // 2), norm(dim // 2), nn.GELU(), upsample(dim // 2, dim // 4))
        self.p2 = level(dim // 4, *finest)
        self.p3 = level(dim // 2, upsample(dim, dim // 2))
        self.p4 = level(dim)
        self.p5 = level(dim, nn.MaxPool2d(kernel_size=2, stride=2))

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        (last,) = maps
        levels = {name: getattr(self, name)(last) for name in LEVELS[:4]}
        return levels | {LEVELS[4]: F.max_pool2d(levels[LEVELS[3]], kernel_size=1, stride=2)}


class FourStagePyramid(nn.Module):
    """One map a level, from four blocks, into a top-down FPN: four (B, C, h, w) to five maps.

    Source: 2111.11429, Section 2: the earliest map is upsampled fourfold, the next twofold, the
    last one halved; channels stay C until the FPN, whose convolutions are normalised.
    """

    def __init__(self, dim: int, channels: int, norm: Norm) -> None:
        super().__init__()
        finest = (upsample(dim, dim), nn.GroupNorm(NUM_GROUPS, dim), nn.GELU(), upsample(dim, dim))
        self.adapters = nn.ModuleList(
            (
                nn.Sequential(*finest),
                upsample(dim, dim),
                nn.Identity(),
                nn.MaxPool2d(kernel_size=2, stride=2),
            )
        )
        self.fpn = FeaturePyramidNetwork([dim] * 4, channels, LastLevelMaxPool(), norm_layer=norm)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        adapted = [adapter(x) for adapter, x in zip(self.adapters, maps, strict=True)]
        merged = self.fpn(dict(zip(LEVELS, adapted, strict=False)))
        return dict(zip(LEVELS, merged.values(), strict=True))
