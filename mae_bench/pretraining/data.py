"""Images with the masks that are drawn where they are loaded."""

from collections.abc import Sequence

import numpy as np
import torch

from mae_bench.pretraining import masks
from tasks.task import Batch, TrainData


class BlockMasked:
    """Training data (`tasks.task.TrainData`) whose batches have the noise of block-wise masks.

    Drawing them takes longer than drawing random ones, so the loading processes do it, from
    (seed, epoch, index).
    """

    def __init__(self, images: TrainData, seed: int, side: int, num_masked: int) -> None:
        self.images, self.seed, self.side, self.num_masked = images, seed, side, num_masked

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """The images' batch, with "noise" float32 (B, N) more."""
        noise = [self.noise(*key) for key in keys]
        return self.images.__getitems__(list(keys)) | {"noise": torch.from_numpy(np.stack(noise))}

    def noise(self, epoch: int, index: int) -> np.ndarray:
        """See `masks.block`."""
        rng = np.random.default_rng([self.seed, epoch, index, 1])  # the crop's has three numbers
        return masks.block(rng, self.side, self.num_masked)

    def names(self, indices: Sequence[int]) -> list[str]:
        return self.images.names(list(indices))
