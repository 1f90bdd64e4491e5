"""Fields of annotations that must agree: box, outline, area and image, compared for all at once.

Where most of a file disagree, the file means something else than it says, and is refused with the
likely cause; where a few do, they are counted and named. A: annotations.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_api

from tasks.coco.measures import Measures
from tasks.coco.notes import Notes
from tasks.coco.tables import Tables
from tasks.errors import TaskError

NEAR = 2.0
"""pixels that an edge may lie off, for rounding and for boxes that count the last pixel"""
NEAR_SHARE = 0.1
"""or this share of the outline's side"""
MOST = 0.5
"""share of a file's annotations from which on it, and not some of them, is at fault"""
EXPLAINED = 0.9
"""share of those at odds that a cause must make agree, to be named"""
AREA_FACTOR = 2.0
"""an area differs that is so many times larger or smaller than the outline"""
SMALL_AREA = 64.0
"""square pixels below which areas are not compared: rounding makes up much of them"""
SOME = 0.05
"""share of many boxes that must leave their images before another meaning, by which none does, is
taken for theirs"""
CORNER = 0.6
"""share of the images' sides beyond which something lies if there are many things"""
FEW = 3
"""annotations at odds from which on a note names a cause"""
MANY = 20
"""annotations that chance alone would not place all in one way"""
SCALES = (1, 100, 1000)
"""what coordinates are normalised to by different tools"""

Boxes = np.ndarray
"""x1, y1, x2, y2, float64 (A, 4)"""
BOX = "expected x, y, width, height in pixels"


def cross_check(split: str, tables: Tables, measures: Measures, notes: Notes) -> None:
    """Compare the fields of one file. Raises TaskError where most disagree; notes the others."""
    sizes = tables.sizes[tables.images].astype(np.float64)
    image = np.concatenate([sizes[:, ::-1], sizes[:, ::-1]], axis=1)  # width, height, twice
    check = Checked(split, tables, measures.extents, image, notes)
    check.run_lengths_alone(measures)
    check.outlines_in_images()
    check.boxes_on_outlines(measures)
    check.boxes_in_images()
    if split == "val":
        check.areas(measures.areas)


