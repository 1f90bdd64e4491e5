"""Training a tokenizer, wearing the face of a task."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.reading import Reading
from backbones.report import LoadReport
from mae_bench.errors import RunError
from mae_bench.pretraining.discrete_vae import DiscreteVAE
from mae_bench.pretraining.methods.tokenizer import TokenizerRecipe
from mae_bench.pretraining.pictures import sheet
from mae_bench.pretraining.task import PretrainingTask
from mae_bench.pretraining.tokenizer import DECODER
from mae_bench.run.files import TOKENIZER_FILE, atomic
from tasks.pictures import spread
from tasks.task import SCORING, Batch, Scored, Scoring

PICTURE_FILE = "reconstructions.png"
NUM_PICTURED = 12
SAMPLED_IMAGES = 1000
"""whose codes are counted: 1,024,000 of 256 pixels, for 8,192 codes"""
SAMPLED_AT_ONCE = 50


class TokenizerPretraining(PretrainingTask):
    """Images and the discrete VAE, with its two annealed numbers."""

    method = "tokenizer"
    recipe: TokenizerRecipe
    epochs_done: Tensor
    """of training: `done`, where a state keeps it"""

    def __init__(self, recipe: TokenizerRecipe, folders: list[Path], seed: int) -> None:
        super().__init__(recipe, folders, seed)
        self.vae = DiscreteVAE(recipe.width, recipe.depth, recipe.codebook, recipe.narrow)
        self.register_buffer("epochs_done", torch.zeros((), dtype=torch.float64))
        self.done = 0.0
        self.register_load_state_dict_post_hook(lambda *_: self.take_up())
        self.counted: dict[str, float] = {}

    @property
    def encoder(self) -> None:
        """There is none that downstream tasks could take."""

    def start_from(self, checkpoint: str | Path, reading: Reading) -> LoadReport:
        raise RunError("--checkpoint: --method tokenizer starts from random weights; leave it out")

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.vae(batch["images"], self.temperature(), self.kl_weight())

    def after_step(self, step: int, num_steps: int) -> None:
        self.done = self.recipe.epochs * step / num_steps
        self.epochs_done.fill_(self.done)

    def take_up(self) -> None:
        """Go on from a state that was loaded: the one time that the device is asked."""
        self.done = self.epochs_done.item()

    def temperature(self) -> float:
        first, last = self.recipe.temperature, self.recipe.last_temperature
        return first + (last - first) * self.risen(self.recipe.temperature_epochs)

    def kl_weight(self) -> float:
        return self.recipe.kl_weight * self.risen(self.recipe.kl_epochs)

    def risen(self, epochs: float) -> float:
        """From 0 to 1 in so many epochs, along a half-cosine."""
        done = min(1.0, self.done / epochs) if epochs else 1.0
        return (1 - math.cos(math.pi * done)) / 2

    @torch.no_grad()
    def evaluate(self, how: Scoring = SCORING) -> Scored:
        """How many codes a seeded sample of training images has, and their perplexity.

        As many codes as the perplexity says, evenly used, would tell as much. Raises `RunError` for
        a codebook that has collapsed to one code, which tells nothing.
        """
        count = min(SAMPLED_IMAGES, len(self.images))
        chosen = np.random.default_rng(self.images.seed).choice(
            len(self.images), count, replace=False
        )
        uses = torch.zeros(self.recipe.codebook, dtype=torch.float64)
        for start in range(0, count, SAMPLED_AT_ONCE):
            keys = [(0, int(i)) for i in chosen[start : start + SAMPLED_AT_ONCE]]
            images = self.images.__getitems__(keys)["images"].to(self.mean.device)
            tokens = self.vae.encoder.tokens(images).flatten().cpu()
            uses += tokens.bincount(minlength=len(uses))
        shares = uses / uses.sum()
        entropy = torch.special.entr(shares).sum().item()
        self.counted = {"codes_used": float((uses > 0).sum()), "perplexity": math.exp(entropy)}
        if self.counted["codes_used"] < 2:
            raise RunError(
                f"the codebook has collapsed: one of {len(uses):,} codes names every patch of "
                f"{count:,} images, so there is nothing to predict; train with a smaller "
                "--kl-weight, a lower --base-lr or another --seed, under another --name"
            )
        return Scored(dict(self.counted))

    def whole(self) -> tuple[str, dict[str, Tensor]]:
        decoder = {f"{DECODER}{k}": v for k, v in self.vae.decoder.state_dict().items()}
        return TOKENIZER_FILE, self.vae.encoder.state_dict() | decoder

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"codes_used": str(int(self.counted["codes_used"]))}

    def picture(self, folder: Path) -> tuple[str, Path]:
        """Images from all over the training set, and what their codes alone say of them."""
        keys = [(0, i) for i in spread(len(self.images), NUM_PICTURED)]
        images = self.images.__getitems__(keys)["images"].to(self.mean.device)
        rows = {"original": images / 255, "from its codes": self.vae.eval().reconstruct(images)}
        codes = self.vae.encoder.tokens(images)
        below = [f"{len(each.unique())} codes of {len(each)}" for each in codes]
        file = folder / PICTURE_FILE
        with atomic(file) as stream:
            sheet({k: each.cpu() for k, each in rows.items()}, below).save(stream, "PNG")
        return "reconstructions", file
