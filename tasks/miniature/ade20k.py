"""ADE20K's scene parsing layout (ADEChallengeData2016).

    ade20k/ADEChallengeData2016/images/{training,validation}/ADE_{train,val}_<8 digits>.jpg
    ade20k/ADEChallengeData2016/annotations/{training,validation}/ADE_{train,val}_<8 digits>.png
    ade20k/ADEChallengeData2016/objectInfo150.txt, sceneCategories.txt

A label image is 8-bit grey: 0 is unlabelled (pebbles), 1..16 are the classes. The class list
keeps its official name although it has 16 rows.
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.miniature.coco import IMAGE_SIZES
from tasks.miniature.pictures import class_colour, open_image
from tasks.miniature.scene import Scene, draw_landscape
from tasks.miniature.shapes import SHAPES
from tasks.miniature.stuff import STUFF, Rng
from tasks.miniature.twin import Facts, Records, Row, Twin, save_jpeg

CLASSES = (*STUFF, *SHAPES)
FOLDERS = {"train": "training", "val": "validation"}
RADII = (0.15, 0.35)
"""of things: large enough that what their shapes are decides the score, and not only what lies
behind them"""


def label_map(scene: Scene) -> np.ndarray:
    """(H, W) uint8: of each pixel, 1 + the class of what covers most of it, 0 for a pebble."""
    labels = scene.stuff + np.uint8(1)
    most = 1 - sum(scene.visible, np.zeros(labels.shape, np.float32))
    for thing, visible in zip(scene.things, scene.visible, strict=True):
        label = CLASSES.index(thing.shape) + 1 if thing.shape in SHAPES else 0
        labels[visible > most] = label
        most = np.maximum(most, visible)
    return labels


def write(folder: Path, split: str, index: int, rng: Rng) -> dict[str, Any]:
    """Draw an image and its label image; return its name, place and pixels per label."""
    height, width = IMAGE_SIZES[rng.integers(len(IMAGE_SIZES))]
    scene = draw_landscape(rng, height, width, min_things=2, max_things=6, radii=RADII)
    labels = label_map(scene)
    root = folder / "ADEChallengeData2016"
    name = f"ADE_{split}_{index + 1:08d}"
    save_jpeg(root / "images" / FOLDERS[split] / f"{name}.jpg", scene.image)
    path = root / "annotations" / FOLDERS[split] / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)
    counts = np.bincount(labels.ravel(), minlength=len(CLASSES) + 1)
    return {"name": name, "place": scene.place, "counts": counts}


def finish(folder: Path, records: Records) -> None:
    """Write the list of classes with their shares, and the place of each image."""
    counts = {
        split: np.array([image["counts"] for image in records.get(split, [])]).reshape(
            -1, len(CLASSES) + 1
        )
        for split in FOLDERS
    }
    pixels = sum(split.sum(axis=0) for split in counts.values())
    images = {split: (counts[split] > 0).sum(axis=0) for split in FOLDERS}
    rows = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
    for label, name in enumerate(CLASSES, start=1):
        ratio = pixels[label] / pixels.sum()
        is_stuff = int(name in STUFF)
        rows.append(
            f"{label}\t{ratio:.4f}\t{images['train'][label]}\t{images['val'][label]}"
            f"\t{is_stuff}\t{name}"
        )
    root = folder / "ADEChallengeData2016"
    (root / "objectInfo150.txt").write_text("\n".join(rows) + "\n")
    lines = [f"{image['name']} {image['place']}\n" for split in records.values() for image in split]
    (root / "sceneCategories.txt").write_text("".join(lines))


def rows(folder: Path, facts: Facts) -> list[Row]:
    """Images, and below them their labels; unlabelled pixels are black."""
    colours = np.array([(0, 0, 0)] + [class_colour(label) for label in range(len(CLASSES))])
    root = folder / "ADEChallengeData2016"
    paths = sorted((root / "images").glob("*/*.jpg"))[:12]
    paths.sort(key=lambda path: -len(set(_labels(root, path).ravel())))
    images = [open_image(path) for path in paths[:6]]
    labels = [Image.fromarray(colours[_labels(root, path)].astype(np.uint8)) for path in paths[:6]]
    return [("images", images), ("labels", labels)]


def _labels(root: Path, image: Path) -> np.ndarray:
    return np.asarray(Image.open(root / "annotations" / image.parent.name / f"{image.stem}.png"))


ADE20K = Twin(
    name="ade20k",
    sizes={"train": 300, "val": 300},
    version=2,
    classes=CLASSES,
    write=write,
    finish=finish,
    title="ADE20K",
    remark="a label for every pixel but those of pebbles",
    rows=rows,
)
