"""Training crops and test images of a segmentation data set, with their labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tasks.ade20k.augment import Augment, opencv, pad_image, pad_labels, resize_for_test
from tasks.ade20k.classes import ClassRule
from tasks.ade20k.datasets import IGNORED
from tasks.ade20k.labels import read_label
from tasks.ade20k.layout import SegmentationData, SegmentationSplit
from tasks.errors import TaskError
from tasks.images import Unreadable, UnreadableImage, decode, load_batch, sample_rng
from tasks.task import Batch


@dataclass(frozen=True, eq=False)
class Sample:
    """One training view, not yet padded."""

    pixels: np.ndarray
    """uint8 (h, w, 3)"""
    labels: np.ndarray
    """uint8 (h, w)"""

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes + self.labels.nbytes


class TrainImages:
    """Training batches of random crops; see `tasks.task.TrainData`.

    A sample depends on (seed, epoch, index) alone. The arguments are those of
    `tasks.ade20k.augment.Augment`.
    """

    def __init__(
        self,
        data: SegmentationData,
        crop_size: int,
        scale: tuple[int, int],
        ratio_range: tuple[float, float],
        max_class_share: float,
        flip_prob: float,
        photometric: bool,
        seed: int,
    ) -> None:
        if not 0 <= seed < 2**32:
            raise TaskError(f"seed is {seed}; expected a whole number from 0 to 2^32 - 1")
        opencv()  # if it is missing, that shows here and not in a loading process
        self.split = data.train
        self.rule = data.rule
        self.augment = Augment(
            crop_size, scale, ratio_range, max_class_share, flip_prob, photometric
        )
        self.seed = seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        """The samples (epoch, index), each that cannot be read replaced as by `load_batch`.

        {"images": uint8 (B, 3, S, S), zeros to the right of and below the image (a model that
        normalises has to set them to zero again); "sizes": int64 (B, 2), height and width without
        them; "labels": uint8 (B, S, S), class indices, 255 where nothing counts; "index": int64
        (B,); "skipped": names of images that are unreadable, or whose label image is or does not
        fit}.
        """
        samples: list[Sample] = []
        size = self.augment.crop_size

        def finish(sample: Sample) -> Tensor:
            samples.append(sample)
            return torch.from_numpy(pad_image(sample.pixels, size))

        batch = load_batch(keys, self.load, self.split.names, finish)
        batch["sizes"] = torch.tensor([sample.labels.shape for sample in samples])
        labels = np.stack([pad_labels(sample.labels, size) for sample in samples])
        batch["labels"] = torch.from_numpy(labels)
        return batch

    def load(self, epoch: int, index: int) -> Sample:
        """One sample. Raises UnreadableImage."""
        rng = sample_rng(self.seed, epoch, index)
        return Sample(*self.augment(*decode_pair(self.split, index, self.rule), rng))

    def names(self, indices: list[int]) -> list[str]:
        return [self.split.names[index] for index in indices]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and a model's averaged copy must not double it


class EvalImages(Dataset[Batch]):
    """The test images, one at a time since their sizes differ: for DataLoader(batch_size=None)."""

    def __init__(self, data: SegmentationData, scale: tuple[int, int]) -> None:
        opencv()
        self.split = data.val
        self.rule = data.rule
        self.scale = scale
        """longest and shortest side that a resized image fits in, pixels"""

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Batch:
        """An image resized to fit in `scale`, with its labels in the original size.

        {"image": uint8 (3, h, w), channels last in memory; "label": uint8 (H, W), class indices,
        255 where nothing counts; "index": int; "skipped": names, empty unless the image or its
        label image cannot be read, or they do not fit: then both have no pixels, (3, 0, 0) and
        (0, 0)}.
        """
        try:
            pixels, labels = decode_pair(self.split, index, self.rule)
        except UnreadableImage as error:
            return {
                "image": torch.empty(3, 0, 0, dtype=torch.uint8),
                "label": torch.empty(0, 0, dtype=torch.uint8),
                "index": index,
                "skipped": [Unreadable(self.split.names[index], error.reason)],
            }
        return {
            "image": torch.from_numpy(resize_for_test(pixels, self.scale)),
            "label": torch.from_numpy(labels),
            "index": index,
            "skipped": [],
        }

    def names(self, indices: list[int]) -> list[str]:
        return [self.split.names[index] for index in indices]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and a model's averaged copy must not double it


class UnreadableLabel(UnreadableImage):
    """An image that cannot be used because of its label image, which the message names.

    Its reason is told beside the name of the image.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(path, reason)
        self.reason = f"its label image {reason}"

    def __str__(self) -> str:
        return f"{self.path} {self.args[1]}"


def decode_pair(
    split: SegmentationSplit, index: int, rule: ClassRule
) -> tuple[np.ndarray, np.ndarray]:
    """An image, uint8 (H, W, 3), and its labels, uint8 (H, W).

    An image is turned by its EXIF tag unless the label image fits the stored pixels alone, or
    `split.upright` says otherwise where either fits: mmcv, image/io.py (imread), turns images, and
    mmsegmentation, datasets/transforms/loading.py, reads label images as they are stored.

    Without label images no pixel is labelled. Raises UnreadableImage if one cannot be read, or if
    their sizes differ.
    """
    if not len(split.label_names):
        pixels = decode(split.path(index), upright=split.upright)
        return pixels, np.full(pixels.shape[:2], IGNORED, np.uint8)
    try:
        labels = read_label(split.label_path(index), rule)
    except UnreadableImage as error:
        raise UnreadableLabel(error.path, error.reason) from error
    for upright in (split.upright, not split.upright):
        pixels = decode(split.path(index), upright=upright)
        if pixels.shape[:2] == labels.shape:
            return pixels, labels
    (height, width), (label_height, label_width) = pixels.shape[:2], labels.shape
    raise UnreadableLabel(
        split.label_path(index),
        f"is {label_width} wide and {label_height} high; expected the size of its image, {width} "
        f"and {height}: write it anew",
    )
