"""Blocks of random colours, with their darkness."""

from pathlib import Path

import numpy as np
from PIL import Image

from tasks.miniature.pictures import open_image
from tasks.miniature.twin import Facts, Row, Twin


def write(folder: Path, split: str, index: int, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    dark = 255 - pixels.mean(axis=2).round().astype(np.uint8)
    for place, image in ((split, pixels), (f"{split}_dark", dark)):
        (folder / place).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / place / f"{index}.png")


def rows(folder: Path, facts: Facts) -> list[Row]:
    images = sorted((folder / "val").iterdir())
    return [("", [open_image(file).resize((64, 64), Image.Resampling.NEAREST) for file in images])]


TOY = Twin(name="toy", sizes={"train": 8, "val": 3}, write=write, title="Toy", rows=rows)
