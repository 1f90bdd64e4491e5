"""Small ADE20K folders in the official layout, cut out of the miniature world."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tasks import miniature
from tasks.miniature import WorldSizes


def draw(folder: Path, count: int) -> Path:
    """A world of `count` training images alone, and its ADE20K folder."""
    sizes = WorldSizes.only(ade20k_train=count, ade20k_val=1)
    return miniature.make(folder, sizes=sizes, workers=1) / "ade20k"


def few_images(source: Path, folder: Path, count: int) -> Path:
    """`count` training images of `source`, as train and as val split.

    Those with three classes or more whose smallest one is largest, so that there is something to
    learn of each.
    """
    root = source / "ADEChallengeData2016"
    labels = sorted((root / "annotations" / "training").glob("*.png"))
    stems = [file.stem for file in sorted(labels, key=smallest_share, reverse=True)[:count]]
    for kind, suffix in (("images", "jpg"), ("annotations", "png")):
        for split in ("training", "validation"):
            (folder / kind / split).mkdir(parents=True)
            for stem in stems:
                name = f"{stem}.{suffix}"
                shutil.copy(root / kind / "training" / name, folder / kind / split / name)
    shutil.copy(root / "objectInfo150.txt", folder / "objectInfo150.txt")
    return folder


def smallest_share(file: Path) -> float:
    """Of the pixels, that of the rarest class; 0 for less than three classes."""
    with Image.open(file) as image:
        shares = np.bincount(np.asarray(image).ravel())[1:] / (image.width * image.height)
    shares = shares[shares > 0]
    return float(shares.min()) if len(shares) > 2 else 0.0
