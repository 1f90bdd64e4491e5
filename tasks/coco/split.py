"""Images of one split of a COCO data set with their annotations, packed tightly."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from tasks.coco.segmentation import unpack
from tasks.errors import TaskError
from tasks.images.files import FileNames


@dataclass(frozen=True, eq=False)
class Table:
    """Where the annotations of all images are, in arrays that processes can share.

    A: annotations in the order of their images, R: their outlines' parts.
    """

    of_image: np.ndarray
    """the first annotation of each image, and the one behind its last, int64 (N, 2)"""
    labels: np.ndarray
    """class indices, int64 (A,)"""
    crowds: np.ndarray
    """bool (A,)"""
    boxes: np.ndarray
    """x, y, width, height, float64 (A, 4)"""
    areas: np.ndarray
    """float64 (A,)"""
    run_lengths: np.ndarray
    """whether the one part of an outline is run lengths, bool (A,)"""
    first_part: np.ndarray
    """of each annotation, and R at the end, int64 (A + 1,); all 0 where boxes alone count"""
    parts: np.ndarray
    """where each part begins and ends in `CocoSplit.packed`, int64 (R, 2)"""

    @classmethod
    def empty(cls, images: int) -> Self:
        """Of images without annotations."""
        none = np.zeros(0, np.int64)
        return cls(
            of_image=np.zeros((images, 2), np.int64),
            labels=none,
            crowds=none.astype(bool),
            boxes=np.zeros((0, 4)),
            areas=np.zeros(0),
            run_lengths=none.astype(bool),
            first_part=np.zeros(1, np.int64),
            parts=np.zeros((0, 2), np.int64),
        )

    def take(self, rows: np.ndarray) -> Self:
        """That of the images at `rows`."""
        return replace(self, of_image=self.of_image[rows])


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
    """annotations of all images, uint8: pickled, since that is what fingerprints have always been
    over; nothing unpickles them, `table` tells where in them the outlines are"""
    spans: np.ndarray
    """where those of each image begin and end in `packed`, int64 (N, 2)"""
    table: Table

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
        table = self.table
        first, last = table.of_image[index].tolist()
        starts = table.first_part[first : last + 1].tolist()
        parts = table.parts[starts[0] : starts[-1]].tolist()
        begin, end = (parts[0][0], parts[-1][1]) if parts else (0, 0)
        block = self.packed[begin:end].tobytes()
        outlines = [block[low - begin : high - begin] for low, high in parts]
        size = self.sizes[index].tolist()
        columns = (table.labels, table.areas, table.crowds, table.run_lengths)
        rows = zip(*(column[first:last].tolist() for column in columns), strict=True)
        found = []
        for row, (label, area, is_crowd, is_rle) in enumerate(rows):
            mask = outlines[starts[row] - starts[0] : starts[row + 1] - starts[0]]
            found.append(
                {
                    "label": label,
                    "bbox": np.array(table.boxes[first + row]),
                    "area": area,
                    "iscrowd": int(is_crowd),
                    "segmentation": unpack(mask[0] if is_rle else mask, *size) if mask else None,
                }
            )
        return found

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
            table=self.table.take(rows),
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and a model's averaged copy must not double it
