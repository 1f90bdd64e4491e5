"""What fingerprints are over: to the byte what pickle writes."""

import pickle
from itertools import pairwise

import numpy as np
import pytest

from tasks.coco.pickled import Written, pickled
from tasks.coco.segmentation import Packed

Outlines = list[Packed | None]
BATCH, FRAME = 1000, 2**16
"""pickle's own: entries of a list at once, and bytes"""


def own(outline: Packed | None) -> Packed | None:
    """A copy: pickle names what it has written before, and readers give no object twice."""
    if isinstance(outline, list):
        return [bytes(bytearray(part)) for part in outline]
    return bytes(bytearray(outline)) if outline else None


def check(images: list[Outlines], most_label: int = 80, boxes_alone: bool = False) -> bytes:
    """Compare images, whose annotations come mixed; returns the bytes."""
    rng = np.random.default_rng(0)
    bounds = np.cumsum([0, *map(len, images)])
    count = int(bounds[-1])
    outlines = [own(each) for image in images for each in image]
    rows = rng.permutation(count)  # where in the file each of them is
    written = Written.nothing(count) if boxes_alone else Written(count)
    in_file = dict(sorted(zip(rows.tolist(), outlines, strict=True)))
    for start in range(0, 0 if boxes_alone else count, 7):  # ordinary ones first, as in reading
        some = {row: in_file[row] for row in range(start, min(start + 7, count))}
        plain = {row: each for row, each in some.items() if isinstance(each, list)}
        flat = [part for each in plain.values() for part in each]
        written.add(np.array([*plain], int), np.array([*map(len, plain.values())], int), flat)
        written.add_each({row: each for row, each in some.items() if isinstance(each, bytes)})
    labels, crowds = rng.integers(most_label, size=count), rng.integers(2, size=count) > 0
    boxes, areas = rng.uniform(0, 100, (count, 4)), rng.uniform(0, 100, count)
    made = pickled(bounds, labels, crowds, boxes, areas, written, rows)
    expected, ends = b"", []
    for start, end in pairwise(bounds.tolist()):
        columns = labels[start:end].tolist(), crowds[start:end].astype(int).tolist()
        texts = boxes[start:end].tobytes(), areas[start:end].tobytes()
        expected += pickle.dumps((*columns, *texts, outlines[start:end]), protocol=5)
        ends.append(len(expected))
    assert bytes(made.block) == expected
    assert made.ends.tolist() == ends
    assert [written.outline(row) for row in rows.tolist()] == outlines
    for outline, (low, high) in zip(outlines, pairwise(made.first_part.tolist()), strict=True):
        parts = [expected[begin:end] for begin, end in made.parts[low:high].tolist()]
        assert parts == ([outline] if isinstance(outline, bytes) else outline or [])
    return expected


def polygon(rng: np.random.Generator, points: int) -> bytes:
    return rng.uniform(0, 500, 2 * points).tobytes()


def test_images_are_written_as_pickle_does() -> None:
    rng = np.random.default_rng(1)
    one: list[Packed | None] = [b"0AB", bytes(300), *([polygon(rng, n)] for n in (3, 15, 16, 200))]
    one += [[polygon(rng, int(n)) for n in rng.integers(3, 40, size)] for size in (2, 3, 12)]
    images = [[one[at] for at in rng.integers(len(one), size=size)] for size in range(30)]
    check([*images, [], *images[:3], []])
    check([[], []])


@pytest.mark.parametrize("label", [256, 257, FRAME])
def test_many_classes(label: int) -> None:
    rng = np.random.default_rng(2)
    check([[[polygon(rng, 3)]] * size for size in (1, 2, 300)], label)


def test_boxes_alone() -> None:
    check([[None] * size for size in (0, 1, 2, BATCH, BATCH + 1)], boxes_alone=True)


def test_images_that_pickle_writes_in_several_goes() -> None:
    """Many annotations, many polygons of one, and more bytes than a frame has."""
    rng = np.random.default_rng(3)
    small = polygon(rng, 3)
    for count in (BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 1):
        check([[[small]], [b"12"] * count, [[small] * count], [[small]]])
    for points in (4095, 4096, 5000):
        long = polygon(rng, points)
        check([[[small]], [[long]], [[long, small], [long], bytes(16 * points), [long]], [[small]]])


def test_images_about_as_long_as_a_frame() -> None:
    around = [len(check([[b"1" * (FRAME - 200)]])) - 200]
    for more in range(60, 130):
        around.append(len(check([[b"1" * (FRAME - 200 + more), [bytes(48)]]])))
    assert min(around) < FRAME < max(around)
