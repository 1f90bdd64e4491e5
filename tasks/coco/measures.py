"""Extent and area of outlines, measured many at a time: COCO has a million."""

import numpy as np
from pycocotools import mask as mask_api

from tasks.coco.rings import Measured, Rings, measure
from tasks.coco.segmentation import Packed

FLUSH_BYTES = 2**24
"""of outlines that wait to be measured together"""
AT_ONCE = 255
"""run lengths of which pycocotools 2.0.11 takes the areas in one call: it counts them in a byte"""
SAMPLED = 30
"""run lengths that are kept for a closer look"""
SAMPLED_PIXELS = 2**24
""" of an image, at most, for that"""


class Measures:
    """Extents and areas of a file's outlines by row of the annotation."""

    def __init__(self, count: int) -> None:
        self.extents = np.full((count, 4), np.nan)
        """x1, y1, x2, y2 of each outline, float64 (A, 4); NaN where there is none"""
        self.areas = np.full(count, np.nan)
        """square pixels inside each, float64 (A,); loops of one polygon may cancel out"""
        self.is_rle = np.zeros(count, dtype=bool)
        """whether an outline is run lengths, bool (A,)"""
        self.sampled: list[tuple[int, dict]] = []
        """a few (row, run lengths) as pycocotools has them"""
        self._rings: list[bytes] = []
        self._owners: list[int] = []
        self._held = 0
        self._rles: list[tuple[int, dict]] = []

    def add(self, row: int, packed: Packed, height: int, width: int) -> None:
        """Take the outline of the annotation `row`, in an image of that size."""
        if isinstance(packed, bytes):
            self._rles.append((row, {"size": [height, width], "counts": packed}))
            if len(self.sampled) < SAMPLED and height * width <= SAMPLED_PIXELS:
                self.sampled.append(self._rles[-1])
            self._held += len(packed)
        else:
            self._rings += packed
            self._owners += [row] * len(packed)
            self._held += sum(map(len, packed))
        if self._held >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Measure what waits."""
        if self._rings:
            self._measure_rings()
        if self._rles:
            rows = [row for row, _ in self._rles]
            rles = [rle for _, rle in self._rles]
            boxes = mask_api.toBbox(rles).reshape(-1, 4)
            self.extents[rows] = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
            self.areas[rows] = np.concatenate(
                [mask_api.area(rles[at : at + AT_ONCE]) for at in range(0, len(rles), AT_ONCE)]
            )
            self.is_rle[rows] = True
        self._rings, self._owners, self._rles, self._held = [], [], [], 0

    def set(self, rows: np.ndarray, found: Measured) -> None:
        """Take what was measured of the outlines of the annotations `rows`."""
        self.extents[rows] = found.extents
        self.areas[rows] = found.areas

    def _measure_rings(self) -> None:
        numbers = np.frombuffer(b"".join(self._rings))
        lengths = np.array([len(ring) // 8 for ring in self._rings])
        rows, counts = np.unique(self._owners, return_counts=True)
        self.set(rows, measure(Rings(numbers, lengths, counts, rows)))
