"""Large-scale jitter of images and their instances, and the resize of the test.

The training view is that of detectron2's ViTDet loader (projects/ViTDet/configs/common/
coco_loader_lsj.py): mirror, scale, cut a square, and take boxes from what is left of the masks.
Two differences: outlines of whole numbers, which detectron2 truncates again when it scales them,
keep their fractions here; and a side is a pixel at least, where detectron2 fails. Positions are
continuous: pixel (row, column) covers [column, column + 1] x [row, row + 1].
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from PIL import Image
from pycocotools import mask as mask_api

from tasks.coco.masks import Bitmap, Mask

MIN_SIDE = 1e-5
"""pixels; instances with a smaller box are empty (detectron2, filter_empty_instances)"""


@dataclass(frozen=True)
class Jitter:
    """One training view of an image: mirror, then resize, then cut out a crop."""

    source: tuple[int, int]
    """(height, width) of the image"""
    flip: bool
    resized: tuple[int, int]
    """(height, width)"""
    offset: tuple[int, int]
    """(y, x) of the crop in the resized image"""
    size: int
    """side of the square that the crop fits in"""

    @property
    def crop(self) -> tuple[int, int]:
        """(height, width) of the crop."""
        height, width = (
            min(whole - start, self.size)
            for whole, start in zip(self.resized, self.offset, strict=True)
        )
        return height, width

    @property
    def source_box(self) -> tuple[float, float, float, float]:
        """The crop in pixels of the mirrored image: left, top, right, bottom."""
        (top, left), (h, w) = self.offset, self.crop
        rows, columns = (s / r for s, r in zip(self.source, self.resized, strict=True))
        return left * columns, top * rows, (left + w) * columns, (top + h) * rows


def draw_jitter(
    rng: np.random.Generator,
    height: int,
    width: int,
    size: int,
    scale: tuple[float, float],
    flip_prob: float,
) -> Jitter:
    """Draw whether to mirror, the scale, and one position of the crop for both axes.

    The image, enlarged or reduced to just fit a square of side `size`, is scaled by a number
    uniform in `scale`. Source: detectron2 data/transforms/augmentation_impl.py (RandomFlip,
    ResizeScale, FixedSizeCrop); a side is at least a pixel here, where it fails.
    """
    flip = rng.random() < flip_prob
    target = size * rng.uniform(*scale)
    ratio = min(target / height, target / width)
    resized = max(round(height * ratio), 1), max(round(width * ratio), 1)
    position = rng.random()
    top, left = (round(max(side - size, 0) * position) for side in resized)
    return Jitter((height, width), flip, resized, (top, left), size)


def jitter_image(pixels: np.ndarray, plan: Jitter) -> np.ndarray:
    """The crop of an image uint8 (H, W, 3), as uint8 (h, w, 3).

    Resizes no more than the crop, as Pillow does the whole, give or take a grey level.
    """
    image = Image.fromarray(pixels)
    if plan.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    height, width = plan.crop
    # Rounding must not carry the box over the border, which Pillow refuses.
    left, top, right, bottom = plan.source_box
    box = (left, top, min(right, image.width), min(bottom, image.height))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box))


def pad(pixels: np.ndarray, size: int) -> np.ndarray:
    """An image uint8 (h, w, 3) in the upper left corner of zeros (3, size, size).

    A view with channels last in memory.
    """
    canvas = np.zeros((size, size, 3), dtype=np.uint8)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    return canvas.transpose(2, 0, 1)


def jitter_instances(
    annotations: list[dict[str, Any]], plan: Jitter
) -> tuple[np.ndarray, np.ndarray, list[Mask]]:
    """What is seen in the crop of the things in `annotations`, as `CocoSplit.annotations` has it.

    Returns boxes float32 (n, 4), x1, y1, x2, y2, in pixels of the crop; class indices int64 (n,);
    masks, none where boxes alone count. Crowds are no instances. Source: detectron2
    data/dataset_mapper.py with recompute_boxes, data/detection_utils.py (filter_empty_instances).
    """
    things = [each for each in annotations if not each["iscrowd"]]
    if any(each["segmentation"] is None for each in things):
        return *jitter_boxes(things, plan), []
    outlined = [each["segmentation"] for each in things if isinstance(each["segmentation"], list)]
    polygons = iter(jitter_polygons(outlined, plan))
    masks: list[Mask] = []
    found = []
    for each in things:
        if isinstance(each["segmentation"], dict):
            bitmap = jitter_bitmap(each["segmentation"], plan)
            found.append(mask_box(bitmap))
            masks.append(Bitmap.of(bitmap))
        else:
            masks.append(next(polygons))
            found.append(mask_box(masks[-1]))
    boxes = np.array(found, dtype=np.float32).reshape(-1, 4)
    labels = np.array([each["label"] for each in things], dtype=np.int64)
    kept = ((boxes[:, 2:] - boxes[:, :2]) > MIN_SIDE).all(axis=1)
    return boxes[kept], labels[kept], [masks[row] for row in np.flatnonzero(kept)]


def jitter_boxes(things: list[dict[str, Any]], plan: Jitter) -> tuple[np.ndarray, np.ndarray]:
    """What is left in the crop of boxes without outlines, and their class indices.

    Source: detectron2 data/detection_utils.py (transform_instance_annotations).
    """
    given = np.array([each["bbox"] for each in things]).reshape(-1, 4)
    corners = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], axis=1)
    if plan.flip:
        corners[:, [0, 2]] = plan.source[1] - corners[:, [2, 0]]
    corners *= np.tile(np.divide(plan.resized, plan.source)[::-1], 2)
    top, left = plan.offset
    height, width = plan.crop
    corners = np.clip(corners - [left, top] * 2, 0, [width, height] * 2)
    labels = np.array([each["label"] for each in things], dtype=np.int64)
    boxes = corners.astype(np.float32)
    kept = ((boxes[:, 2:] - boxes[:, :2]) > MIN_SIDE).all(axis=1)
    return boxes[kept], labels[kept]


def jitter_polygons(instances: list[list[np.ndarray]], plan: Jitter) -> list[list[np.ndarray]]:
    """The polygons of each instance, cut to the square of the crop, in its coordinates.

    A polygon may fall into several, or vanish. Crossing outlines are repaired by a buffer of no
    width, and holes that come about are filled: fvcore, transforms/transform.py
    (CropTransform.apply_polygons). All polygons of an image go through shapely in one call.
    """
    rings = [ring for polygons in instances for ring in polygons]
    found: list[list[np.ndarray]] = [[] for _ in instances]
    if not rings:
        return found
    of_instance = np.repeat(np.arange(len(instances)), [len(each) for each in instances])
    of_ring = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    points = np.concatenate(rings)
    if plan.flip:
        points[:, 0] = plan.source[1] - points[:, 0]
    points *= np.divide(plan.resized, plan.source)[::-1]
    whole = shapely.buffer(shapely.polygons(shapely.linearrings(points, indices=of_ring)), 0.0)
    top, left = plan.offset
    square = shapely.box(left, top, left + plan.size, top + plan.size)
    parts, of_whole = shapely.get_parts(shapely.intersection(whole, square), return_index=True)
    usable = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & shapely.is_valid(parts)
    usable &= ~shapely.is_empty(parts)
    outlines = shapely.get_exterior_ring(parts[usable])
    corners = shapely.get_coordinates(outlines) - (left, top)
    counts = shapely.get_num_coordinates(outlines)
    ends = np.cumsum(counts)
    starts = ends - counts
    for instance, start, end in zip(of_instance[of_whole[usable]], starts, ends, strict=True):
        found[instance].append(corners[start : end - 1])  # the last point is the first again
    return found


def jitter_bitmap(rle: dict[str, Any], plan: Jitter) -> np.ndarray:
    """Run lengths as a bool (h, w) mask of the crop, resized to the nearest pixel."""
    mask = mask_api.decode(rle)
    if plan.flip:
        mask = mask[:, ::-1]
    rows, columns = (
        nearest(source, resized)[start : start + length]
        for source, resized, start, length in zip(
            plan.source, plan.resized, plan.offset, plan.crop, strict=True
        )
    )
    return mask[np.ix_(rows, columns)].astype(bool)


def nearest(source: int, resized: int) -> np.ndarray:
    """The pixel that each of `resized` takes of a row of `source`, by Pillow's own rounding."""
    row = Image.fromarray(np.arange(source, dtype=np.int32)[None])
    return np.asarray(row.resize((resized, 1), Image.Resampling.NEAREST))[0]


