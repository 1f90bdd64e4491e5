"""Training and test images of COCO, padded to squares, with their instances."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tasks.coco.augment import (
    draw_jitter,
    jitter_image,
    jitter_instances,
    pad,
    resize_for_test,
)
from tasks.coco.layout import CocoSplit
from tasks.coco.masks import Mask
from tasks.errors import TaskError
from tasks.images import Unreadable, UnreadableImage, decode, load_batch, sample_rng
from tasks.task import Batch


@dataclass(frozen=True, eq=False)
class Sample:
    """One training view, not yet padded."""

    pixels: np.ndarray
    """uint8 (h, w, 3)"""
    boxes: np.ndarray
    labels: np.ndarray
    masks: list[Mask]

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes

    def target(self) -> dict[str, Any]:
        boxes, labels = torch.from_numpy(self.boxes), torch.from_numpy(self.labels)
        return {"boxes": boxes, "labels": labels, "masks": self.masks}


class TrainImages:
    """Training batches with large-scale jitter; see `tasks.task.TrainData`.

    A sample depends on (seed, epoch, index) alone.
    """

    def __init__(
        self,
        split: CocoSplit,
        image_size: int,
        scale: tuple[float, float],
        flip_prob: float,
        seed: int,
    ) -> None:
        if not 0 <= seed < 2**32:
            raise TaskError(f"seed is {seed}; expected a whole number from 0 to 2^32 - 1")
        self.split = split
        self.image_size = image_size
        self.scale = scale
        self.flip_prob = flip_prob
        self.seed = seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        """The samples (epoch, index), each unreadable image replaced as by `load_batch`.

        {"images": uint8 (B, 3, S, S), zeros to the right of and below the image; "sizes": int64
        (B, 2), height and width without them; "targets": for each image {"boxes": float32 (n, 4),
        x1, y1, x2, y2; "labels": int64 (n,); "masks": for each instance polygons, a list of
        float64 (k, 2), x, y, or a `Bitmap`, bool (h, w), none where boxes alone count}; "index":
        int64 (B,); "skipped": unreadable files}. Boxes and masks are in pixels of the image; n may
        be 0.
        """
        samples: list[Sample] = []

        def finish(sample: Sample) -> Tensor:
            samples.append(sample)
            return torch.from_numpy(pad(sample.pixels, self.image_size))

        batch = load_batch(keys, self.load, self.split.names, finish)
        batch["sizes"] = torch.tensor([sample.pixels.shape[:2] for sample in samples])
        batch["targets"] = [sample.target() for sample in samples]
        return batch

    def load(self, epoch: int, index: int) -> Sample:
        """One sample. Raises UnreadableImage."""
        rng = sample_rng(self.seed, epoch, index)
        pixels = decode_known(self.split, index)
        height, width = pixels.shape[:2]
        plan = draw_jitter(rng, height, width, self.image_size, self.scale, self.flip_prob)
        instances = jitter_instances(self.split.annotations(index), plan)
        return Sample(jitter_image(pixels, plan), *instances)

    def names(self, indices: list[int]) -> list[str]:
        return [self.split.names[index] for index in indices]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and a model's averaged copy must not double it


class EvalImages(Dataset[Batch]):
    """The test images resized to fit a square, by whole batches, without those unreadable."""

    def __init__(self, split: CocoSplit, image_size: int) -> None:
        self.split = split
        self.image_size = image_size

    def __len__(self) -> int:
        """Images, not batches."""
        return len(self.split)

    def __getitem__(self, indices: list[int]) -> Batch:
        """{"images": uint8 (B, 3, S, S), "sizes": int64 (B, 2), "index": int64 (B,), "skipped"}.

        As `TrainImages` has them; B counts the readable ones of `indices` and may be 0.
        """
        size = self.image_size
        images: list[Tensor] = []
        sizes: list[tuple[int, ...]] = []
        kept: list[int] = []
        skipped: list[Unreadable] = []
        for index in indices:
            try:
                pixels = resize_for_test(decode_known(self.split, index), size)
            except UnreadableImage as error:
                skipped.append(Unreadable(self.split.names[index], error.reason))
                continue
            images.append(torch.from_numpy(pad(pixels.transpose(1, 2, 0), size)))
            sizes.append(pixels.shape[1:])
            kept.append(index)
        return {
            "images": torch.stack(images) if images else torch.empty(0, 3, size, size).byte(),
            "sizes": torch.tensor(sizes, dtype=torch.int64).view(-1, 2),
            "index": torch.tensor(kept, dtype=torch.int64),
            "skipped": skipped,
        }

    def names(self, indices: list[int]) -> list[str]:
        return [self.split.names[index] for index in indices]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and a model's averaged copy must not double it


def decode_known(split: CocoSplit, index: int) -> np.ndarray:
    """An image as uint8 (H, W, 3), turned by its EXIF tag if its annotations mean it so.

    Raises UnreadableImage, also if its size is another either way: detectron2 ends the run over
    that (data/detection_utils.py, check_image_size); here it counts as an image that cannot be
    read.
    """
    path = split.path(index)
    expected = tuple(split.sizes[index].tolist())
    pixels = decode(path, upright=True)
    found = pixels.shape[:2]
    if found != expected and found == expected[::-1]:
        pixels = decode(path)  # its tag turns it, and the annotations do not
    if pixels.shape[:2] != expected:
        (height, width), (own_height, own_width) = found, expected
        raise UnreadableImage(
            path,
            f"is {width} wide and {height} high; expected {own_width} and {own_height} as its "
            "annotations say: correct the file or the numbers",
        )
    return pixels
