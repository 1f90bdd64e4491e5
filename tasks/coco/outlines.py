"""The outlines of one annotation file: packed, measured, and judged as a whole."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from pycocotools import mask as mask_api

from tasks.coco.crosscheck import MOST
from tasks.coco.measures import Measures
from tasks.coco.notes import Notes
from tasks.coco.pickled import Written
from tasks.coco.rings import Rings
from tasks.coco.segmentation import FAULTS, NO_SEGMENTATION, Packed, likeness, pack
from tasks.coco.tables import Tables
from tasks.errors import TaskError

DECODER = msgspec.json.Decoder()
AT_ONCE = 4096
"""annotations whose outlines are numbers in Python at a time"""
LIKENESSES = 1000
"""faulty segmentations that are looked at for what they look like"""


@dataclass(eq=False)
class Outlines:
    """What became of the segmentations of a file, by row of the annotation."""

    written: Written
    faults: np.ndarray
    """text (A,); "" where there is an outline"""
    measures: Measures

    @property
    def found(self) -> np.ndarray:
        """Whether there is an outline, bool (A,)."""
        return self.faults == ""

    def pixels(self, row: int, height: int, width: int) -> float:
        """Pixels inside the outline of an annotation, as pycocotools counts them; 0: no outline."""
        mask: Any = self.written.outline(row)
        if mask is None:
            return 0.0
        if isinstance(mask, list):
            rings = [np.frombuffer(ring).tolist() for ring in mask]
            return float(mask_api.area(mask_api.merge(mask_api.frPyObjects(rings, height, width))))
        return float(mask_api.area({"size": [height, width], "counts": mask}))


def read_outlines(split: str, tables: Tables, notes: Notes) -> Outlines:
    """Pack the outlines of a file, which leaves `tables.segmentations` empty.

    Raises TaskError where most of those given are of another kind than COCO's, with the kind.
    """
    count = len(tables.ids)
    found = Outlines(Written(count), np.full(count, "", dtype=object), Measures(count))
    dropped: dict[int, int] = {}
    likenesses: Counter[str] = Counter()
    for start in range(0, count, AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, count))
        values = tables.segmentations[start : start + len(rows)]
        tables.segmentations[start : start + len(rows)] = [None] * len(rows)
        sizes = tables.sizes[tables.images[rows]]
        odd: dict[int, Any] = {}
        rings, measured = Rings.of(map(decoded, values), odd).ordinary(sizes)
        found.measures.set(start + rings.rows, measured)
        found.written.add(start + rings.rows, rings.counts, rings.parts())
        others: dict[int, Packed] = {}
        for row in np.setdiff1d(rows - start, rings.rows).tolist():
            value = odd[row] if row in odd else decoded(values[row])
            size = sizes[row].tolist()
            mask, found.faults[start + row], fewer = pack(value, *size)
            if mask is None:
                fault = found.faults[start + row]
                if fault != NO_SEGMENTATION and likenesses.total() < LIKENESSES:
                    likenesses[likeness(value, *size) or fault] += 1
                continue
            if fewer:
                dropped[start + row] = fewer
            others[start + row] = mask
            found.measures.add(start + row, mask, *size)
        found.written.add_each(others)
    tables.segmentations.clear()
    found.measures.flush()
    refuse_faulty(tables, found.faults, likenesses)
    reason = f"{split} polygons with fewer than three points"
    notes.add(reason, tables.ids[list(dropped)], sum(dropped.values()))
    return found


def decoded(value: Any) -> Any:
    """A segmentation that may still be JSON."""
    return DECODER.decode(value) if type(value) is msgspec.Raw else value


def refuse_faulty(tables: Tables, faults: np.ndarray, likenesses: Counter[str]) -> None:
    """Raise TaskError if half of the segmentations that are given, or more, are of no use."""
    given = faults != NO_SEGMENTATION
    faulty = np.flatnonzero(given & (faults != ""))
    if not len(faulty) or len(faulty) < MOST * given.sum():
        return
    (kind, _), *_ = likenesses.most_common(1)
    what = f"look like {kind}" if kind not in FAULTS else f"are of no use, as {kind}"
    raise TaskError(
        f"{tables.path}: {len(faulty):,} of {given.sum():,} segmentations {what} (annotation "
        f"{tables.ids[faulty[0]]})"
    )
