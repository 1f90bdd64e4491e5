"""Mask R-CNN from torchvision's parts, made to compute what detectron2's computes.

Shapes: B images, K classes, D channels of the pyramid, R regions, M side of a predicted mask.
Boxes are (x1, y1, x2, y2) in pixels of the network's input. Where torchvision differs from
detectron2, which the published numbers come from, the difference is taken out here, and named
where it is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, roi_align

from tasks.coco.masks import crop_targets
from tasks.coco.pyramid import LEVELS, norm_layer
from tasks.coco.recipes import CocoRecipe

BOX_SIDE, MASK_SIDE = 7, 14
"""sides of the pooled features of the box and the mask head"""
ANCHOR_RATIOS = (0.5, 1.0, 2.0)
"""height / width"""
CANONICAL_PATCHES = 14
"""a region as wide as this many patches is pooled from the level with the patches' stride"""


class Detections(NamedTuple):
    """What was found in one image, best first."""

    boxes: Tensor
    """(n, 4)"""
    scores: Tensor
    """(n,)"""
    labels: Tensor
    """(n,), class indices from 0"""
    masks: Tensor | None = None
    """(n, M, M), probabilities inside the box; None: boxes alone are found"""


PAIRS = 2**22
"""object and anchor, of which the overlap is held at a time, for about 40 bytes each"""