class Checked:
    """One file's columns while they are compared."""

    def __init__(
        self, split: str, tables: Tables, extents: Boxes, image: np.ndarray, notes: Notes
    ) -> None:
        self.split = split
        self.path: Path = tables.path
        self.ids = tables.ids
        self.raw = tables.boxes
        self.given = tables.areas
        self.extents = extents
        self.image = image
        self.notes = notes
        self.outlined = np.isfinite(extents).all(axis=1)
        self.boxed = np.isfinite(self.raw).all(axis=1)

    def refuse(self, rows: np.ndarray, of: int, what: str, cause: str, fix: str) -> None:
        """Raise TaskError about the annotations `rows`, some of `of`."""
        row = rows[0]
        box, outline = (text(part[row]) for part in (self.raw, self.extents))
        shown = f"box {box}" if self.boxed[row] else "no box"
        if self.outlined[row]:
            shown += f", outline from {outline}"
        width, height = self.image[row, :2].astype(int)
        raise TaskError(
            f"{self.path}: {len(rows):,} of {of:,} {what}, for example annotation {self.ids[row]} "
            f"({shown}, image {width} x {height}){f': {cause}' if cause else ''}; {fix}"
        )

    def run_lengths_alone(self, measures: Measures) -> None:
        """Run lengths without a box to compare that are in pieces, but whole if read by rows."""
        rows = [(row, rle) for row, rle in measures.sampled if not self.boxed[row]]
        better = [2 * edges(by_rows(rle)) < edges(mask_api.decode(rle)) for _, rle in rows]
        if len(rows) >= FEW and mostly(np.array(better)):
            found = np.flatnonzero(measures.is_rle & ~self.boxed)
            fix = "expected pixels down the columns: convert them"
            self.refuse(found, len(found), "run lengths are scattered", ROWS, fix)

    def outlines_in_images(self) -> None:
        """Outlines that lie outside their image, or in its first pixel."""
        rows = np.flatnonzero(self.outlined)
        extents, image = self.extents[rows], self.image[rows]
        tiny = rows[(np.abs(extents) <= 1.001).all(axis=1) & (image[:, :2] > 8).all(axis=1)]
        if most(tiny, rows):
            cause = "they look normalised to 1"
            self.refuse(tiny, len(rows), "outlines", cause, "expected pixels: multiply them")
        near = np.maximum(NEAR, 0.05 * image)
        over = outside(extents, image, near)
        if most(rows[over], rows):
            swapped = ~outside(extents[over][:, [1, 0, 3, 2]], image[over], near[over])
            cause = "they look like y, x instead of x, y" if mostly(swapped) else RESOLUTION
            fix = "expected x, y in pixels of the image: convert them"
            self.refuse(rows[over], len(rows), "outlines lie outside their image", cause, fix)
        self.percent("outlines", rows, extents[:, 2:], image)
        what = f"{self.split} outlines partly outside the image (kept)"
        self.notes.add(what, self.ids[rows[over]])

    def boxes_on_outlines(self, measures: Measures) -> None:
        """Boxes that are not around their outlines."""
        rows = np.flatnonzero(self.boxed & self.outlined)
        if not len(rows):
            return
        raw, extents, image = self.raw[rows], self.extents[rows], self.image[rows]
        plain = corners_of(raw)
        odd = ~fits(plain, extents)
        if not odd.any():
            return
        cause = explain(raw[odd], extents[odd], image[odd])
        if not cause and transposed(self, rows[odd], measures):
            cause = ROWS
        wrong = odd & (overlap(plain, extents) < 0.5)
        if odd.mean() >= MOST and (cause or wrong.mean() >= MOST):
            found = rows[odd] if cause else rows[wrong]
            what, fix = "boxes do not fit their outlines", f"{BOX}: convert them"
            if "run lengths" in cause or cause.startswith("the outlines"):
                fix = "expected both in pixels of the image: convert them"
            self.refuse(found, len(rows), what, cause, fix)
        looks = f": {cause}" if cause and odd.sum() >= FEW else ""
        what = f"{self.split} boxes that do not fit their outlines (kept{looks})"
        inside = (raw[:, 2:] > 0).all(axis=1) & (plain[:, 2:] > 0).all(axis=1)
        inside &= (raw[:, :2] < image[:, :2]).all(axis=1)  # others are left out
        self.notes.add(what, self.ids[rows[odd & inside]])

    def boxes_in_images(self) -> None:
        """Boxes that have no outline to compare: against the image, and against their area."""
        rows = np.flatnonzero(self.boxed & ~self.outlined)
        if not len(rows):
            return
        raw, image, area = self.raw[rows], self.image[rows], self.given[rows]
        large = (image[:, :2] > 8).all(axis=1)
        tiny = (np.abs(raw) <= 1.001).all(axis=1) & large
        if most(rows[tiny], rows):
            cause = "they look normalised to 1"
            self.refuse(rows[tiny], len(rows), "boxes", cause, f"{BOX}: multiply them")
        over = outside(corners_of(raw), image, np.maximum(NEAR, 0.05 * image))
        ordered = (raw[:, 2:] > raw[:, :2]).all(axis=1)
        as_corners = ordered & ~outside(raw, image, np.full_like(image, NEAR))
        as_centre = ~outside(centred(raw), image, np.full_like(image, NEAR))
        fix = f"{BOX}: convert them"
        a_bit = outside(corners_of(raw), image, np.full_like(image, NEAR))
        sure = len(rows) >= MANY and a_bit.mean() >= SOME
        if most(rows[over], rows) or sure:
            cause = ""
            if as_corners.mean() >= (EXPLAINED if not sure else 1.0):
                cause = CORNERS
            elif as_centre.mean() >= (EXPLAINED if not sure else 1.0):
                cause = CENTRE
            if cause or most(rows[over], rows):
                what = "boxes lie outside their image"
                self.refuse(rows[a_bit], len(rows), what, cause or RESOLUTION, fix)
        known = np.isfinite(area) & (area > SMALL_AREA)
        plain_area = raw[:, 2] * raw[:, 3]
        corner_area = np.prod(raw[:, 2:] - raw[:, :2], axis=1)
        by_corners = known & ordered & near_equal(area, corner_area)
        wrong = known & ~near_equal(area, plain_area)
        if known.any() and wrong.sum() >= MOST * known.sum() and mostly(by_corners[wrong]):
            what = "boxes do not have the area given with them"
            self.refuse(rows[wrong], len(rows), what, CORNERS, fix)
        self.percent("boxes", rows, raw[:, :2] + raw[:, 2:], image)

    def percent(self, what: str, rows: np.ndarray, ends: np.ndarray, image: np.ndarray) -> None:
        """Refuse many things that fill 0 to 100, or 0 to 1000, of images that are all larger.

        Notes many that lie in one corner of their images.
        `ends` (A, 2): how far each reaches to the right and down.
        """
        if len(rows) < MANY:
            return
        if ((ends / image[:, :2]).max(axis=0) < CORNER).all():
            corner = (
                f"{self.split} {what}, all in the upper left of their images (kept; {RESOLUTION})"
            )
            self.notes.add(corner, self.ids[rows])
        reach = ends.max(axis=0)
        for scale in SCALES[1:]:
            full = (reach <= scale * 1.005).all() and (reach >= scale * 0.9).all()
            if full and (image[:, :2] > 1.5 * scale).all():
                fix = "expected pixels: multiply them"
                self.refuse(rows, len(rows), what, f"they look normalised to {scale}", fix)

    def areas(self, measured: np.ndarray) -> None:
        """Note given areas at odds with outline or box; they decide what is small and large."""
        own = np.where(np.isfinite(measured), measured, self.raw[:, 2] * self.raw[:, 3])
        with np.errstate(invalid="ignore"):
            known = (self.given > 0) & (self.given <= self.image[:, 0] * self.image[:, 1])
            known &= np.maximum(own, self.given) > SMALL_AREA
            odd = known & ((self.given > AREA_FACTOR * own) | (own > AREA_FACTOR * self.given))
        self.notes.add(
            f"{self.split} areas at odds with the outline or box (kept; COCO takes from them what "
            "is small, medium and large)",
            self.ids[odd],
        )


