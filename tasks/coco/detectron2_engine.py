"""Mask R-CNN by detectron2 itself, over the same pyramid; the engine "detectron2".

detectron2 installs from source only, so this module is imported only where that engine is asked
for. Settings: configs/common/models/mask_rcnn_{fpn,vitdet}.py.
"""

import math
from typing import Any

import numpy as np
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    StandardROIHeads,
)
from detectron2.structures import BitMasks, Boxes, ImageList, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from tasks.coco.mask_rcnn import ANCHOR_RATIOS, BOX_SIDE, CANONICAL_PATCHES, MASK_SIDE, Detections
from tasks.coco.masks import draw
from tasks.coco.pyramid import LEVELS, norm_layer
from tasks.coco.recipes import CocoRecipe


class Detectron2MaskRCNN(nn.Module):
    """detectron2's proposals and heads; goes in and comes out as in `mask_rcnn.MaskRCNN`."""

    def __init__(self, recipe: CocoRecipe, num_classes: int, masks: bool = True) -> None:
        super().__init__()
        self.proposals = proposal_network(recipe)
        self.heads = roi_heads(recipe, num_classes, masks)

    def losses(
        self, levels: dict[str, Tensor], images: Tensor, sizes: Tensor, targets: list[dict]
    ) -> dict[str, Tensor]:
        padded = to_images(images, sizes)
        instances = to_instances(targets, sizes, self.heads.mask_on)
        try:
            with EventStorage():  # detectron2 logs into one, whoever asks
                found, losses = self.proposals(padded, levels, instances)
                _, others = self.heads(padded, levels, found, instances)
        except FloatingPointError:  # its word for divergence, which the training loop looks for
            # Other processes wait in the heads' batch norm, if there is one.
            rows = zip(targets, sizes.tolist(), strict=True)
            found = [proposed(target, size) for target, size in rows]
            with EventStorage():
                _, others = self.heads(padded, levels, found, instances)
            everything = [*self.parameters(), *levels.values()]
            losses = {"loss_rpn_cls": math.nan * torch.stack([x.sum() for x in everything]).sum()}
        return losses | others

    def detect(self, levels: dict[str, Tensor], images: Tensor, sizes: Tensor) -> list[Detections]:
        padded = to_images(images, sizes)
        proposals, _ = self.proposals(padded, levels)
        found, _ = self.heads(padded, levels, proposals)
        return [
            Detections(
                each.pred_boxes.tensor,
                each.scores,
                each.pred_classes,
                each.pred_masks[:, 0] if self.heads.mask_on else None,
            )
            for each in found
        ]


def proposal_network(recipe: CocoRecipe) -> RPN:
    strides = [recipe.patch_size * 2 ** (i - 2) for i in range(len(LEVELS))]
    return RPN(
        in_features=list(LEVELS),
        head=StandardRPNHead(
            in_channels=recipe.pyramid_channels,
            num_anchors=len(ANCHOR_RATIOS),
            conv_dims=[-1, -1],
        ),
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[size] for size in recipe.anchor_sizes],
            aspect_ratios=list(ANCHOR_RATIOS),
            strides=strides,
            offset=0.0,
        ),
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=recipe.rpn_batch,
        positive_fraction=0.5,
        pre_nms_topk=recipe.rpn_candidates,
        post_nms_topk=(recipe.proposals, recipe.proposals),
        nms_thresh=0.7,
    )


def roi_heads(recipe: CocoRecipe, num_classes: int, masks: bool) -> StandardROIHeads:
    channels, norm = recipe.pyramid_channels, norm_layer(recipe.norm)
    convolutions = [channels] * recipe.box_head_convs
    box_head = FastRCNNConvFCHead(
        ShapeSpec(channels=channels, height=BOX_SIDE, width=BOX_SIDE),
        conv_dims=convolutions,
        fc_dims=[recipe.box_head_dim],
        conv_norm=norm,
    )
    mask_parts = mask_arguments(recipe, num_classes) if masks else {}
    return StandardROIHeads(
        num_classes=num_classes,
        batch_size_per_image=recipe.roi_batch,
        positive_fraction=0.25,
        proposal_matcher=Matcher([0.5], [0, 1], allow_low_quality_matches=False),
        box_in_features=list(LEVELS[:-1]),
        box_pooler=pooler(recipe, BOX_SIDE),
        box_head=box_head,
        box_predictor=FastRCNNOutputLayers(
            ShapeSpec(channels=recipe.box_head_dim),
            test_score_thresh=recipe.score_threshold,
            test_nms_thresh=recipe.nms_threshold,
            test_topk_per_image=recipe.max_detections,
            box2box_transform=Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)),
            num_classes=num_classes,
        ),
        **mask_parts,
    )


