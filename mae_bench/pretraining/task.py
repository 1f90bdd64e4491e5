"""The masked autoencoder wearing the face of a task."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.colour import IMAGENET_MEAN, IMAGENET_STD
from backbones.reading import Reading
from backbones.report import LoadReport
from mae_bench.pretraining.autoencoder import MaskedAutoencoder
from mae_bench.pretraining.data import BlockMasked
from mae_bench.pretraining.recipes import PretrainRecipe
from tasks.classification.class_folders import named_by_wnids
from tasks.classification.datasets import IMAGENET_1K
from tasks.images import UnlabelledImages
from tasks.task import SCORING, Batch, Scored, Scoring, Task, TrainData

SAMPLED_IMAGES = 1000
"""whose patches principal components are fitted to: 196,000 of 224 pixels, for 768 dimensions"""
SAMPLED_AT_ONCE = 50


class Pretraining(Task):
    """Images, the autoencoder and its loss."""

    recipe: PretrainRecipe
    train_data: TrainData
    mean: Tensor
    std: Tensor

    def __init__(self, recipe: PretrainRecipe, folders: list[Path], seed: int) -> None:
        super().__init__()
        self.recipe, self.folders = recipe, folders
        size, area = recipe.image_size, recipe.min_crop_area
        upright = not all(named_by_wnids(folder) for folder in folders)
        self.images = images = UnlabelledImages(folders, size, area, seed, upright)
        self.train_data = images
        self.mae = MaskedAutoencoder(
            recipe.backbone,
            recipe.image_size,
            recipe.norm_pix,
            recipe.mask_ratio,
            recipe.decoder_dim,
            recipe.decoder_depth,
            recipe.decoder_heads,
            recipe.mask,
            recipe.target,
            recipe.encoder_mask_tokens,
        )
        if recipe.mask == "block":
            num_masked = self.mae.num_patches - self.mae.num_visible
            self.train_data = BlockMasked(images, seed, self.mae.encoder.grid_size, num_masked)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        if self.mae.components is not None:
            self.mae.components.fit(self.sample_patches(images))

    def continue_from(self, checkpoint: str | Path, reading: Reading) -> LoadReport:
        """Start from a checkpoint's weights and its pixel statistics."""
        report = self.mae.continue_from(checkpoint, reading)
        self.mean.copy_(torch.tensor(report.pixel_mean).view(3, 1, 1))
        self.std.copy_(torch.tensor(report.pixel_std).view(3, 1, 1))
        if self.mae.components is not None:
            self.mae.components.fit(self.sample_patches(self.images))
        return report

    def sample_patches(self, images: UnlabelledImages) -> Iterator[Tensor]:
        """Patches (B, N, 3·p·p) of a seeded sample of the images."""
        count = min(SAMPLED_IMAGES, len(images))
        chosen = np.random.default_rng(images.seed).choice(len(images), count, replace=False)
        for start in range(0, count, SAMPLED_AT_ONCE):
            keys = [(0, int(i)) for i in chosen[start : start + SAMPLED_AT_ONCE]]
            yield self.mae.pixels(self.normalise(images.__getitems__(keys)["images"]))

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) to float, ImageNet's mean and deviation taken out, or the weights'."""
        return images.float().sub_(255 * self.mean).div_(255 * self.std)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.mae(self.normalise(batch["images"]), batch.get("noise")).loss}

    def layer_index(self, name: str) -> int:
        return 0  # layer decay is a fine-tuning device

    @property
    def num_layers(self) -> int:
        return 0

    def data_facts(self) -> dict[str, Any]:
        """See `Task`."""
        images, root = self.images, Path(os.path.commonpath(self.folders))
        return {
            "name": root.resolve().name,
            "fingerprint": images.fingerprint,
            "train_images": len(images),
            "val_images": 0,
            "classes": 0,
            "standard": len(images) == IMAGENET_1K.num_train,
            "upright": images.upright,
        }

    def notes(self) -> list[str]:
        return self.images.notes()

    def evaluate(self, how: Scoring = SCORING) -> Scored:
        return Scored({})
