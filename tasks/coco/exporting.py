"""A trained Mask R-CNN as one program for others: an image in, a fixed number of objects out.

The network is ours, module by module; what chooses among boxes is written anew, since a program
needs sizes that no image changes. On one image it finds what the run finds.
Shapes: S image side, A anchors, R regions, K classes, D objects at most, M mask side.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision  # noqa: F401 (its operators are in the program)
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import roi_align

from tasks.coco.mask_rcnn import (
    BOX_SIDE,
    CANONICAL_PATCHES,
    MASK_SIDE,
    Detections,
    MaskRCNN,
    in_float32,
    pooled_levels,
)
from tasks.coco.task import Coco
from tasks.errors import TaskError
from tasks.learnt import CLASSES_FILE, write_classes
from tasks.programs import PREPROCESSING_FILE, write_json, write_program

TOLERANCE = 1e-3
"""of boxes, in pixels, and of scores and masks"""


class Program(nn.Module):
    """uint8 image (1, 3, S, S), padded right and below, and its size, int64 (2,) height and width
    without padding, to boxes (D, 4), scores (D,), labels (D,) and masks (D, M, M).

    Objects come best first, boxes as (x1, y1, x2, y2) in pixels of the input, masks as
    probabilities inside their box; where fewer are found, the rest has the score 0. `threshold`,
    (), is the least score of an object.
    """

    def __init__(self, task: Coco) -> None:
        super().__init__()
        self.task = task
        detector = task.detector
        assert isinstance(detector, MaskRCNN)
        self.proposals, self.heads = detector.proposals, detector.heads

    def forward(self, image: Tensor, size: Tensor, threshold: Tensor) -> tuple[Tensor, ...]:
        levels = in_float32(self.task.levels(image, size[None]))
        limits = size.flip(0).repeat(2).float()  # width, height, width, height
        boxes = self.propose(levels, image, limits)
        maps = pooled_levels(levels)
        logits, deltas = self.heads.box_predictor(self.heads.box_head(self.pool(maps, boxes, 0)))
        found = self.heads.box_coder.decode(deltas.float(), [boxes])[:, 1:]  # (R, K, 4)
        scores = logits.float().softmax(dim=-1)[:, 1:]  # (R, K)
        region, label = torch.where(scores > threshold)
        own, own_scores = clipped(found[region, label], limits), scores[region, label]
        kept = suppressed(own, own_scores, label, self.heads.nms_thresh)
        most = self.heads.detections_per_img
        own, own_scores, label = (first(each[kept], most) for each in (own, own_scores, label))
        if not self.heads.with_masks:
            return own, own_scores, label
        masks = self.heads.mask_predictor(self.heads.mask_head(self.pool(maps, own, 1))).float()
        index = (label + 1).view(-1, 1, 1, 1).expand(-1, 1, *masks.shape[-2:])
        return own, own_scores, label, masks.gather(1, index)[:, 0].sigmoid()

    def propose(self, levels: dict[str, Tensor], image: Tensor, limits: Tensor) -> Tensor:
        """Regions (R, 4), best first; where fewer are found, the rest has no area."""
        rpn, maps = self.proposals, list(levels.values())
        logits, deltas = rpn.head(maps)
        side = (image.shape[-2], image.shape[-1])
        anchors = rpn.anchor_generator(ImageList(image, [side]), maps)
        counts = [each[0].numel() for each in logits]
        scores, deltas = concat_box_prediction_layers(logits, deltas)
        boxes = rpn.box_coder.decode(deltas, anchors).view(-1, 4)
        scores = scores.flatten()
        chosen = rpn._get_top_n_idx(scores[None], counts)[0]
        level_of = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        boxes, scores, level = clipped(boxes[chosen], limits), scores[chosen], level_of[chosen]
        fine = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes = torch.where(fine[:, None], boxes, 0.0)
        scores = torch.where(fine, scores, -torch.inf)
        kept = suppressed(boxes, scores, level, rpn.nms_thresh)
        return first(boxes[kept], rpn.post_nms_top_n())

    def pool(self, maps: Sequence[Tensor], boxes: Tensor, of_masks: int) -> Tensor:
        """What `mask_rcnn.pool` gives: each level pools all boxes, those of others without area."""
        patch, side = self.heads.patch_size, (BOX_SIDE, MASK_SIDE)[of_masks]
        sides = boxes[:, 2:] - boxes[:, :2]
        size = sides.prod(dim=1).sqrt() / (CANONICAL_PATCHES * patch)
        level = (2 + torch.log2(size + 1e-8)).floor().clamp(0, len(maps) - 1)
        image = boxes.new_zeros(len(boxes), 1)
        total: Any = 0.0
        for number, each in enumerate(maps):
            own = (level == number)[:, None]
            rois = torch.cat([image, torch.where(own, boxes, 0.0)], dim=1)
            scale = 2.0 ** (2 - number) / patch
            found = roi_align(each, rois, side, scale, sampling_ratio=0, aligned=True)
            total = total + torch.where(own[:, :, None, None], found, 0.0)
        return total


def clipped(boxes: Tensor, limits: Tensor) -> Tensor:
    """Boxes (n, 4) inside an image of limits (4,): its width, height, width and height."""
    return torch.minimum(boxes.clamp(min=0), limits)


def suppressed(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Rows of boxes (n, 4) that non-maximum suppression within each group leaves, best first.

    Groups are moved apart, in float64, which rounds nothing away there.
    """
    apart = groups[:, None].double() * 2.0**20
    return torch.ops.torchvision.nms(boxes.double() + apart, scores.double(), threshold)


