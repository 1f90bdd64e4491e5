"""UperNet on a plain ViT's maps, of mmsegmentation's parts.

Shapes: B images, C channels of a token, K classes, (h, w) the token grid, S crop side.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from tasks.ade20k.datasets import IGNORED
from tasks.ade20k.recipes import NUM_TAPS, Ade20kRecipe
from tasks.ade20k.resized import conv_of_resized
from tasks.errors import TaskError
from tasks.norms import SyncBatchNorm

INSTALL = "pip install 'onedl-mmsegmentation>=1.4.2,<1.5' mmcv-lite==2.2.0 mmengine==0.10.7"
RESCALES = (4, 2, 1, 0.5)
"""sides of the pyramid's levels, in tokens of the grid"""


class Parts(NamedTuple):
    """The classes of mmsegmentation that are used."""

    neck: Any
    head: Any
    aux: Any
    loss: Any
    metric: Any


def load_mmseg() -> Parts:
    """Import mmsegmentation, silently; `TaskError` with the fix where it cannot be."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of compiled operators, which nothing here needs
            from mmseg.evaluation.metrics import IoUMetric
            from mmseg.models.decode_heads import FCNHead, UPerHead
            from mmseg.models.losses import CrossEntropyLoss
            from mmseg.models.necks import Feature2Pyramid
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise TaskError(
            f"ade20k needs mmsegmentation ({reason}); expected it to import: {INSTALL}"
        ) from None
    return Parts(Feature2Pyramid, UPerHead, FCNHead, CrossEntropyLoss, IoUMetric)


class UperNet(nn.Module):
    """Pyramid, UperNet's head and an auxiliary head; logits are at the finest level's sides.

    Source: mmsegmentation, configs/_base_/models/upernet_mae.py, and BEiT's code, in whose
    backbone the pyramid is. As there, the losses are means over all pixels, those that do not
    count included with 0, and the last layers start normal with std 0.01.
    """

    def __init__(self, recipe: Ade20kRecipe, dim: int, num_classes: int) -> None:
        super().__init__()
        parts = load_mmseg()
        common = {
            "num_classes": num_classes,
            "out_channels": num_classes,
            "dropout_ratio": recipe.dropout,
            "norm_cfg": {"type": SyncBatchNorm},
            "align_corners": False,
            "ignore_index": IGNORED,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of means over all pixels, which are wanted
            self.neck = parts.neck(dim, list(RESCALES), norm_cfg=common["norm_cfg"])
            self.head: Any = parts.head(
                pool_scales=recipe.pool_scales,
                in_channels=[dim] * NUM_TAPS,
                in_index=list(range(NUM_TAPS)),
                channels=recipe.head_channels,
                loss_decode={"type": parts.loss, "loss_weight": 1.0},
                **common,
            )
            self.aux: Any = parts.aux(
                in_channels=dim,
                in_index=recipe.aux_tap,
                channels=recipe.aux_channels,
                num_convs=1,
                concat_input=False,
                loss_decode={"type": parts.loss, "loss_weight": recipe.aux_weight},
                **common,
            )
        for head in (self.head, self.aux):
            nn.init.normal_(head.conv_seg.weight, std=0.01)
            nn.init.zeros_(head.conv_seg.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits (B, K, 4 h, 4 w) of maps (B, C, h, w)."""
        return self.logits(self.head, self.levels(maps))

    def levels(self, maps: Sequence[Tensor]) -> Sequence[Tensor]:
        """The pyramid, channel by channel in memory.

        As mmsegmentation's backbone gives its maps; token by token a CPU's convolutions take nearly
        twice as long backward.
        """
        found: Sequence[Tensor] = self.neck([each.contiguous() for each in maps])
        return found

    def logits(self, head: Any, levels: Sequence[Tensor]) -> Tensor:
        """Of either head, from the pyramid's levels."""
        return head.cls_seg(features(head, levels)) if head is self.head else head(levels)

    def losses(self, maps: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropies of both heads, the auxiliary one weighted.

        `labels` (B, S, S): uint8 classes, 255 where nothing counts. Logits are resized to them.
        """
        levels, labels = self.levels(maps), labels.long()
        heads = {"loss_seg": self.head, "loss_aux": self.aux}
        return {
            name: head.loss_decode(
                resize(self.logits(head, levels), labels.shape[1:]), labels, ignore_index=IGNORED
            )
            for name, head in heads.items()
        }


def features(head: Any, levels: Sequence[Tensor]) -> Tensor:
    """What UperNet's classifier sees of the pyramid's levels, at the finest one's sides.

    Source: mmsegmentation, UPerHead._forward_feature, whose modules these are; its resizing before
    the wide convolutions comes after their products here (`conv_of_resized`).
    """
    top = levels[-1]
    laterals = [conv(level) for conv, level in zip(head.lateral_convs, levels[:-1], strict=True)]
    pooled = [pool(top) for pool in head.psp_modules]
    laterals.append(convolved(head.bottleneck, [top, *pooled]))
    for finer in reversed(range(len(laterals) - 1)):
        size = laterals[finer].shape[2:]
        coarser = F.interpolate(laterals[finer + 1], size, mode="bilinear", align_corners=False)
        laterals[finer] = laterals[finer] + coarser
    outs = [conv(lateral) for conv, lateral in zip(head.fpn_convs, laterals[:-1], strict=True)]
    return convolved(head.fpn_bottleneck, [*outs, laterals[-1]])


def convolved(module: Any, maps: Sequence[Tensor]) -> Tensor:
    """mmcv's ConvModule of maps that are resized to the first one's sides and joined."""
    found: Tensor = module.activate(module.norm(conv_of_resized(module.conv.weight, maps)))
    return found


def resize(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits (B, K, h, w) to `size` (height, width) in fp32, bilinearly, corners not aligned."""
    # Class by class in memory: a softmax over classes would copy the large ones to have it so.
    logits = logits.float().contiguous()
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)
