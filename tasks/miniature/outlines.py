"""From drawn masks to COCO's annotations: polygons, boxes, areas, run lengths."""

import math
from itertools import pairwise

import numpy as np
from contourpy import FillType, contour_generator

Points = np.ndarray
"""(N, 2) float64: x, y in pixels from the image's upper left corner; a ring, not closed"""

MIN_AREA = 4.0
"""square pixels; smaller parts of a thing get no polygon"""


def polygons(visible: np.ndarray) -> list[Points]:
    """Trace a soft mask (H, W) at one half: a ring per connected part.

    COCO's polygons know no holes; a hole is cut open to the outline by a slit of no width.
    """
    padded = np.pad(visible, 1)
    # Pixel centres are at .5; the padding adds one pixel on each side.
    axes = [np.arange(length) - 0.5 for length in padded.shape]
    contours = contour_generator(axes[1], axes[0], padded, fill_type=FillType.OuterOffset)
    parts = []
    for points, offsets in zip(*contours.filled(0.5, 2.0), strict=True):
        rings = [simplify(points[start : stop - 1]) for start, stop in pairwise(offsets)]
        outer, *holes = (np.round(ring, 2) for ring in rings)
        for hole in holes:
            if len(hole) > 2:
                outer = _cut_open(outer, hole)
        if len(outer) > 2 and area(outer) >= MIN_AREA:
            parts.append(outer)
    return parts


def simplify(ring: Points, tolerance: float = 0.2) -> Points:
    """Leave out points as long as none is farther than `tolerance` pixels from what remains.

    Douglas and Peucker (1973), from the first point to the one farthest from it and back.
    """
    far = int(np.argmax(((ring - ring[0]) ** 2).sum(axis=1)))
    closed = np.vstack([ring, ring[:1]])
    kept = {0, far}
    spans = [(0, far), (far, len(ring))]
    while spans:
        start, stop = spans.pop()
        if stop - start < 2:
            continue
        chord = closed[stop] - closed[start]
        offsets = closed[start + 1 : stop] - closed[start]
        across = np.abs(offsets[:, 0] * chord[1] - offsets[:, 1] * chord[0])
        length = math.hypot(*chord)
        distances = across / length if length > 0 else np.hypot(*offsets.T)
        worst = int(np.argmax(distances))
        if distances[worst] > tolerance:
            middle = start + 1 + worst
            kept.add(middle)
            spans += [(start, middle), (middle, stop)]
    return ring[sorted(kept)]


def _cut_open(outer: Points, hole: Points) -> Points:
    """One ring that runs around `outer`, and at its nearest point around `hole` and back."""
    gaps = ((outer[:, None] - hole[None]) ** 2).sum(axis=2)
    i, j = np.unravel_index(np.argmin(gaps), gaps.shape)
    around = np.vstack([hole[j:], hole[: j + 1]])
    return np.vstack([outer[: i + 1], around, outer[i:]])


def area(ring: Points) -> float:
    """Square pixels inside; holes that were cut open do not count."""
    x, y = ring.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def box(points: Points) -> list[float]:
    """Smallest [x, y, width, height] around points (N, 2)."""
    low, high = points.min(axis=0), points.max(axis=0)
    return [round(float(value), 2) for value in (*low, *(high - low))]


def mask_box(mask: np.ndarray) -> list[float]:
    """Smallest [x, y, width, height] around a boolean mask (H, W) that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return box(np.array([(columns[0], rows[0]), (columns[-1] + 1, rows[-1] + 1)], float))


def run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed RLE: lengths of runs down the columns, the first of them of zeros."""
    flat = np.concatenate([[0], mask.T.ravel().astype(np.int8), [0]])
    changes = np.flatnonzero(np.diff(flat))
    ends = np.concatenate([[0], changes, [mask.size]])
    counts = np.diff(ends).tolist()
    if counts[-1] == 0:
        counts.pop()
    return {"counts": counts, "size": list(mask.shape)}
