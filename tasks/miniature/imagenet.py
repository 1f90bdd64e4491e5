"""ImageNet-1k's folders, and a folder of unlabelled images of the same distribution.

imagenet1k/train/<wnid>/<wnid>_<number>.JPEG
imagenet1k/val/<wnid>/ILSVRC2012_val_<number>.JPEG    (sorted into folders, as is customary)
unlabelled/<number>.JPEG
"""

from pathlib import Path

from tasks.miniature.layout import Layout, save_jpeg
from tasks.miniature.scene import draw_portrait
from tasks.miniature.shapes import SHAPES
from tasks.miniature.stuff import Rng

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


IMAGENET = Layout("imagenet1k", CLASSES, write)
UNLABELLED = Layout("unlabelled", (), write_unlabelled)