CORNERS = "they look like corners x1, y1, x2, y2"
CENTRE = "they look like centre x, centre y, width, height (YOLO)"
ROWS = "the run lengths look like rows; COCO's go down the columns"
RESOLUTION = "was another resolution annotated?"


def corners_of(raw: np.ndarray) -> Boxes:
    """COCO's x, y, width, height as corners."""
    return np.concatenate([raw[:, :2], raw[:, :2] + raw[:, 2:]], axis=1)


def centred(raw: np.ndarray) -> Boxes:
    return np.concatenate([raw[:, :2] - raw[:, 2:] / 2, raw[:, :2] + raw[:, 2:] / 2], axis=1)


READINGS: tuple[tuple[str, Callable[[np.ndarray], Boxes]], ...] = (
    (CORNERS, lambda raw: raw),
    (CENTRE, centred),
    ("they look like y, x, height, width", lambda raw: corners_of(raw[:, [1, 0, 3, 2]])),
    ("they look like corners y1, x1, y2, x2", lambda raw: raw[:, [1, 0, 3, 2]]),
    ("they look like x1, x2, y1, y2", lambda raw: raw[:, [0, 2, 1, 3]]),
)
"""other meanings of four numbers"""


def explain(raw: np.ndarray, extents: Boxes, image: np.ndarray) -> str:
    """What else boxes may mean that do not fit their outlines, or outlines; "" if nothing does."""
    for cause, reading in READINGS:
        if mostly(alike(reading(raw), extents)):
            return cause
    for scale in SCALES:
        grown = raw * image / scale
        for meaning, reading in (("", corners_of), *READINGS):
            if mostly(alike(reading(grown), extents)):
                also = f" and to be {meaning.removeprefix('they look like ')}" if meaning else ""
                return f"they look normalised to {scale}{also}"
        if mostly(alike(corners_of(raw), extents * image / scale)):
            return f"the outlines look normalised to {scale}"
    if mostly(alike(corners_of(raw), extents[:, [1, 0, 3, 2]])):
        return "the outlines look like y, x instead of x, y"
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.median(raw[:, 2:] / (extents[:, 2:] - extents[:, :2]), axis=0)
    known = np.isfinite(ratio).all() and (ratio > 0).all()
    if known and mostly(alike(corners_of(raw) / np.tile(ratio, 2), extents)):
        times = " and ".join(dict.fromkeys(f"{each:.3g}" for each in ratio))
        return f"they are {times} times as large; {RESOLUTION}"
    return ""


