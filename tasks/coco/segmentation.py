"""COCO's segmentations: checked, packed into bytes, and unpacked.

A segmentation is polygons, [[x0, y0, x1, y1, ...], ...] in pixels from the upper left corner, or
run lengths down the columns of the image, {"size": [height, width], "counts": ...}, as a list or
as pycocotools' string.
"""

import math
from array import array
from typing import Any

import numpy as np
import shapely
from pycocotools import mask as mask_api

Packed = list[bytes] | bytes
"""coordinates of each polygon as float64, or run lengths as pycocotools' string"""

NO_SEGMENTATION = "no segmentation"
FEW_POINTS = "no polygon of three points"
NO_AREA = "a segmentation without area"
BAD_RLE = "malformed run lengths"
TOO_LONG = "an outline too long to fill"
FAULTS = (NO_SEGMENTATION, FEW_POINTS, NO_AREA, BAD_RLE, TOO_LONG)

FARTHEST = 10.0
"""longer sides of the image that a polygon may reach from its corner"""
MOST_POINTS = 100_000
"""of an annotation's polygons together"""
LONGEST = 4e6
"""pixels along them, which pycocotools walks in fifths, 80 bytes a pixel"""
MOST_TANGLED = 100.0
"""times that a polygon may be as long as half the way around its box; crossings, each of which
shapely finds, grow with the square of it"""
TANGLES_FROM = 400
"""numbers of a polygon; a shorter one cannot be as tangled"""
MIN_AREA = 1e-6
"""square pixels; what rounding leaves of points on one line is less"""


def pack(segmentation: Any, height: int, width: int) -> tuple[Packed | None, str, int]:
    """A segmentation of an image of that size, what is wrong with it, and polygons dropped.

    Polygons of fewer than three points, of an odd number of coordinates, or with something else
    than finite numbers are dropped, the first two as by detectron2 (data/datasets/coco.py); so is
    one that reaches absurdly far, over which pycocotools takes for ever or breaks down. The
    fault is one of `FAULTS`, then there is nothing packed; or "".
    """
    if not segmentation:  # null, [], {}, "": none is given
        return None, NO_SEGMENTATION, 0
    if isinstance(segmentation, list):
        return pack_polygons(segmentation, FARTHEST * max(height, width))
    if isinstance(segmentation, dict):
        counts, fault = pack_run_lengths(segmentation, height, width)
        return counts, fault, 0
    return None, FEW_POINTS, 0


def pack_polygons(polygons: list[Any], farthest: float) -> tuple[Packed | None, str, int]:
    """As `pack`, of a list that is not empty."""
    kept: list[bytes] = []
    total = 0.0
    points = 0
    for polygon in polygons:
        try:
            values = array("d", polygon)
        except (TypeError, OverflowError):
            continue
        if len(values) < 6 or len(values) % 2:
            continue
        coordinates = np.frombuffer(values)
        points += len(coordinates) // 2
        suspect = len(values) > TANGLES_FROM or 2 * len(values) * farthest > LONGEST
        if points > MOST_POINTS or (suspect and is_too_long(coordinates)):
            return None, TOO_LONG, 0
        if not np.abs(coordinates).max() <= farthest:  # nor NaN
            continue
        area = signed_area(coordinates)
        if math.isfinite(area):
            kept.append(values.tobytes())
            total += abs(area)
    dropped = len(polygons) - len(kept)
    if not kept:
        return None, FEW_POINTS, dropped
    if total < MIN_AREA and not has_area(kept):
        return None, NO_AREA, dropped
    return kept, "", dropped


def is_too_long(coordinates: np.ndarray) -> bool:
    """Whether filling or repairing a ring x0, y0, x1, y1, ... would take for ever."""
    points = coordinates.reshape(-1, 2)
    sides = np.abs(np.diff(points, axis=0, append=points[:1]))
    length = float(np.hypot(*sides.T).sum())
    around = float(np.ptp(points, axis=0).sum())
    return not length <= min(LONGEST, MOST_TANGLED * max(around, 1.0))


def signed_area(coordinates: np.ndarray) -> float:
    """Square pixels inside a ring x0, y0, x1, y1, ...; loops of opposite sense cancel out."""
    x, y = coordinates[::2], coordinates[1::2]
    around = x[:-1] @ y[1:] - y[:-1] @ x[1:]
    closing = float(x[-1]) * float(y[0]) - float(y[-1]) * float(x[0])
    return (float(around) + closing) / 2


