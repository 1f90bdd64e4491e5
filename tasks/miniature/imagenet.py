"""ImageNet-1k's folders, and a folder of unlabelled images of the same distribution.

imagenet1k/train/<wnid>/<wnid>_<number>.JPEG
imagenet1k/val/<wnid>/ILSVRC2012_val_<number>.JPEG    (sorted into folders, as is customary)
unlabelled/<number>.JPEG
"""

from pathlib import Path

from tasks.miniature.pictures import open_image
from tasks.miniature.scene import draw_portrait
from tasks.miniature.shapes import SHAPES
from tasks.miniature.stuff import Rng
from tasks.miniature.twin import Facts, Row, Twin, save_jpeg

SIDE = 64
"""height and width in pixels"""

CLASSES = tuple(SHAPES)


def wnid(label: int) -> str:
    """Folder name of a class; sorting the names gives the class index."""
    return f"n{label + 1:08d}"


def val_name(index: int) -> str:
    """File name of a validation image."""
    return f"ILSVRC2012_val_{index + 1:08d}.JPEG"


def write(folder: Path, split: str, index: int, rng: Rng) -> None:
    """Image `index` shows class `index` modulo 10."""
    label = index % len(CLASSES)
    scene = draw_portrait(rng, SIDE, CLASSES[label])
    name = f"{wnid(label)}_{index + 1}.JPEG" if split == "train" else val_name(index)
    save_jpeg(folder / split / wnid(label) / name, scene.image)


def write_unlabelled(folder: Path, split: str, index: int, rng: Rng) -> None:
    """As ImageNet's, with the class left out of the name and in random order."""
    scene = draw_portrait(rng, SIDE, str(rng.choice(CLASSES)))
    save_jpeg(folder / f"{index + 1:08d}.JPEG", scene.image)


def rows(folder: Path, facts: Facts) -> list[Row]:
    """A row for each class."""
    split = "train" if facts["images"]["train"] else "val"
    return [
        (name, [open_image(path) for path in sorted((folder / split / wnid(label)).glob("*"))[:12]])
        for label, name in enumerate(facts["classes"])
    ]


def unlabelled_rows(folder: Path, facts: Facts) -> list[Row]:
    images = [open_image(path) for path in sorted(folder.iterdir())[:24]]
    return [("", images[:12]), ("", images[12:])]


IMAGENET = Twin(
    name="imagenet1k",
    sizes={"train": 1_000, "val": 2_000},
    classes=CLASSES,
    write=write,
    title="ImageNet-1k",
    remark="the class is the shape; colour, pattern, size and place tell nothing",
    rows=rows,
)
UNLABELLED = Twin(
    name="unlabelled",
    sizes={"train": 20_000},
    write=write_unlabelled,
    title="Unlabelled",
    remark="the same scenes without labels, for pre-training",
    rows=unlabelled_rows,
)