def first(rows: Tensor, count: int) -> Tensor:
    """The first `count` rows; zeros where there are fewer."""
    padded = torch.cat([rows, rows.new_zeros(count, *rows.shape[1:])])
    return padded.narrow(0, 0, count)


def export(task: Coco, classes: Sequence[str], to: str, folder: Path) -> str:
    """Write a detector of `classes` into `folder` as a torch program; how to read it.

    Raises `TaskError` for another layout or engine, and if what was written finds other objects.
    """
    if task.recipe.engine != "torchvision":
        raise TaskError(
            f"--to torch: an engine of {task.recipe.engine} is not exported; expected torchvision"
        )
    task = task.eval().float().cpu().requires_grad_(False)
    image, size, threshold = pattern(task.recipe.image_size)
    program = torch.export.export(Program(task), (image, size, threshold), strict=False)
    how, found = write_program(program, to, folder)
    for seed in (0, 1):
        compare(task, found, *pattern(task.recipe.image_size, seed))
    write_preprocessing(task, folder)
    write_classes(folder / CLASSES_FILE, classes)
    return f"import torchvision; {how}"


def pattern(side: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """An image of coloured boxes, its size and a threshold under which much is found."""
    generator = torch.Generator().manual_seed(seed)
    height, width = side, side - side // 4
    image = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    image[..., :width] = torch.randint(0, 256, (1, 3, height, width), generator=generator) // 8
    for _ in range(8):
        top, left = (int(torch.randint(0, each // 2, (1,), generator=generator)) for each in (
            height, width
        ))  # fmt: skip
        colour = torch.randint(64, 256, (3, 1, 1), generator=generator, dtype=torch.uint8)
        image[0, :, top : top + height // 4, left : left + width // 4] = colour
    return image, torch.tensor([height, width]), torch.tensor(0.0)


@torch.no_grad()
def compare(task: Coco, program: Any, image: Tensor, size: Tensor, threshold: Tensor) -> None:
    """Raise `TaskError` unless a program finds in an image what the run's network finds."""
    detector = task.detector
    assert isinstance(detector, MaskRCNN)
    before, detector.heads.score_thresh = detector.heads.score_thresh, float(threshold)
    try:
        (ours,) = detector.detect(task.levels(image, size[None]), image, size[None])
    finally:
        detector.heads.score_thresh = before
    theirs = Detections(*program(image, size, threshold))
    count = len(ours.scores)
    rest = theirs.scores[count:]
    same = torch.equal(ours.labels, theirs.labels[:count]) and not rest.any()
    pairs = [(ours.boxes, theirs.boxes), (ours.scores, theirs.scores)]
    if ours.masks is not None and theirs.masks is not None:
        pairs.append((ours.masks, theirs.masks))
    errors = [difference(a, b[:count]) for a, b in pairs]
    if not same or not max(errors) < TOLERANCE:
        raise TaskError(
            f"what was written as torch finds other objects, by {max(errors):.1e}; expected at "
            f"most {TOLERANCE:.0e}: nothing is kept"
        )


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest one; infinite between other numbers of objects."""
    if ours.shape != theirs.shape:
        return torch.inf
    return float((ours - theirs).abs().max()) if len(ours) else 0.0


def write_preprocessing(task: Coco, folder: Path) -> None:
    side = task.recipe.image_size
    how = {
        "input": [
            f"uint8 RGB image (1, 3, {side}, {side}); pixels are normalised inside",
            "int64 (2,): height and width of the image without padding",
            "float32 (): least score of an object",
        ],
        "resize_longer_side": side,
        "interpolation": "bilinear",
        "antialias": True,
        "pad": "zeros at the right and at the bottom",
        "score_threshold": task.recipe.score_threshold,
        "output": [
            "boxes (D, 4): x1, y1, x2, y2 in pixels of the input",
            "scores (D,), the best first; 0: no object",
            "labels (D,): lines of classes.txt, from 0",
        ],
    }
    if task.detector.heads.with_masks:  # type: ignore[attr-defined]
        how["output"] += ["masks (D, M, M): probabilities inside the box"]  # type: ignore[operator]
    write_json(folder / PREPROCESSING_FILE, how)
