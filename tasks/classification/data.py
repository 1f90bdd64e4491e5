"""Training and test images of a classification data set."""

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from backbones.colour import Colour
from tasks.classification.augment import SampleAugment
from tasks.classification.layout import Split
from tasks.classification.recipe import ClassificationRecipe
from tasks.errors import TaskError
from tasks.images import Unreadable, UnreadableImage, eval_crop, load_batch, sample_rng
from tasks.task import Batch


class TrainImages:
    """Augmented training batches; see `tasks.task.TrainData`.

    A batch is {"images": uint8 (B, 3, S, S), "targets": int64 (B,), "index": int64 (B,),
    "skipped": `Unreadable` ones}. A sample depends on (seed, epoch, index) alone.
    """

    def __init__(self, split: Split, recipe: ClassificationRecipe, mean: Colour, seed: int) -> None:
        if not 0 <= seed < 2**32:
            raise TaskError(f"seed is {seed}; expected a whole number from 0 to 2^32 - 1")
        self.split = split
        self.seed = seed
        self.augment = SampleAugment(recipe, mean)

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        batch = load_batch(keys, self.load, self.split.names)
        batch["targets"] = torch.from_numpy(self.split.targets)[batch["index"]]
        return batch

    def load(self, epoch: int, index: int) -> Tensor:
        """One augmented image, uint8 (3, S, S)."""
        rng = sample_rng(self.seed, epoch, index)
        return self.augment(self.split.path(index), rng, self.split.upright)

    def names(self, indices: list[int]) -> list[str]:
        return [self.split.names[index] for index in indices]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and a model's averaged copy must not double it


class EvalImages(Dataset[Batch]):
    """Centre crops of the test images, by whole batches, without those that do not decode."""

    def __init__(self, split: Split, size: int, crop_ratio: float) -> None:
        self.split = split
        self.size = size
        self.crop_ratio = crop_ratio

    def __len__(self) -> int:
        """Images, not batches."""
        return len(self.split)

    def __getitem__(self, indices: list[int]) -> Batch:
        """{"images": uint8 (B, 3, S, S), "targets": int64 (B,), "index": int64 (B,), "skipped"}.

        B counts the readable ones of `indices` and may be 0; "skipped" names the others.
        """
        crops, kept, skipped = [], [], []
        for index in indices:
            try:
                path, upright = self.split.path(index), self.split.upright
                crops.append(eval_crop(path, self.size, self.crop_ratio, upright))
                kept.append(index)
            except UnreadableImage as error:
                skipped.append(Unreadable(self.split.names[index], error.reason))
        rows = np.array(kept, dtype=np.int64)
        return {
            "images": torch.stack(crops) if crops else torch.empty(0, dtype=torch.uint8),
            "targets": torch.from_numpy(self.split.targets[rows]),
            "index": torch.from_numpy(rows),
            "skipped": skipped,
        }
