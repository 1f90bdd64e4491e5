"""Images in ROOT/{train,val}/*.png, the darkness of NAME.png in ROOT/{train,val}_dark/NAME.png."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from tasks import TaskError
from tasks.holding_out import divided_fingerprint, hold_out_images
from tasks.images import FileNames, decode
from tasks.images.fingerprint import Fingerprint


@dataclass(frozen=True, eq=False)
class Pairs:
    """Images of a split; their truth lies beside their folder."""

    root: Path
    names: FileNames

    def __len__(self) -> int:
        return len(self.names)

    def image(self, row: int) -> np.ndarray:
        return decode(self.root / self.names[row])

    def truth(self, row: int) -> np.ndarray:
        """uint8 (H, W)."""
        split, name = self.names[row].split("/")
        return np.asarray(Image.open(self.root / f"{split}_dark" / name))


@dataclass(frozen=True, eq=False)
class ToyData:
    train: Pairs
    val: Pairs
    fingerprint: str
    name: str = "toy"
    classes: tuple[str, ...] = ()

    @property
    def standard(self) -> bool:
        return (len(self.train), len(self.val)) == (4, 2)

    def limited(self, limit: int | None) -> Self:
        rows = np.arange(len(self.val))[:limit]
        return replace(self, val=replace(self.val, names=self.val.names.take(rows)))

    def divided(self, share: float, seed: int) -> Self:
        held = hold_out_images(len(self.train), share, seed)
        train, val = (
            replace(self.train, names=self.train.names.take(np.flatnonzero(rows)))
            for rows in (~held, held)
        )
        fingerprint = divided_fingerprint(self.fingerprint, len(held), share, seed)
        return replace(self, train=train, val=val, fingerprint=fingerprint)


def read(source: str | Path) -> ToyData:
    root, digest, splits = Path(source), Fingerprint(), []
    for split in ("train", "val"):
        names = sorted(f"{split}/{file.name}" for file in (root / split).glob("*.png"))
        if not names:
            raise TaskError(f"{root / split}: holds no .png; expected images and {split}_dark/")
        splits.append(Pairs(root, FileNames(names)))
        digest.add_files(root, names)
    return ToyData(*splits, digest.hexdigest())
