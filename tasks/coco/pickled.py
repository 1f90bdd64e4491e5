"""Annotations image by image as pickle's protocol 5 writes them: fingerprints are over these bytes.

Nothing unpickles them, and hardly any is pickled: outlines are put down as pickle would while they
are read, many at once, and are joined image by image. A test holds the bytes equal to pickle's.
"""

import pickle
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain, pairwise
from typing import NamedTuple, Self

import numpy as np

from tasks.coco.segmentation import Packed

FRAME = 2**16
"""bytes from which on pickle begins another frame"""
BATCH = 1000
"""entries that pickle appends to a list at once"""
HEAD = b"\x80\x05\x95"
"""protocol 5, and a frame, whose length follows"""
LENGTH = 8
ALONE, FIRST, BETWEEN, LAST, RUN_LENGTHS = range(5)
"""what a part of an outline is: its only polygon, one of several, or run lengths"""
BEFORE = (b"]\x94", b"]\x94(", b"", b"", b"")
AFTER = (b"\x94a", b"\x94", b"\x94", b"\x94e", b"\x94")
"""around such a part: "]" begins a list, to which "a" appends one entry, "e" all since "("; 0x94
remembers what was written last"""


class Written:
    """Outlines of a file's annotations as pickle writes them, one after the other as they came.

    A: annotations of the file, in its order.
    """

    def __init__(self, count: int) -> None:
        self.block = bytearray()
        self.spans = np.zeros((count, 2), np.int64)
        """where each begins and ends in the block, int64 (A, 2); nothing where there is none"""
        self.run_lengths = np.zeros(count, bool)
        """whether it is run lengths, bool (A,)"""
        self.counts = np.zeros(count, np.int64)
        """how many parts it has, int64 (A,)"""
        self._first = np.zeros(count, np.int64)
        self._parts = [np.zeros((0, 2), np.int64)]
        self._held = 0

    def add(
        self,
        rows: np.ndarray,
        counts: np.ndarray,
        parts: Sequence[bytes],
        whole: np.ndarray | bool = False,
    ) -> None:
        """Take outlines of the annotations `rows`, int64 (V,), of so many parts each.

        `whole`: which of them are run lengths, of one part, bool (V,).
        """
        if not len(rows):
            return
        last = np.cumsum(counts) - 1
        first = last - counts + 1
        kinds = np.full(len(parts), BETWEEN)
        kinds[first], kinds[last], kinds[first[counts == 1]] = FIRST, LAST, ALONE
        kinds[first[np.broadcast_to(whole, first.shape)]] = RUN_LENGTHS
        pieces = [b""] * (3 * len(parts))
        pieces[::3] = map(before, kinds.tolist(), map(len, parts))
        pieces[1::3] = parts
        pieces[2::3] = map(AFTER.__getitem__, kinds.tolist())
        sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
        ends = len(self.block) + np.cumsum(sizes)
        self.block += b"".join(pieces)
        self._parts.append(np.stack([ends[::3], ends[1::3]], axis=1))
        self.spans[rows, 0] = (ends - sizes)[::3][first]
        self.spans[rows, 1] = ends[2::3][last]
        self.run_lengths[rows], self.counts[rows] = whole, counts
        self._first[rows] = self._held + first
        self._held += len(parts)

    def add_each(self, outlines: Mapping[int, Packed]) -> None:
        """Take those of some annotations."""
        whole = [isinstance(each, bytes) for each in outlines.values()]
        parts = [[each] if isinstance(each, bytes) else each for each in outlines.values()]
        counts = np.array([*map(len, parts)], dtype=np.int64)
        flat = list(chain.from_iterable(parts))
        self.add(np.array([*outlines], dtype=np.int64), counts, flat, np.array(whole, dtype=bool))

    @classmethod
    def nothing(cls, count: int) -> Self:
        """None for each annotation, where boxes alone count."""
        made = cls(count)
        made.block += b"N"
        made.spans[:, 1] = 1
        return made

    def parts(self, rows: np.ndarray) -> np.ndarray:
        """Where each part of the annotations `rows` begins and ends in the block, int64 (R, 2)."""
        self._parts = [np.concatenate(self._parts)]
        counts = self.counts[rows]
        moved = self._first[rows] - np.cumsum(counts) + counts
        return self._parts[0][np.arange(counts.sum()) + np.repeat(moved, counts)]

    def outline(self, row: int) -> Packed | None:
        """That of an annotation, as it came; None if none did."""
        parts = [bytes(self.block[low:high]) for low, high in self.parts(np.array([row])).tolist()]
        return parts[0] if self.run_lengths[row] else parts or None