def fits(boxes: Boxes, extents: Boxes) -> np.ndarray:
    """Whether each edge lies near that of the outline, bool (A,)."""
    sides = extents[:, 2:] - extents[:, :2]
    near = np.maximum(NEAR, NEAR_SHARE * np.tile(sides, 2))
    return (np.abs(boxes - extents) <= near).all(axis=1)


def alike(boxes: Boxes, extents: Boxes) -> np.ndarray:
    """As `fits`, but small ones must fit as well: scaled down far enough, anything is near."""
    sides = np.abs(extents[:, 2:] - extents[:, :2])
    near = np.maximum(np.minimum(NEAR, sides / 4), NEAR_SHARE * sides)
    return (np.abs(boxes - extents) <= np.tile(near, 2)).all(axis=1)


def overlap(first: Boxes, second: Boxes) -> np.ndarray:
    """Intersection over union of each pair, (A,)."""
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = sum(
        np.clip(each[:, 2:] - each[:, :2], 0, None).prod(axis=1) for each in (first, second)
    )
    return shared / np.maximum(areas - shared, 1e-9)


def outside(boxes: Boxes, image: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Whether boxes reach further than `near` out of the image, bool (A,)."""
    low, high = boxes[:, :2] < -near[:, :2], boxes[:, 2:] > (image + near)[:, 2:]
    return low.any(axis=1) | high.any(axis=1)


def near_equal(area: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(area - other) <= 0.1 * np.abs(area)


def most(part: np.ndarray, whole: np.ndarray) -> bool:
    """Whether `part` is half of `whole` or more, and anything at all."""
    return len(part) > 0 and len(part) >= MOST * len(whole)


def mostly(flags: np.ndarray) -> bool:
    return len(flags) > 0 and float(flags.mean()) >= EXPLAINED


def text(numbers: np.ndarray) -> str:
    return ", ".join(f"{number:.6g}" for number in numbers)


def transposed(check: Checked, odd: np.ndarray, measures: Measures) -> bool:
    """Whether run lengths of the annotations `odd`, read along the rows, fit the boxes."""
    found = []
    for row, rle in measures.sampled:
        if row not in odd:
            continue
        x, y, w, h = mask_api.toBbox(mask_api.encode(np.asfortranarray(by_rows(rle))))
        found.append(fits(corners_of(check.raw[[row]]), np.array([[x, y, x + w, y + h]]))[0])
    return mostly(np.array(found))


def by_rows(rle: dict) -> np.ndarray:
    """What run lengths mean if they go along the rows, uint8 (height, width)."""
    height, width = rle["size"]
    return mask_api.decode(rle).T.reshape(height, width)


def edges(mask: np.ndarray) -> int:
    """Neighbours of which one alone is inside."""
    return int(sum(np.count_nonzero(np.diff(mask, axis=axis)) for axis in (0, 1)))
