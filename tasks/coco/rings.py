"""Ordinary polygons of many annotations at once: looked at, measured and packed in arrays.

What is odd about any of them is left to `segmentation.pack`, which looks at one at a time.
"""

from array import array
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np

from tasks.coco.segmentation import FARTHEST, LONGEST, MOST_POINTS, TANGLES_FROM

SURE_AREA, SURE_SHARE = 1e-3, 1e-12
"""square pixels, and share of the square that polygons may reach over: an area of more than this,
however it is summed up, is more than `segmentation.MIN_AREA`"""


class Rings(NamedTuple):
    """Polygons as one array. R: polygons, V: values that have some."""

    numbers: np.ndarray
    """x0, y0, x1, y1, ... of one after the other, float64"""
    lengths: np.ndarray
    """how many numbers each has, int64 (R,)"""
    counts: np.ndarray
    """polygons of each value, int64 (V,)"""
    rows: np.ndarray
    """which of the values these are, int64 (V,)"""

    @classmethod
    def of(cls, values: Iterable[Any], others: dict[int, Any] | None = None) -> Self:
        """Of the segmentations among `values` that are lists of lists of numbers.

        Those may be made while they are asked for, and are not held: numbers that are freed at once
        stay in the processor's cache. `others` gets the rest, by row.
        """
        rest = {} if others is None else others
        numbers = array("d")
        rows: list[int] = []
        lengths: list[int] = []
        counts: list[int] = []
        add, note = numbers.fromlist, lengths.append
        for row, value in enumerate(values):
            if type(value) is not list or not value:
                rest[row] = value
                continue
            held, before = len(numbers), len(lengths)
            try:
                for polygon in value:
                    add(polygon)
                    note(len(polygon))
            except (TypeError, OverflowError):
                del numbers[held:], lengths[before:]
                rest[row] = value
                continue
            rows.append(row)
            counts.append(len(value))
        made = (np.array(each, dtype=np.int64) for each in (lengths, counts, rows))
        return cls(np.frombuffer(numbers) if len(numbers) else np.zeros(0), *made)

    def take(self, kept: np.ndarray) -> Self:
        """Those of some of the values; `kept`: bool (V,)."""
        if kept.all():
            return self
        rings = np.repeat(kept, self.counts)
        numbers = self.numbers[np.repeat(rings, self.lengths)]
        return type(self)(numbers, self.lengths[rings], self.counts[kept], self.rows[kept])

    def ordinary(self, sizes: np.ndarray) -> "tuple[Self, Measured]":
        """Those that `pack` would take as they are, in images of `sizes` (n, 2), and measured."""
        farthest = FARTHEST * sizes.max(axis=1)
        longest = np.minimum(TANGLES_FROM, LONGEST / (2 * farthest))
        most = np.repeat(longest[self.rows], self.counts)
        bad = (self.lengths < 6) | (self.lengths > most) | (self.lengths % 2 > 0)
        first = np.cumsum(self.counts) - self.counts
        fine = ~np.logical_or.reduceat(bad, first) if len(first) else np.zeros(0, bool)
        fine &= np.add.reduceat(self.lengths, first) <= 2 * MOST_POINTS if len(first) else fine
        rings = self.take(fine)
        found = measure(rings)
        reach = np.abs(found.extents).max(axis=1)
        far = farthest[rings.rows]
        fine = (reach <= far) & (found.areas > SURE_AREA + SURE_SHARE * far**2)
        return rings.take(fine), Measured(found.extents[fine], found.areas[fine])

    def parts(self) -> list[bytes]:
        """Each polygon as in `segmentation.Packed`."""
        block = self.numbers.tobytes()
        ends = (8 * np.cumsum(self.lengths)).tolist()
        return [block[start:end] for start, end in pairwise([0, *ends])]


class Measured(NamedTuple):
    """Of each value."""

    extents: np.ndarray
    """x1, y1, x2, y2, float64 (V, 4)"""
    areas: np.ndarray
    """square pixels inside its polygons, float64 (V,); loops of one polygon may cancel out"""


def measure(rings: Rings) -> Measured:
    """Extents and areas of polygons of three points at least."""
    if not len(rings.rows):
        return Measured(np.zeros((0, 4)), np.zeros(0))
    points = rings.numbers.reshape(-1, 2)
    counts = rings.lengths // 2
    starts = np.cumsum(counts) - counts
    following = np.arange(1, len(points) + 1)
    following[starts + counts - 1] = starts  # the last point is followed by the first
    with np.errstate(invalid="ignore", over="ignore"):
        # About the ring's own corner, or rounding would eat small areas far from the origin.
        x, y = (points - np.repeat(points[starts], counts, axis=0)).T
        cross = x * y[following] - x[following] * y
        areas = np.abs(np.add.reduceat(cross, starts)) / 2
    first = np.cumsum(rings.counts) - rings.counts
    low = np.minimum.reduceat(points, starts[first])
    high = np.maximum.reduceat(points, starts[first])
    return Measured(np.concatenate([low, high], axis=1), np.add.reduceat(areas, first))
