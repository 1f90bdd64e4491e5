"""COCO 2017's layout.

    coco/{train2017,val2017}/<image id, 12 digits>.jpg
    coco/annotations/instances_{train,val}2017.json

As in the original: category ids have gaps, some images have no annotation, polygons outline
what is visible of a thing, and crowds are uncompressed RLE with `iscrowd` 1.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tasks.miniature.outlines import area, box, mask_box, polygons, run_lengths
from tasks.miniature.pictures import class_colour, open_image
from tasks.miniature.scene import Scene, Thing, draw_landscape
from tasks.miniature.shapes import SHAPES
from tasks.miniature.stuff import Rng
from tasks.miniature.twin import Facts, Records, Row, Twin, save_jpeg

CLASSES = tuple(SHAPES)
CATEGORY_IDS = dict(zip(CLASSES, (1, 2, 3, 5, 8, 13, 21, 34, 55, 89), strict=True))

IMAGE_SIZES = ((96, 128), (112, 144), (120, 160), (128, 96), (128, 128), (150, 100))
"""(height, width) in pixels"""

MIN_VISIBLE = 0.06
"""a thing is annotated if this share of the disc around it is seen; whole ones fill 0.3 to 0.85"""


def write(folder: Path, split: str, index: int, rng: Rng) -> dict[str, Any]:
    """Draw an image; return its entry in the JSON with its annotations, ids still missing."""
    height, width = IMAGE_SIZES[rng.integers(len(IMAGE_SIZES))]
    crowd = rng.random() < 0.12
    max_things = 0 if rng.random() < 0.05 else 7
    scene = draw_landscape(rng, height, width, max_things=max_things, crowd=crowd)
    image_id = 2 * (7 * index + 9) + (split == "val")  # with gaps, and no id in both splits
    name = f"{image_id:012d}.jpg"
    save_jpeg(folder / f"{split}2017" / name, scene.image)
    image = {"id": image_id, "file_name": name, "height": height, "width": width, "license": 1}
    return {"image": image, "annotations": annotate(scene)}


def annotate(scene: Scene) -> list[dict[str, Any]]:
    """The annotations of a scene without ids: things from back to front, then the crowd."""
    annotations = []
    crowd = np.zeros(scene.stuff.shape, bool)
    crowd_shape = ""
    for thing, visible in zip(scene.things, scene.visible, strict=True):
        if thing.in_crowd:
            crowd |= visible > 0.5
            crowd_shape = thing.shape
        elif thing.shape in CATEGORY_IDS and _seen_share(thing, visible) >= MIN_VISIBLE:
            rings = polygons(visible)
            if rings:
                annotations.append(
                    {
                        "segmentation": [ring.ravel().tolist() for ring in rings],
                        "area": round(sum(map(area, rings)), 2),
                        "iscrowd": 0,
                        "bbox": box(np.vstack(rings)),
                        "category_id": CATEGORY_IDS[thing.shape],
                    }
                )
    if crowd.any():
        annotations.append(
            {
                "segmentation": run_lengths(crowd),
                "area": int(crowd.sum()),
                "iscrowd": 1,
                "bbox": mask_box(crowd),
                "category_id": CATEGORY_IDS[crowd_shape],
            }
        )
    return annotations


def _seen_share(thing: Thing, visible: np.ndarray) -> float:
    """Seen pixels over those of the disc around the thing."""
    return float(visible.sum()) / (np.pi * thing.radius**2)


def finish(folder: Path, records: Records) -> None:
    """Write the annotation files; annotation ids are unique across the splits."""
    categories = [
        {"supercategory": "thing", "id": number, "name": name}
        for name, number in CATEGORY_IDS.items()
    ]
    next_id = 1
    for split, images in records.items():
        annotations = []
        for record in images:
            for annotation in record["annotations"]:
                ids = {"image_id": record["image"]["id"], "id": next_id}
                annotations.append(annotation | ids)
                next_id += 1
        content = {
            "info": {"description": "mae-bench miniature world", "version": "1.0", "year": 2017},
            "licenses": [{"id": 1, "name": "drawn, free to use", "url": ""}],
            "images": [record["image"] for record in images],
            "annotations": annotations,
            "categories": categories,
        }
        path = folder / "annotations" / f"instances_{split}2017.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def rows(folder: Path, facts: Facts) -> list[Row]:
    """Images, and below them the same with outlines and boxes; a crowd has its box only."""
    split = "train" if (folder / "train2017").exists() else "val"
    content = json.loads((folder / f"annotations/instances_{split}2017.json").read_text())
    of_image = defaultdict(list)
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    # The busiest of the first images, so that crowds and occlusion show.
    busiest = sorted(content["images"][:60], key=lambda image: -len(of_image[image["id"]]))[:6]
    plain = [open_image(folder / f"{split}2017" / image["file_name"]) for image in busiest]
    drawn = [
        _with_outlines(picture, of_image[image["id"]])
        for picture, image in zip(plain, busiest, strict=True)
    ]
    return [("images", plain), ("annotations", drawn)]


def _with_outlines(picture: Image.Image, annotations: list[dict[str, Any]]) -> Image.Image:
    picture = Image.blend(picture, Image.new("RGB", picture.size, "white"), 0.35)
    draw = ImageDraw.Draw(picture)
    labels = list(CATEGORY_IDS.values())
    for annotation in annotations:
        colour = class_colour(labels.index(annotation["category_id"]))
        x, y, width, height = annotation["bbox"]
        draw.rectangle((x, y, x + width, y + height), outline=colour)
        if not annotation["iscrowd"]:
            for ring in annotation["segmentation"]:
                draw.polygon(ring, fill=colour, outline="white")
    return picture


COCO = Twin(
    name="coco",
    sizes={"train": 400, "val": 100},
    classes=CLASSES,
    write=write,
    finish=finish,
    title="COCO 2017",
    remark="polygons, boxes, crowd regions, images of many sizes",
    rows=rows,
)
