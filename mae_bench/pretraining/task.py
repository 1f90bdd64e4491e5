"""The masked autoencoder wearing the face of a task."""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.colour import IMAGENET_MEAN, IMAGENET_STD
from mae_bench.pretraining.autoencoder import MaskedAutoencoder
from mae_bench.pretraining.recipes import PretrainRecipe
from tasks.classification.datasets import IMAGENET_1K
from tasks.images import UnlabelledImages
from tasks.task import Batch, Scored, Task


class Pretraining(Task):
    """Images, the autoencoder and its loss."""

    recipe: PretrainRecipe
    train_data: UnlabelledImages
    mean: Tensor
    std: Tensor

    def __init__(self, recipe: PretrainRecipe, folders: list[Path], seed: int) -> None:
        super().__init__()
        self.recipe, self.folders = recipe, folders
        size, area = recipe.image_size, recipe.min_crop_area
        self.train_data = UnlabelledImages(folders, size, area, seed)
        self.mae = MaskedAutoencoder(
            recipe.backbone,
            recipe.image_size,
            recipe.norm_pix,
            recipe.mask_ratio,
            recipe.decoder_dim,
            recipe.decoder_depth,
            recipe.decoder_heads,
        )
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) to float with ImageNet's mean and standard deviation."""
        return images.float().sub_(255 * self.mean).div_(255 * self.std)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.mae(self.normalise(batch["images"])).loss}

    def layer_index(self, name: str) -> int:
        return 0  # layer decay is a fine-tuning device

    @property
    def num_layers(self) -> int:
        return 0

    def data_facts(self) -> dict[str, Any]:
        """See `Task`; the fingerprint covers the names of the images, not their pixels."""
        images, root = self.train_data, Path(os.path.commonpath(self.folders))
        names = hashlib.sha256()
        for name in images.names(range(len(images))):
            names.update(os.fsencode(f"{Path(name).relative_to(root)}\n"))
        return {
            "name": root.resolve().name,
            "fingerprint": names.hexdigest()[:16],
            "train_images": len(images),
            "val_images": 0,
            "classes": 0,
            "standard": len(images) == IMAGENET_1K.num_train,
        }

    def evaluate(self, *args: Any, **how: Any) -> Scored:
        return Scored({})