def pair_of(objects: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """What `PairMatcher` takes, in the place of all overlaps."""
    return objects, anchors


class PairMatcher(Matcher):
    """torchvision's matcher on boxes themselves, a few objects at a time.

    The whole matrix of 400 objects and the 262,000 anchors of a 1024-pixel image, with what is
    made on the way to it, took 3.6 GB. What is matched is the same to the bit.
    """

    def __call__(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        """Object of each anchor, (A,), below 0: none, of the objects (n, 4) and anchors (A, 4)."""
        objects, anchors = pair
        best = anchors.new_full((len(anchors),), -1.0)
        match = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
        nearest = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
        rows = max(1, PAIRS // max(1, len(anchors)))
        for start in range(0, len(objects), rows):
            overlap = box_iou(objects[start : start + rows], anchors)
            value, index = overlap.max(dim=0)
            better = value > best
            best, match = (
                torch.where(better, value, best),
                torch.where(better, index + start, match),
            )
            if self.allow_low_quality_matches:
                nearest |= (overlap == overlap.max(dim=1, keepdim=True).values).any(dim=0)
        between = (best >= self.low_threshold) & (best < self.high_threshold)
        found = match.masked_fill(best < self.low_threshold, self.BELOW_LOW_THRESHOLD)
        found = found.masked_fill(between, self.BETWEEN_THRESHOLDS)
        return torch.where(nearest, match, found)


class Anchors(AnchorGenerator):
    """Anchors that are not rounded to whole pixels, as torchvision's are."""

    def generate_anchors(self, scales, aspect_ratios, dtype=torch.float32, device="cpu") -> Tensor:
        sides = torch.as_tensor(scales, dtype=dtype, device=device)
        heights = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        height = (heights[:, None] * sides).flatten()
        width = (sides / heights[:, None]).flatten()
        return torch.stack([-width, -height, width, height], dim=1) / 2


class ProposalHead(RPNHead):
    """Two shared convolutions; logits and deltas are float32 under autocast too."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [each.float() for each in logits], [each.float() for each in deltas]


class Proposals(RegionProposalNetwork):
    """The proposal network with detectron2's losses and order.

    Both losses are summed over the sampled anchors and divided by rpn_batch x images, however
    many were sampled; torchvision divides by their number and rounds the L1 off below 1/9.
    Non-maximum suppression goes by logits (torchvision's probabilities tie where logits do not),
    and only boxes without any area are dropped before it (torchvision's limit is 1e-3 pixels).
    """

    def __init__(self, recipe: CocoRecipe) -> None:
        anchors = Anchors([(size,) for size in recipe.anchor_sizes], [ANCHOR_RATIOS] * len(LEVELS))
        candidates = dict(zip(("training", "testing"), recipe.rpn_candidates, strict=True))
        super().__init__(
            anchors,
            ProposalHead(recipe.pyramid_channels, len(ANCHOR_RATIOS), conv_depth=2),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=recipe.rpn_batch,
            positive_fraction=0.5,
            pre_nms_top_n=candidates,
            post_nms_top_n=dict.fromkeys(candidates, recipe.proposals),
            nms_thresh=0.7,
        )
        self.num_sampled = recipe.rpn_batch
        self.box_similarity = pair_of
        self.proposal_matcher = PairMatcher(0.7, 0.3, allow_low_quality_matches=True)

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes and logits of each image's proposals, best first, from (B, anchors, 4)."""
        logits = objectness.detach().view(len(proposals), -1)
        level_of = numbered(num_anchors_per_level, logits.device)
        top = self._get_top_n_idx(logits, num_anchors_per_level)
        kept_boxes, kept_logits = [], []
        for boxes, scores, best, shape in zip(proposals, logits, top, image_shapes, strict=True):
            boxes, scores, levels = (
                clip_boxes_to_image(boxes[best], shape),
                scores[best],
                level_of[best],
            )
            (fine,) = torch.where((boxes[:, 2:] > boxes[:, :2]).all(dim=1) & scores.isfinite())
            boxes, scores, levels = boxes[fine], scores[fine], levels[fine]
            kept = batched_nms(boxes, scores, levels, self.nms_thresh)[: self.post_nms_top_n()]
            kept_boxes.append(boxes[kept])
            kept_logits.append(scores[kept])
        return kept_boxes, kept_logits

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        positive, negative = (torch.cat(part).bool() for part in self.fg_bg_sampler(labels))
        normaliser = self.num_sampled * len(labels)
        (sampled,), (positive,) = torch.where(positive | negative), torch.where(positive)
        objectness_loss = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        box_loss = F.l1_loss(
            pred_bbox_deltas[positive],
            torch.cat(regression_targets)[positive],
            reduction="sum",
        )
        return objectness_loss / normaliser, box_loss / normaliser


def numbered(counts: Sequence[int], device: torch.device) -> Tensor:
    """The number of its part for each element of parts of so many, (sum of counts,)."""
    parts = [torch.full((count,), i, device=device) for i, count in enumerate(counts)]
    return torch.cat(parts)


def pool(levels: Sequence[Tensor], boxes: list[Tensor], side: int, patch_size: int) -> Tensor:
    """Features of each box, (R, D, side, side), from the level that its size belongs to.

    ROIAlign is aligned to pixel centres and samples adaptively (torchvision's is not aligned,
    and takes two samples a bin). `levels` are p2 to p5.
    """
    rois = torch.cat(
        [F.pad(each, (1, 0), value=float(image)) for image, each in enumerate(boxes)]
    )  # (R, 5): image, box
    widths, heights = (rois[:, 3] - rois[:, 1]), (rois[:, 4] - rois[:, 2])
    size = (widths * heights).sqrt() / (CANONICAL_PATCHES * patch_size)
    chosen = (2 + torch.log2(size + 1e-8)).floor().clamp(0, len(levels) - 1)
    pooled = levels[0].new_zeros((len(rois), levels[0].shape[1], side, side))
    # Sorted, so that the sizes of all levels are asked for at once.
    numbers = torch.arange(len(levels), device=chosen.device)
    counts = (chosen == numbers[:, None]).sum(dim=1).tolist()
    by_level = chosen.argsort(stable=True)[: sum(counts)].split(counts)
    for index, (level, own) in enumerate(zip(levels, by_level, strict=True)):
        scale = 2.0 ** (2 - index) / patch_size
        found = roi_align(level, rois[own], side, scale, sampling_ratio=0, aligned=True)
        pooled = pooled.index_put((own,), found)
    return pooled


class Heads(RoIHeads):
    """Box and mask heads with detectron2's losses, initialisation and filters.

    Plain L1 on boxes (torchvision rounds it off below 1/9), mask targets that are cut at 0.5 (its
    own are soft and not aligned), no filter for small detections (it drops those below 0.01
    pixels). torchvision's class 0 is the background; its rows of the box and mask predictors
    mean nothing and never meet a loss. Without `masks` there is no mask head: Faster R-CNN.
    """

    def __init__(self, recipe: CocoRecipe, num_classes: int, masks: bool = True) -> None:
        channels, norm = recipe.pyramid_channels, norm_layer(recipe.norm)
        box_head = FastRCNNConvFCHead(
            (channels, BOX_SIDE, BOX_SIDE),
            [channels] * recipe.box_head_convs,
            [recipe.box_head_dim],
            norm_layer=norm,
        )
        super().__init__(
            None,
            box_head,
            FastRCNNPredictor(recipe.box_head_dim, 1 + num_classes),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=recipe.roi_batch,
            positive_fraction=0.25,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=recipe.score_threshold,
            nms_thresh=recipe.nms_threshold,
            detections_per_img=recipe.max_detections,
        )
        self.with_masks = masks
        if masks:
            convolutions = [channels] * recipe.mask_head_convs
            self.mask_head = MaskRCNNHeads(channels, convolutions, dilation=1, norm_layer=norm)
            self.mask_predictor = MaskRCNNPredictor(channels, channels, 1 + num_classes)
        self.patch_size = recipe.patch_size
        self.initialise()

    def initialise(self) -> None:
        """What torchvision leaves at the layers' defaults, or sets otherwise.

        Source: detectron2, modeling/roi_heads/{box_head,fast_rcnn,mask_head}.py.
        """
        for layer in self.box_head:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                nn.init.zeros_(layer.bias)
        predictors = [(self.box_predictor.cls_score, 0.01), (self.box_predictor.bbox_pred, 0.001)]
        if self.with_masks:
            predictors.append((self.mask_predictor.mask_fcn_logits, 0.001))
        for layer, std in predictors:
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        if self.with_masks:
            nn.init.zeros_(self.mask_predictor.conv5_mask.bias)

    def losses(
        self, levels: Sequence[Tensor], proposals: list[Tensor], targets: list[dict]
    ) -> dict[str, Tensor]:
        """Losses of some sampled proposals; labels in `targets` count from 1."""
        boxes, matched, labels, deltas = self.select_training_samples(proposals, targets)
        logits, predicted = self.predict_boxes(levels, boxes)
        label = torch.cat(labels)
        (positive,) = torch.where(label > 0)
        own = predicted.view(len(label), -1, 4)[positive, label[positive]]
        box_loss = F.l1_loss(own, torch.cat(deltas)[positive], reduction="sum")
        found = {
            "loss_cls": F.cross_entropy(logits, label, reduction="sum") / max(len(label), 1),
            "loss_box_reg": box_loss / max(len(label), 1),
        }
        if self.with_masks:
            found["loss_mask"] = self.mask_loss(levels, boxes, matched, label, positive, targets)
        return found

    def mask_loss(
        self,
        levels: Sequence[Tensor],
        boxes: list[Tensor],
        matched: list[Tensor],
        label: Tensor,
        positive: Tensor,
        targets: list[dict],
    ) -> Tensor:
        """Binary cross-entropy of the positive regions' masks, each in the channel of its class.

        `label` (R,) of the regions of all images, and the rows of those that are `positive`.
        """
        image = numbered([len(each) for each in boxes], label.device)
        chosen, label = torch.cat(boxes)[positive], label[positive]
        # Drawn by the host, which asks for all images' regions at once.
        of_image, own = torch.stack([image[positive], torch.cat(matched)[positive]]).tolist()
        counts = [of_image.count(number) for number in range(len(boxes))]
        logits = self.predict_masks(levels, list(chosen.split(counts)))
        masks = [targets[number]["masks"][i] for number, i in zip(of_image, own, strict=True)]
        wanted = crop_targets(masks, chosen.detach().cpu(), logits.shape[-1])
        if not len(label):
            return logits.sum() * 0  # so that every process has a gradient for every weight
        found = logits[torch.arange(len(label), device=label.device), label]
        return F.binary_cross_entropy_with_logits(found, wanted.to(found, non_blocking=True))

    def detect(
        self, levels: Sequence[Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[Detections]:
        logits, deltas = self.predict_boxes(levels, proposals)
        counts = [len(each) for each in proposals]
        boxes = self.box_coder.decode(deltas, proposals).split(counts)
        scores = logits.softmax(dim=-1).split(counts)
        found = [self.best(*each) for each in zip(boxes, scores, sizes, strict=True)]
        if not self.with_masks:
            return [Detections(*each) for each in found]
        masks = self.predict_masks(levels, [box for box, _, _ in found])
        labels = torch.cat([label for _, _, label in found])
        chosen = masks[torch.arange(len(labels), device=labels.device), labels + 1].sigmoid()
        parts = chosen.split([len(label) for _, _, label in found])
        return [Detections(*each, mask) for each, mask in zip(found, parts, strict=True)]

    def best(
        self, boxes: Tensor, scores: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores, labels of one image's detections from (R, 1 + K, 4) and (R, 1 + K)."""
        finite = boxes.isfinite().flatten(1).all(dim=1) & scores.isfinite().all(dim=1)
        boxes, scores = boxes[finite, 1:], scores[finite, 1:]
        region, label = torch.where(scores > self.score_thresh)
        boxes, scores = clip_boxes_to_image(boxes[region, label], size), scores[region, label]
        kept = batched_nms(boxes, scores, label, self.nms_thresh)[: self.detections_per_img]
        return boxes[kept], scores[kept], label[kept]

    def predict_boxes(self, levels: Sequence[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Float32 class logits (R, 1 + K) and box deltas (R, (1 + K) * 4)."""
        pooled = pool(levels, boxes, BOX_SIDE, self.patch_size)
        logits, deltas = self.box_predictor(self.box_head(pooled))
        return logits.float(), deltas.float()

    def predict_masks(self, levels: Sequence[Tensor], boxes: list[Tensor]) -> Tensor:
        """Float32 mask logits (R, 1 + K, M, M)."""
        pooled = pool(levels, boxes, MASK_SIDE, self.patch_size)
        return self.mask_predictor(self.mask_head(pooled)).float()


class MaskRCNN(nn.Module):
    """Proposals and heads over a feature pyramid; the engine "torchvision"."""

    def __init__(self, recipe: CocoRecipe, num_classes: int, masks: bool = True) -> None:
        super().__init__()
        self.proposals = Proposals(recipe)
        self.heads = Heads(recipe, num_classes, masks)

    def losses(
        self, levels: dict[str, Tensor], images: Tensor, sizes: Tensor, targets: list[dict]
    ) -> dict[str, Tensor]:
        """The five losses of a batch; four without masks.

        `images` (B, 3, S, S) are padded, `sizes` (B, 2) their (height, width) without padding; a
        target has "boxes" (n, 4), "labels" (n,) from 0, and "masks", n of `masks.Mask`.
        """
        levels = in_float32(levels)
        shifted = [target | {"labels": target["labels"] + 1} for target in targets]
        found, losses = self.propose(levels, images, sizes, shifted)
        named = {
            "loss_rpn_cls": losses["loss_objectness"],
            "loss_rpn_loc": losses["loss_rpn_box_reg"],
        }
        return named | self.heads.losses(pooled_levels(levels), found, shifted)

    def detect(self, levels: dict[str, Tensor], images: Tensor, sizes: Tensor) -> list[Detections]:
        """What is found in each image, in pixels of the network's input."""
        levels = in_float32(levels)
        found, _ = self.propose(levels, images, sizes, None)
        shapes = [(height, width) for height, width in sizes.tolist()]
        return self.heads.detect(pooled_levels(levels), found, shapes)

    def propose(
        self,
        levels: dict[str, Tensor],
        images: Tensor,
        sizes: Tensor,
        targets: list[dict] | None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        padded = ImageList(images, [(height, width) for height, width in sizes.tolist()])
        return self.proposals(padded, levels, targets)


def in_float32(levels: dict[str, Tensor]) -> dict[str, Tensor]:
    """Anchors and box arithmetic take the features' type, and bfloat16 cannot hold a pixel."""
    return {name: level.float() for name, level in levels.items()}


def pooled_levels(levels: dict[str, Tensor]) -> list[Tensor]:
    """The levels that regions are pooled from: all but the coarsest."""
    return [levels[name] for name in LEVELS[:-1]]
