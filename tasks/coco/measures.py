"""Extent and area of outlines, measured many at a time: COCO has a million."""

import numpy as np
from pycocotools import mask as mask_api

from tasks.coco.segmentation import Packed

FLUSH_BYTES = 2**24
"""of outlines that wait to be measured together"""
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
            self.areas[rows] = mask_api.area(rles)
            self.is_rle[rows] = True
        self._rings, self._owners, self._rles, self._held = [], [], [], 0

    def _measure_rings(self) -> None:
        points = np.frombuffer(b"".join(self._rings)).reshape(-1, 2)
        counts = np.array([len(ring) // 16 for ring in self._rings])
        starts = np.cumsum(counts) - counts
        following = np.arange(1, len(points) + 1)
        following[starts + counts - 1] = starts  # the last point is followed by the first
        # About the ring's own corner, or rounding would eat small areas far from the origin.
        x, y = (points - np.repeat(points[starts], counts, axis=0)).T
        cross = x * y[following] - x[following] * y
        areas = np.abs(np.add.reduceat(cross, starts)) / 2
        owners = np.array(self._owners)
        first = np.flatnonzero(np.diff(owners, prepend=-1))
        rows = owners[first]
        self.areas[rows] = np.add.reduceat(areas, first)
        self.extents[rows, :2] = np.minimum.reduceat(points, starts[first])
        self.extents[rows, 2:] = np.maximum.reduceat(points, starts[first])
