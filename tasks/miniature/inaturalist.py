"""The layouts of iNaturalist 2017, 2018 and 2019. A species is a shape with a pattern.

    inat2017/train_val_images/<supercategory>/<species>/<32 hex digits>.jpg
    inat2017/{train,val}2017.json
    inat2018/train_val2018/<supercategory>/<category id>/<32 hex digits>.jpg, and 2019 likewise
    inat2018/{train,val}2018.json, categories.json

Images of both splits share the folders; only the JSON files tell them apart. In 2018 and 2019
the names in the JSON are the category ids, and categories.json tells what they stand for.
"""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

from tasks.miniature.pictures import open_image
from tasks.miniature.scene import draw_portrait
from tasks.miniature.stuff import Rng
from tasks.miniature.twin import Facts, Records, Row, Twin, save_jpeg

SIDE = 64
"""height and width in pixels"""

GENERA = {
    "disc": "Discus",
    "ring": "Anulus",
    "square": "Quadra",
    "triangle": "Trigona",
    "star": "Stella",
    "cross": "Crux",
    "crescent": "Luna",
    "heart": "Cordis",
    "arrow": "Sagitta",
    "hourglass": "Clepsydra",
}
EPITHETS = {"plain": "simplex", "striped": "striata", "dotted": "punctata", "checked": "tessellata"}
YEARS = {2017: ("plain", "striped"), 2018: ("plain", "dotted", "checked"), 2019: ("dotted",)}
"""the patterns of each year's species"""
ROUND = ("disc", "ring", "crescent", "heart")


def species(year: int) -> list[tuple[str, str]]:
    """(shape, pattern) of each category id."""
    return [(shape, pattern) for shape in GENERA for pattern in YEARS[year]]


def species_name(shape: str, pattern: str) -> str:
    return f"{GENERA[shape]} {EPITHETS[pattern]}"


def _supercategory(shape: str) -> str:
    return "Rotunda" if shape in ROUND else "Angulata"


def write(year: int, folder: Path, split: str, index: int, rng: Rng) -> dict[str, Any]:
    """Image `index` shows species `index` modulo their number; return its file and category."""
    category = index % len(species(year))
    shape, pattern = species(year)[category]
    scene = draw_portrait(rng, SIDE, shape, pattern=pattern)
    images = "train_val_images" if year == 2017 else f"train_val{year}"
    leaf = species_name(shape, pattern) if year == 2017 else str(category)
    digest = hashlib.md5(f"{year} {split} {index}".encode(), usedforsecurity=False).hexdigest()
    name = f"{images}/{_supercategory(shape)}/{leaf}/{digest}.jpg"
    save_jpeg(folder / name, scene.image)
    return {"file_name": name, "category_id": category}


def finish(year: int, folder: Path, records: Records) -> None:
    """Write the JSON files; image and annotation ids are unique across the splits."""
    names, full = [], []
    for number, (shape, pattern) in enumerate(species(year)):
        name = species_name(shape, pattern)
        shown = name if year == 2017 else str(number)
        supercategory = _supercategory(shape)
        names.append({"id": number, "name": shown, "supercategory": supercategory})
        ranks = {"kingdom": "Figurae", "class": supercategory, "genus": GENERA[shape]}
        full.append({"id": number, "name": name, "supercategory": supercategory} | ranks)
    first = 1
    for split, images in records.items():
        ids = range(first, first + len(images))
        first += len(images)
        content = {
            "info": {"description": f"mae-bench miniature world, {split}", "year": year},
            "licenses": [{"id": 0, "name": "drawn, free to use", "url": ""}],
            "categories": names,
            "images": [
                {"id": number, "file_name": image["file_name"], "height": SIDE, "width": SIDE}
                | {"license": 0, "rights_holder": "mae-bench"}
                for number, image in zip(ids, images, strict=True)
            ],
            "annotations": [
                {"id": number, "image_id": number, "category_id": image["category_id"]}
                for number, image in zip(ids, images, strict=True)
            ],
        }
        (folder / f"{split}{year}.json").write_text(json.dumps(content))
    if year != 2017:
        (folder / "categories.json").write_text(json.dumps(full))


def rows(year: int, folder: Path, facts: Facts) -> list[Row]:
    """One image per category, of twelve categories spread over all."""
    split = "train" if (folder / f"train{year}.json").exists() else "val"
    content = json.loads((folder / f"{split}{year}.json").read_text())
    files = {
        annotation["category_id"]: image["file_name"]
        for annotation, image in zip(content["annotations"], content["images"], strict=True)
    }
    chosen = sorted(files)[:: max(len(files) // 12, 1)]
    return [(folder.name, [open_image(folder / files[category]) for category in chosen])]


INATURALIST = tuple(
    Twin(
        name=f"inat{year}",
        sizes={"train": 600, "val": 1_000},
        version=2,
        classes=tuple(species_name(*each) for each in species(year)),
        write=partial(write, year),
        finish=partial(finish, year),
        title="iNaturalist",
        remark="a species is a shape with a pattern",
        rows=partial(rows, year),
    )
    for year in YEARS
)
