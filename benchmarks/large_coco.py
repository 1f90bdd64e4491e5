"""A made-up data set of COCO's size and layout: its annotation files, and files for its images.

    python benchmarks/large_coco.py FOLDER

As many images, annotations and bytes as COCO 2017 has, with polygons of some 22 points, one object
in twelve in two parts, and one annotation in a hundred a crowd in run lengths. The same seed writes
the same bytes. The image files are empty: their names count here, and pixels do not.

"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_api

from tasks.coco.datasets import CATEGORY_IDS

IMAGES = {"train": 118_287, "val": 5_000}
ANNOTATIONS = {"train": 770_000, "val": 36_781}
SIZES = ((480, 640), (640, 480), (427, 640), (375, 500))
"""height and width of images, in turn"""
POOL, CROWDS = 4_000, 40
"""outlines and crowds for each size, of which annotations take one"""
CROWD_EVERY, PARTS_EVERY = 100, 12


def write_data_set(folder: Path, share: float = 1.0, seed: int = 0) -> Path:
    """The whole of it, or a share, in COCO's layout; returns the folder."""
    rng = np.random.default_rng(seed)
    pools = {size: outlines(rng, *size) for size in SIZES}
    crowds = {size: [crowd(rng, *size) for _ in range(CROWDS)] for size in SIZES}
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, images in IMAGES.items():
        count = max(len(SIZES), int(images * share))
        names = [f"{number:012d}.jpg" for number in range(1, count + 1)]
        write_files(folder / f"{split}2017", names)
        objects = max(4 * len(SIZES), int(ANNOTATIONS[split] * share))
        lines = annotations(rng, objects, count, pools, crowds)
        file = folder / f"annotations/instances_{split}2017.json"
        write_json(file, names, lines)
    return folder


def write_files(folder: Path, names: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()


def write_json(file: Path, names: list[str], annotations: Iterator[str]) -> None:
    """One annotation file; annotations of one image lie anywhere, as COCO's do."""
    rows = []
    for number, name in enumerate(names, start=1):
        height, width = SIZES[number % len(SIZES)]
        row = {"license": 3, "file_name": name, "coco_url": f"http://images/{name}"}
        row |= {"height": height, "width": width, "date_captured": "2013-11-14 11:18:45"}
        rows.append(json.dumps(row | {"id": number}))
    named = [{"supercategory": "thing", "id": n, "name": f"class {n}"} for n in CATEGORY_IDS]
    with file.open("w") as stream:
        stream.write('{"info": {"year": 2017}, "images": [' + ", ".join(rows))
        stream.write('], "annotations": [')
        for at, line in enumerate(annotations):
            stream.write(", " * (at > 0) + line)
        stream.write(f'], "categories": {json.dumps(named)}}}')


def annotations(
    rng: np.random.Generator, count: int, images: int, pools: dict, crowds: dict
) -> Iterator[str]:
    """Each as JSON."""
    of_image = rng.integers(1, images + 1, count)
    outline, part = rng.integers(POOL, size=(2, count))
    category = np.array(CATEGORY_IDS)[rng.integers(len(CATEGORY_IDS), size=count)]
    for row in range(count):
        image = int(of_image[row])
        size = SIZES[image % len(SIZES)]
        if row % CROWD_EVERY == 0:
            text, box, area = crowds[size][outline[row] % CROWDS]
        else:
            text, box, area = pools[size][outline[row]]
            if row % PARTS_EVERY == 0:
                text, box, area = together(pools[size][outline[row]], pools[size][part[row]])
        yield (
            f'{{"segmentation": {text}, "area": {area!r}, "iscrowd": '
            f'{int(row % CROWD_EVERY == 0)}, "image_id": {image}, "bbox": {list(box)}, '
            f'"category_id": {category[row]}, "id": {row + 1}}}'
        )


Made = tuple[str, tuple[float, ...], float]
"""segmentation as JSON; x, y, width, height; area"""


def outlines(rng: np.random.Generator, height: int, width: int) -> list[Made]:
    return [outline(rng, height, width) for _ in range(POOL)]


def outline(rng: np.random.Generator, height: int, width: int) -> Made:
    """A polygon around a point, of 6 to 38 corners."""
    corners = int(rng.integers(6, 39))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(4, 0.3 * min(height, width)) * rng.uniform(0.6, 1.0, corners)
    middle = rng.uniform(0.35, 0.65, 2) * (width, height)
    points = middle + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.round(points.clip(0, (width, height)), 2)
    low, high = points.min(axis=0), points.max(axis=0)
    x, y = (points - points[0]).T
    area = abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    box = tuple(np.round(np.concatenate([low, high - low]), 2).tolist())
    return json.dumps([points.ravel().tolist()]), box, area


def together(one: Made, other: Made) -> Made:
    """Two polygons as one object."""
    (x, y, w, h), (a, b, c, d) = one[1], other[1]
    left, top = min(x, a), min(y, b)
    box = (left, top, max(x + w, a + c) - left, max(y + h, b + d) - top)
    text = f"{one[0][:-1]}, {other[0][1:]}"
    return text, tuple(round(each, 2) for each in box), one[2] + other[2]


def crowd(rng: np.random.Generator, height: int, width: int) -> Made:
    """A few ellipses as run lengths."""
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.uint8)
    for _ in range(8):
        middle, radius = rng.uniform(0.2, 0.8, 2), rng.uniform(0.03, 0.15, 2)
        mask |= ((y / height - middle[0]) / radius[0]) ** 2 + (
            (x / width - middle[1]) / radius[1]
        ) ** 2 <= 1
    flat = mask.T.ravel()
    bounds = np.flatnonzero(np.diff(flat, prepend=0))
    counts = np.diff(np.concatenate([[0], bounds, [flat.size]])).tolist()
    box = tuple(mask_api.toBbox(mask_api.encode(np.asfortranarray(mask))).tolist())
    text = json.dumps({"counts": counts, "size": [height, width]})
    return text, box, int(mask.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of COCO's size")
    given = parser.parse_args()
    write_data_set(given.folder, given.share)


if __name__ == "__main__":
    main()
