"""The masked autoencoder as a method of pre-training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from backbones.reading import Reading
from backbones.report import LoadReport
from backbones.vit import ViT
from mae_bench.pretraining.autoencoder import MaskedAutoencoder
from mae_bench.pretraining.data import BlockMasked
from mae_bench.pretraining.methods.mae import MaeRecipe
from mae_bench.pretraining.pictures import reconstruction_sheet
from mae_bench.pretraining.recipes import CODE_PIXELS
from mae_bench.pretraining.task import PretrainingTask
from mae_bench.pretraining.token_views import TokenViews
from mae_bench.run.files import MAE_FILE
from tasks.images import UnlabelledImages
from tasks.pictures import spread
from tasks.task import Batch

SAMPLED_IMAGES = 1000
"""whose patches principal components are fitted to: 196,000 of 224 pixels, for 768 dimensions"""
SAMPLED_AT_ONCE = 50
PICTURE_FILE = "reconstructions.png"
NUM_PICTURED = 12


class MaskedPretraining(PretrainingTask):
    """Images, the autoencoder and its loss."""

    method = "mae"
    recipe: MaeRecipe

    def __init__(self, recipe: MaeRecipe, folders: list[Path], seed: int) -> None:
        super().__init__(recipe, folders, seed)
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
            recipe.codebook,
        )
        if recipe.target == "tokens":  # MAE does not say which view; as BEiT's, of the same crop
            token_size = CODE_PIXELS * self.mae.encoder.grid_size
            self.train_data = TokenViews(self.images, token_size)
        if recipe.mask == "block":
            num_masked = self.mae.num_patches - self.mae.num_visible
            side = self.mae.encoder.grid_size
            self.train_data = BlockMasked(self.train_data, seed, side, num_masked)
        self.fit_components()

    def cuts(self) -> dict[str, Any]:
        names = ("augmentation", "fixed_crop", "colour_jitter")
        return {name: getattr(self.recipe, name) for name in names}

    @property
    def encoder(self) -> ViT:
        return self.mae.encoder

    def start_from(self, checkpoint: str | Path, reading: Reading) -> LoadReport:
        return self.mae.continue_from(checkpoint, reading)

    def continue_from(self, checkpoint: str | Path, reading: Reading) -> LoadReport:
        report = super().continue_from(checkpoint, reading)
        self.fit_components()
        return report

    def fit_components(self) -> None:
        """The target's principal components, if it has any, to the pixels as they are seen."""
        if self.mae.components is not None:
            self.mae.components.fit(self.sample_patches(self.images))

    def sample_patches(self, images: UnlabelledImages) -> Iterator[Tensor]:
        """Patches (B, N, 3·p·p) of a seeded sample of the images."""
        count = min(SAMPLED_IMAGES, len(images))
        chosen = np.random.default_rng(images.seed).choice(len(images), count, replace=False)
        for start in range(0, count, SAMPLED_AT_ONCE):
            keys = [(0, int(i)) for i in chosen[start : start + SAMPLED_AT_ONCE]]
            yield self.mae.pixels(self.normalise(images.__getitems__(keys)["images"]))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        images, noise = self.normalise(batch["images"]), batch.get("noise")
        tokens = self.tokens(batch["token_images"]) if self.recipe.target == "tokens" else None
        return {"loss": self.mae(images, noise, tokens).loss}

    def whole(self) -> tuple[str, dict[str, Tensor]]:
        return MAE_FILE, self.mae.checkpoint()

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"norm_pix": self.recipe.norm_pix}

    def picture(self, folder: Path) -> tuple[str, Path] | None:
        """Reconstructions of images from all over the training set, so of many classes.

        There are none where tokens are predicted, in place of pixels.
        """
        if self.recipe.target == "tokens":
            return None
        keys = [(0, i) for i in spread(len(self.train_data), NUM_PICTURED)]
        file = folder / PICTURE_FILE
        reconstruction_sheet(self, self.train_data.__getitems__(keys), file)
        return "reconstructions", file
