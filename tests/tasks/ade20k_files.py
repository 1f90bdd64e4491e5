"""Small segmentation data sets, written by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.ade20k.classes import ClassRule

OFFICIAL = ClassRule(tuple(f"class {number}" for number in range(1, 151)))
OWN = {"classes": ["road", "car", "tree"], "ignore_index": 9}
HEIGHT, WIDTH = 40, 60


def stripes(values: Sequence[int], height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Labels uint8 (height, width) with a stripe of each value, from left to right."""
    columns = np.asarray(values, dtype=np.uint8)[np.arange(width) * len(values) // width]
    return np.tile(columns, (height, 1))


def save_label(path: Path, labels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)
    return path


def save_pair(
    root: Path,
    split: str,
    stem: str,
    values: Sequence[int] = (0, 1, 2),
    suffix: str = "jpg",
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> None:
    """An image and its label image, in the folders images/SPLIT and annotations/SPLIT."""
    path = root / "images" / split / f"{stem}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = 20 + 10 * (sum(map(ord, stem)) % 20)
    Image.new("RGB", size[::-1], (shade, 90, 200 - shade // 2)).save(path)
    save_label(root / "annotations" / split / f"{stem}.png", stripes(values, *size))


def small(root: Path, train: int = 3, val: int = 2) -> Path:
    """A data set in the official layout, without the list of classes."""
    for split, count in (("training", train), ("validation", val)):
        for number in range(1, count + 1):
            save_pair(root, split, f"{split[:2]}_{number}")
    return root


def with_names(root: Path) -> Path:
    """The same with a list of as many classes as ADE20K has."""
    rows = [f"{number}\t0.1\t9\t1\t1\tthing {number}" for number in range(1, 151)]
    (root / "objectInfo150.txt").write_text(
        "\n".join(["Idx\tRatio\tTrain\tVal\tStuff\tName", *rows])
    )
    return root


def own(root: Path, content: Any = OWN) -> Path:
    """A data set of one's own: train and val, .png and .jpg; `content` is its classes.json."""
    save_pair(root, "train", "a", (0, 1, 2, 9))
    save_pair(root, "train", "b", (2, 9), suffix="png")
    save_pair(root, "val", "c", (0, 1))
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "classes.json").write_text(text)
    return root
