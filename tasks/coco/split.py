"""Images of one split of a COCO data set with their annotations, packed tightly."""

import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from tasks.coco.segmentation import unpack
from tasks.errors import TaskError
from tasks.images.files import FileNames


@dataclass(frozen=True, eq=False)
class CocoSplit:
    """Images of one split with their annotations, in the order of image ids."""

    root: Path
    """folder of the images"""
    names: FileNames
    """paths relative to `root`"""
    image_ids: np.ndarray
    """int64 (N,)"""
    sizes: np.ndarray
    """int32 (N, 2): height, width in pixels"""
    json_file: Path
    """what the split was read from"""
    num_annotations: int
    """in `json_file`"""
    left_out: np.ndarray
    """ids of the annotations that are in `json_file` but not here, int64"""
    masks: bool
    """whether the annotations have outlines, all of them; else boxes alone count"""
    objects: np.ndarray
    """annotations of each image that are no crowds, int64 (N,)"""
    packed: np.ndarray
    """annotations of all images, pickled, uint8"""
    spans: np.ndarray
    """where those of each image begin and end in `packed`, int64 (N, 2)"""

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        return self.root / self.names[index]

    def annotations(self, index: int) -> list[dict[str, Any]]:
        """The annotations of an image in the file's order.

        Each is {"label": class index; "bbox": float64 (4,), x, y, width, height in pixels, not
        clipped; "area": square pixels by which COCO calls it small, medium or large; "iscrowd":
        0 or 1; "segmentation": polygons as a list of float64 (k, 2), x, y, or run lengths that
        pycocotools decodes; None where boxes alone count}.
        """
        start, stop = self.spans[index]
        labels, crowds, boxes, areas, masks = pickle.loads(self.packed[start:stop].data)
        size = self.sizes[index].tolist()
        boxes = np.frombuffer(boxes).reshape(-1, 4)
        return [
            {
                "label": label,
                "bbox": box,
                "area": area,
                "iscrowd": crowd,
                "segmentation": None if mask is None else unpack(mask, *size),
            }
            for label, crowd, box, area, mask in zip(
                labels, crowds, boxes, np.frombuffer(areas).tolist(), masks, strict=True
            )
        ]

    def limited(self, limit: int | None) -> Self:
        """`limit` images at even distances; None: all. The annotations stay where they are."""
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise TaskError(f"limit is {limit}; expected at least 1 image")
        return self.take(np.arange(limit) * len(self) // limit)

    def take(self, rows: np.ndarray) -> Self:
        """The images at `rows`."""
        return replace(
            self,
            names=self.names.take(rows),
            image_ids=self.image_ids[rows],
            sizes=self.sizes[rows],
            objects=self.objects[rows],
            spans=self.spans[rows],
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and a model's averaged copy must not double it
