"""The layouts of Places205 and Places365-Standard (256-pixel version).

    places205/data/vision/torralba/deeplearning/images256/<letter>/<category>/*.jpg
    places205/trainvalsplit_places205/{train,val}_places205.csv    lines "<letter>/... label"
    places365/data_256_standard/<letter>/<category>/<8 digits>.jpg
    places365/val_256/Places365_val_<8 digits>.jpg
    places365/categories_places365.txt, places365_{train_standard,val}.txt

Paths in Places365's lists start with a slash, except those of validation images.
"""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

from tasks.miniature.pictures import first_of_each_folder
from tasks.miniature.scene import Scene, draw_landscape
from tasks.miniature.stuff import PLACES, Rng
from tasks.miniature.twin import Facts, Records, Row, Twin, save_jpeg

SIDE = 64
"""height and width in pixels"""

CLASSES = tuple(PLACES)


def category_folder(label: int) -> str:
    """`<letter>/<category>`; one category has a subcategory, as many of the original's have."""
    name = CLASSES[label]
    return f"{name[0]}/{name}/sand" if name == "desert" else f"{name[0]}/{name}"


def _draw(rng: Rng, label: int) -> Scene:
    return draw_landscape(rng, SIDE, SIDE, place=CLASSES[label], max_things=3)


def write_205(folder: Path, split: str, index: int, rng: Rng) -> str:
    """Image `index` shows place `index` modulo their number; return its line in the list."""
    label = index % len(CLASSES)
    digest = hashlib.md5(f"{split} {index}".encode(), usedforsecurity=False).hexdigest()
    name = f"{category_folder(label)}/gsun_{digest}.jpg"
    images = folder / "data/vision/torralba/deeplearning/images256"
    save_jpeg(images / name, _draw(rng, label).image)
    return f"{name} {label}"


def finish_205(folder: Path, records: Records) -> None:
    lists = folder / "trainvalsplit_places205"
    lists.mkdir(exist_ok=True)
    for split, lines in records.items():
        (lists / f"{split}_places205.csv").write_text("".join(f"{line}\n" for line in lines))


def write_365(folder: Path, split: str, index: int, rng: Rng) -> str:
    """As `write_205`; validation images are in one folder, in an order that tells nothing."""
    if split == "val":
        label = int(rng.integers(len(CLASSES)))
        name = f"Places365_val_{index + 1:08d}.jpg"
        path = folder / "val_256" / name
    else:
        label = index % len(CLASSES)
        name = f"/{category_folder(label)}/{index // len(CLASSES) + 1:08d}.jpg"
        path = folder / f"data_256_standard{name}"
    save_jpeg(path, _draw(rng, label).image)
    return f"{name} {label}"


def finish_365(folder: Path, records: Records) -> None:
    categories = [f"/{category_folder(label)} {label}" for label in range(len(CLASSES))]
    lists: dict[str, list[Any]] = {
        "categories_places365.txt": categories,
        "places365_train_standard.txt": records.get("train", []),
        "places365_val.txt": records.get("val", []),
    }
    for name, lines in lists.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))


def rows(images: str, folder: Path, facts: Facts) -> list[Row]:
    return [(folder.name, first_of_each_folder(folder / images))]


TITLE, REMARK = "Places", "the class is the place: what lies above what"

PLACES205 = Twin(
    name="places205",
    sizes={"train": 320, "val": 1_000},
    version=2,
    classes=CLASSES,
    write=write_205,
    finish=finish_205,
    title=TITLE,
    remark=REMARK,
    rows=partial(rows, "data"),
)
PLACES365 = Twin(
    name="places365",
    sizes={"train": 320, "val": 1_000},
    version=2,
    classes=CLASSES,
    write=write_365,
    finish=finish_365,
    title=TITLE,
    remark=REMARK,
    rows=partial(rows, "data_256_standard"),
)
