"""Small annotation files, written by hand, with grey images of the sizes they say."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

CATEGORIES = [{"id": 7, "name": "ball"}, {"id": 3, "name": "cat"}]
SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]


def image(number: int, width: int = 60, height: int = 40) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number:04d}.jpg", "height": height, "width": width}


def thing(number: int, image_id: int, **changes: Any) -> dict[str, Any]:
    """A square of category 3, with some entries changed; None takes an entry away."""
    entry = {
        "id": number,
        "image_id": image_id,
        "category_id": 3,
        "bbox": [10.0, 10.0, 20.0, 20.0],
        "area": 400.0,
        "iscrowd": 0,
        "segmentation": SQUARE,
    } | changes
    return {key: value for key, value in entry.items() if value is not None}


def content(images: list, annotations: list, categories: list | None = None) -> dict[str, Any]:
    known = CATEGORIES if categories is None else categories
    return {"images": images, "annotations": annotations, "categories": known}


def write(root: Path, split: str, what: Any, folder: str | None = None) -> Path:
    """One split: its annotation file, and images in `folder`, by default where COCO has them."""
    file = root / f"annotations/instances_{split}2017.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(what if isinstance(what, str) else json.dumps(what))
    if isinstance(what, dict):
        for entry in what.get("images", []):
            path = root / (folder or f"{split}2017") / entry["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = (90, sum(map(ord, split + entry["file_name"])) % 256, 90)
            Image.new("RGB", (entry["width"], entry["height"]), shade).save(path)
    return file


def small(root: Path, annotations: list | None = None, images: list | None = None) -> Path:
    """A data set: training images 1 and 2, or `images`, and test image 3 with one square."""
    if annotations is None:
        annotations = [thing(1, 1), thing(2, 2)]
    write(root, "train", content(images or [image(1), image(2)], annotations))
    write(root, "val", content([image(3)], [thing(9, 3)]))
    return root
