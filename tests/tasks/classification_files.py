"""Small classification data sets in the official layouts, made by hand."""

import json
import zlib
from pathlib import Path
from typing import Any

from PIL import Image

Content = dict[str, list[dict[str, Any]]]


def picture(path: Path) -> None:
    """A colour of its own for each name and the two folders around it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = zlib.crc32("/".join(path.parts[-3:]).encode()).to_bytes(4)
    Image.new("RGB", (8, 8), tuple(colour[:3])).save(path, quality=100, subsampling=0)


def categories(*ids: int) -> list[dict[str, Any]]:
    return [{"id": n, "name": f"Genus {n}", "supercategory": "Aves"} for n in ids]


def inat(root: Path, split: str, labels: list[int], ids: tuple[int, ...] = (0, 1, 2)) -> Content:
    """Images of inat2018 with the given category ids, and what their JSON has to say."""
    first = 100 if split == "train" else 200
    names = [f"train_val2018/Aves/{c}/{split}{k}.jpg" for k, c in enumerate(labels)]
    for name in names:
        picture(root / name)
    return {
        "images": [{"id": first + k, "file_name": name} for k, name in enumerate(names)],
        "annotations": [
            {"id": k, "image_id": first + k, "category_id": c} for k, c in enumerate(labels)
        ],
        "categories": categories(*ids),
    }


def write(root: Path, split: str, content: Any) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{split}2018.json").write_text(json.dumps(content))


def small_inat(root: Path) -> Path:
    """Three categories, five training and three test images."""
    write(root, "train", inat(root, "train", [2, 0, 1, 0, 2]))
    write(root, "val", inat(root, "val", [1, 2, 0]))
    return root


def small_places205(root: Path) -> Path:
    """Three classes, five training and two test images."""
    images = root / "data/vision/torralba/deeplearning/images256"
    lists = {
        "train": ["b/bar/1.jpg 1", "a/abbey/2.jpg 0", "c/c/out side/3.jpg 2", "a/abbey/1.jpg 0"],
        "val": ["a/abbey/9.jpg 0", "b/bar/9.jpg 1"],
    }
    folder = root / "trainvalsplit_places205"
    folder.mkdir(parents=True)
    for split, lines in lists.items():
        for line in lines:
            picture(images / line.rpartition(" ")[0])
        (folder / f"{split}_places205.csv").write_text("".join(f"{line}\n" for line in lines))
    return root


def small_places365(root: Path, train: str = "data_256_standard", val: str = "val_256") -> Path:
    """Two classes, three training and two test images."""
    lists = {
        "categories_places365.txt": ["/a/airfield 0", "/s/spa/indoor 1"],
        "places365_train_standard.txt": [
            "/s/spa/indoor/00000001.jpg 1",
            "/a/airfield/00000002.jpg 0",
            "/a/airfield/00000001.jpg 0",
        ],
        "places365_val.txt": ["Places365_val_00000001.jpg 1", "Places365_val_00000002.jpg 0"],
    }
    root.mkdir(parents=True, exist_ok=True)
    for name, lines in lists.items():
        (root / name).write_text("".join(f"{line}\n" for line in lines))
    for line in lists["places365_train_standard.txt"]:
        picture(root / f"{train}{line.split()[0]}")
    for line in lists["places365_val.txt"]:
        picture(root / val / line.split()[0])
    return root