class Pickled(NamedTuple):
    """Annotations of N images in a row. A: annotations, R: parts of their outlines."""

    block: bytearray
    ends: np.ndarray
    """of each image, int64 (N,)"""
    first_part: np.ndarray
    """of each annotation, and R at the end, int64 (A + 1,)"""
    parts: np.ndarray
    """where each part begins and ends, int64 (R, 2)"""


def pickled(
    bounds: np.ndarray,
    labels: np.ndarray,
    crowds: np.ndarray,
    boxes: np.ndarray,
    areas: np.ndarray,
    outlines: Written,
    rows: np.ndarray,
) -> Pickled:
    """Of each image (labels, crowds, its boxes' bytes, its areas' bytes, outlines).

    `bounds`: the first annotation of each image, and A at the end, int64 (N + 1,). The columns are
    those of `split.Table`, and the outlines those of the annotations `rows` of the file, (A,).
    """
    words, flags = (list(map(number, each.tolist())) for each in (labels, crowds.astype(int)))
    corners, sizes, texts = boxes.tobytes(), areas.tobytes(), memoryview(outlines.block)
    spans = outlines.spans[rows]
    first = np.concatenate([[0], np.cumsum(outlines.counts[rows])])
    froms, tos = spans.T.tolist()
    block = bytearray()
    begins, ends = [], []
    odd: list[tuple[int, list[tuple[int, int]]]] = []
    of_parts = pairwise(first[bounds].tolist())
    for (start, end), (low, high) in zip(pairwise(bounds.tolist()), of_parts, strict=True):
        box, area = corners[32 * start : 32 * end], sizes[8 * start : 8 * end]
        head = opening(words[start:end], flags[start:end], box, area)
        pieces = [texts[a:b] for a, b in zip(froms[start:end], tos[start:end], strict=True)]
        body = b"".join((head, *pieces, b"et\x94." if end > start + 1 else b"at\x94."))
        begins.append(len(block) + len(HEAD) + LENGTH + len(head))
        if start < end <= start + BATCH and high <= low + BATCH and len(body) < FRAME:
            block += b"".join((HEAD, len(body).to_bytes(LENGTH, "little"), body))
        else:
            columns = labels[start:end].tolist(), crowds[start:end].astype(int).tolist()
            masks = [outlines.outline(row) for row in rows[start:end].tolist()]
            chunk = pickle.dumps((*columns, box, area, masks), protocol=5)
            odd.append((low, found(masks, chunk, len(block))))
            block += chunk
        ends.append(len(block))
    passed = np.concatenate([[0], np.cumsum(spans[:, 1] - spans[:, 0])])
    moved = np.repeat(np.array(begins) - passed[bounds[:-1]], np.diff(bounds))
    moved += passed[:-1] - spans[:, 0]
    parts = outlines.parts(rows) + np.repeat(moved, np.diff(first))[:, None]
    for low, places in odd:
        parts[low : low + len(places)] = np.array(places).reshape(-1, 2)
    return Pickled(block, np.array(ends), first, parts)


def opening(labels: list[bytes], crowds: list[bytes], boxes: bytes, areas: bytes) -> bytes:
    """Of an image up to its outlines, from `number`s and bytes."""
    several, finish = (b"(", b"e") if len(labels) > 1 else (b"", b"a")
    lists = (b"(]\x94", several, *labels, finish, b"]\x94", several, *crowds, finish)
    texts = (size(len(boxes)), boxes, b"\x94", size(len(areas)), areas, b"\x94]\x94", several)
    return b"".join(lists + texts)


@cache
def number(value: int) -> bytes:
    """A whole number from 0 to 65,535."""
    return b"K" + bytes([value]) if value < 256 else b"M" + value.to_bytes(2, "little")


@cache
def size(count: int) -> bytes:
    """What comes before so many bytes."""
    return b"C" + bytes([count]) if count < 256 else b"B" + count.to_bytes(4, "little")


@cache
def before(kind: int, count: int) -> bytes:
    """What comes before a part of an outline, of so many bytes."""
    return BEFORE[kind] + size(count)


def found(outlines: Sequence[Packed | None], chunk: bytes, offset: int) -> list[tuple[int, int]]:
    """Where each part of outlines begins and ends that follow each other in `chunk`."""
    places, at = [], 0
    for outline in outlines:
        for part in [outline] if isinstance(outline, bytes) else outline or []:
            at = chunk.index(part, at)  # if the same bytes come earlier by chance, they serve, too
            places.append((offset + at, offset + at + len(part)))
            at += len(part)
    return places