def mask_box(mask: Mask) -> tuple[float, float, float, float]:
    """The smallest box around a mask, x1, y1, x2, y2; zeros if it is empty.

    Of a bitmap, from the first pixel to beyond the last one; detectron2 structures/masks.py.
    """
    if not isinstance(mask, list):
        mask = np.asarray(mask)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return 0, 0, 0, 0
        return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    if not mask:
        return 0, 0, 0, 0
    points = np.concatenate(mask)
    return *points.min(axis=0), *points.max(axis=0)


def fitted_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) of an image resized for a square of side `size`.

    The shorter side becomes `size` unless the longer one would exceed it: detectron2
    data/transforms/augmentation_impl.py (ResizeShortestEdge.get_output_shape), a side being at
    least a pixel.
    """
    ratio = size / min(height, width)
    h, w = (size, ratio * width) if height < width else (ratio * height, size)
    if max(h, w) > size:
        shrink = size / max(h, w)
        h, w = h * shrink, w * shrink
    return max(int(h + 0.5), 1), max(int(w + 0.5), 1)


def resize_for_test(image: np.ndarray, size: int) -> np.ndarray:
    """An image uint8 (H, W, 3) resized to fit a square, uint8 (3, h, w), channels last in memory.

    Bilinear, by Pillow.
    """
    height, width = fitted_size(image.shape[0], image.shape[1], size)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized).transpose(2, 0, 1)