def has_area(polygons: list[bytes]) -> bool:
    """Whether crops of training, which repair crossing rings, have anything of these polygons."""
    rings = [shapely.Polygon(np.frombuffer(polygon).reshape(-1, 2)) for polygon in polygons]
    return float(shapely.area(shapely.buffer(rings, 0.0)).sum()) >= MIN_AREA


def pack_run_lengths(rle: dict[str, Any], height: int, width: int) -> tuple[bytes | None, str]:
    """Run lengths as pycocotools' string, or a fault."""
    counts = rle.get("counts")
    if rle.get("size") != [height, width]:
        return None, BAD_RLE
    lengths = string_lengths(counts) if isinstance(counts, str) else list_lengths(counts)
    if lengths is None or (lengths < 0).any() or lengths.sum() != height * width:
        return None, BAD_RLE
    if not lengths[1::2].any():
        return None, NO_AREA
    if isinstance(counts, str):
        return counts.encode(), ""
    counted = {"size": [height, width], "counts": lengths.astype(np.uint32)}
    return mask_api.frPyObjects(counted, height, width)["counts"], ""


def list_lengths(counts: Any) -> np.ndarray | None:
    """A list of whole numbers as int64; None for anything else."""
    if not isinstance(counts, list) or not {*map(type, counts)} <= {int}:
        return None
    try:
        return np.array(counts, dtype=np.int64)
    except OverflowError:
        return None


def string_lengths(counts: str) -> np.ndarray | None:
    """The run lengths in pycocotools' string, int64; None if it is broken.

    Five bits a character from code 48 on, low ones first, the sixth bit set where a number goes
    on; from the fourth number on, differences to the one before the last (cocoapi, common/
    maskApi.c, rleFrString). pycocotools decodes a broken string into memory that is not its own.
    """
    try:
        codes = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        return None
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = 5 * (np.arange(len(codes)) - np.repeat(first, last - first + 1))
    if place.max() > 30:
        return None
    numbers = np.add.reduceat((codes & 31) << place, first)
    numbers -= np.where(codes[last] & 16, 32 << place[last], 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def likeness(segmentation: Any, height: int, width: int) -> str:
    """What a faulty segmentation looks like, in words, with what is expected; "" if like nothing.

    Only for what `pack` finds nothing in.
    """
    if isinstance(segmentation, str):
        return "a text, as a table has it; expected polygons [[x, y, x, y, ...], ...]"
    if isinstance(segmentation, dict):
        return unlike_run_lengths(segmentation, height, width)
    if not isinstance(segmentation, list) or not segmentation:
        return ""
    nested = "; expected polygons [[x, y, x, y, ...], ...]"
    if all(map(is_number, segmentation)):
        return f"one flat polygon [x, y, x, y, ...]{nested}: put it into a list"
    part = segmentation[0]
    if isinstance(part, dict):
        if "counts" in part:
            return "run lengths inside a list; expected {size, counts}: take them out of it"
        return f"objects with {', '.join(map(str, part))[:40]}{nested}"
    if not isinstance(part, list) or not part:
        return ""
    if all(isinstance(each, list) and len(each) == 2 for each in segmentation) and all(
        map(is_number, part)
    ):
        return f"pairs of points [[x, y], [x, y], ...]{nested}: flatten them"
    if isinstance(part[0], list):
        return f"polygons of pairs [[[x, y], [x, y], ...], ...]{nested}: flatten them"
    if isinstance(part[0], str):
        return f"polygons of texts{nested} of numbers"
    return ""


def unlike_run_lengths(rle: dict[str, Any], height: int, width: int) -> str:
    """What is wrong with malformed run lengths, as `likeness` says it."""
    size = rle.get("size")
    if size == [width, height] != [height, width]:
        return "run lengths with size [width, height]; expected [height, width]: exchange them"
    if "counts" not in rle:
        return "an object without counts; expected run lengths {size, counts}"
    if size != [height, width]:
        return (
            f"run lengths of another size ({size!r:.40}) than the image's [{height}, {width}]; "
            "expected the image's: was another resolution annotated?"
        )
    return "run lengths that do not fill the image; expected counts that sum up to height x width"


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def unpack(packed: Packed, height: int, width: int) -> list[np.ndarray] | dict[str, Any]:
    """Polygons as float64 (k, 2), read-only; or run lengths as pycocotools decodes them."""
    if isinstance(packed, bytes):
        return {"size": [height, width], "counts": packed}
    return [np.frombuffer(polygon).reshape(-1, 2) for polygon in packed]