def mask_arguments(recipe: CocoRecipe, num_classes: int) -> dict[str, Any]:
    channels = recipe.pyramid_channels
    return {
        "mask_in_features": list(LEVELS[:-1]),
        "mask_pooler": pooler(recipe, MASK_SIDE),
        "mask_head": MaskRCNNConvUpsampleHead(
            ShapeSpec(channels=channels, height=MASK_SIDE, width=MASK_SIDE),
            num_classes=num_classes,
            conv_dims=[channels] * (recipe.mask_head_convs + 1),
            conv_norm=norm_layer(recipe.norm),
        ),
    }


def pooler(recipe: CocoRecipe, side: int) -> ROIPooler:
    return ROIPooler(
        output_size=side,
        scales=[2.0 ** (2 - i) / recipe.patch_size for i in range(len(LEVELS) - 1)],
        sampling_ratio=0,
        pooler_type="ROIAlignV2",
        canonical_box_size=CANONICAL_PATCHES * recipe.patch_size,
        canonical_level=round(math.log2(recipe.patch_size)),
    )


def proposed(target: dict[str, Any], size: list[int]) -> Instances:
    """A target's boxes as proposals."""
    height, width = size
    boxes = target["boxes"]
    logits = boxes.new_zeros(len(boxes))
    return Instances((height, width), proposal_boxes=Boxes(boxes), objectness_logits=logits)


def to_images(images: Tensor, sizes: Tensor) -> ImageList:
    return ImageList(images, [(height, width) for height, width in sizes.tolist()])


def to_instances(targets: list[dict[str, Any]], sizes: Tensor, with_masks: bool) -> list[Instances]:
    """Targets as detectron2 holds them; one bitmap among an image's masks makes all bitmaps."""
    found = []
    for target, (height, width) in zip(targets, sizes.tolist(), strict=True):
        each = Instances((height, width))
        each.gt_boxes, each.gt_classes = Boxes(target["boxes"]), target["labels"]
        masks = target["masks"]
        if not with_masks:
            found.append(each)
            continue
        if not all(isinstance(mask, list) for mask in masks):
            bitmaps = [
                draw([ring.ravel().tolist() for ring in mask], height, width)
                if isinstance(mask, list)
                else np.asarray(mask)
                for mask in masks
            ]
            each.gt_masks = BitMasks(torch.from_numpy(np.stack(bitmaps))).to(target["boxes"].device)
        else:
            each.gt_masks = PolygonMasks([[ring.ravel() for ring in mask] for mask in masks])
        found.append(each)
    return found


def from_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A `mask_rcnn.MaskRCNN`'s weights under this engine's names.

    torchvision's background is the first class and has rows in every predictor; here it is the
    last class of the classifier, and has no others.
    """
    renamed = {}
    for key, value in state.items():
        part, _, rest = key.removeprefix("heads.").partition(".")
        if key.startswith("proposals.head."):
            name = key.removeprefix("proposals.head.")
            name = name.replace("conv.0.0", "conv.conv0").replace("conv.1.0", "conv.conv1")
            name = name.replace("cls_logits", "objectness_logits")
            renamed[f"proposals.rpn_head.{name.replace('bbox_pred', 'anchor_deltas')}"] = value
        elif part == "box_head":
            number, _, name = rest.partition(".")
            if value.ndim == 2 or name in ("weight", "bias"):
                renamed[f"heads.box_head.fc1.{name}"] = value
            else:
                renamed[f"heads.box_head.conv{int(number) + 1}.{convolution(name)}"] = value
        elif part == "mask_head":
            number, _, name = rest.partition(".")
            renamed[f"heads.mask_head.mask_fcn{int(number) + 1}.{convolution(name)}"] = value
        elif rest.startswith("cls_score"):
            renamed[f"heads.box_predictor.{rest}"] = torch.cat([value[1:], value[:1]])
        elif rest.startswith("bbox_pred"):
            renamed[f"heads.box_predictor.{rest}"] = value[4:]
        elif rest.startswith("conv5_mask"):
            renamed[f"heads.mask_head.deconv{rest.removeprefix('conv5_mask')}"] = value
        else:
            name = rest.removeprefix("mask_fcn_logits")
            renamed[f"heads.mask_head.predictor{name}"] = value[1:]
    return renamed


def convolution(name: str) -> str:
    """ "0.weight" is the convolution's, "1.…" its norm's."""
    layer, _, rest = name.partition(".")
    return rest if layer == "0" else f"norm.{rest}"
