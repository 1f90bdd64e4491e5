"""Two random views of each image, as MoCo v3 makes them."""

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms import functional as pillow

from mae_bench.pretraining.methods.moco_v3 import MocoRecipe
from tasks.images import UnlabelledImages, decode, load_batch, sample_rng
from tasks.images.crops import random_resized_crop_box, resize
from tasks.images.decoding import Box, cut
from tasks.images.jitter import Jitter
from tasks.task import Batch


class View(NamedTuple):
    """What is done to an image, as it was drawn."""

    box: Box
    jitter: Jitter | None
    grey: bool
    blur: float | None
    """standard deviation, pixels"""
    solarise: bool
    flip: bool

    def of(self, pixels: np.ndarray, size: int) -> Tensor:
        """The view uint8 (3, size, size) of an image (H, W, 3)."""
        crop = resize(cut(pixels, self.box), size, False, "bilinear")
        image = Image.fromarray(crop.permute(1, 2, 0).numpy())
        if self.jitter is not None:
            image = self.jitter.apply(image)
        if self.grey:
            image = image.convert("L").convert("RGB")
        if self.blur is not None:
            image = image.filter(ImageFilter.GaussianBlur(self.blur))
        if self.solarise:
            image = ImageOps.solarize(image)
        view = pillow.pil_to_tensor(image)
        return view.flip(2) if self.flip else view


class Views(NamedTuple):
    """An image before its views are made."""

    pixels: np.ndarray
    views: tuple[View, View]

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes


class TwoViews:
    """Training data (`tasks.task.TrainData`): two views of each image, by the recipe's numbers.

    Source: facebookresearch/moco-v3, main_moco.py, with BYOL's asymmetric pair (2006.07733).
    """

    def __init__(self, images: UnlabelledImages, recipe: MocoRecipe, seed: int) -> None:
        self.images, self.recipe, self.seed = images, recipe, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        """ "images" uint8 (B, 6, S, S): the first view's channels, then the second's."""
        return load_batch(keys, self.load, self.images.all_names, finish=self.finish)

    def load(self, epoch: int, index: int) -> Views:
        """One image and its views. Raises UnreadableImage."""
        pixels = decode(self.images.all_names[index], self.images.upright)
        rng = sample_rng(self.seed, epoch, index)
        height, width = pixels.shape[:2]
        first, second = (self.draw(rng, height, width, place) for place in (0, 1))
        return Views(pixels, (first, second))

    def draw(self, rng: np.random.Generator, height: int, width: int, place: int) -> View:
        """The first (0) or the second (1) view of an image."""
        r = self.recipe
        box = random_resized_crop_box(rng, height, width, (r.min_crop_area, 1.0))
        jitter = None
        if rng.random() < r.jitter_prob:
            jitter = Jitter.draw(rng, r.jitter, r.saturation_jitter, r.hue_jitter)
        grey = rng.random() < r.grey_prob
        blurred = rng.random() < r.blur_probs[place]
        blur = rng.uniform(*r.blur_sigma) if blurred else None
        solarise = place == 1 and rng.random() < r.solarise_prob
        return View(box, jitter, grey, blur, solarise, flip=rng.random() < 0.5)

    def finish(self, sample: Views) -> Tensor:
        size = self.recipe.image_size
        return torch.cat([view.of(sample.pixels, size) for view in sample.views])

    def names(self, indices: list[int]) -> list[str]:
        return self.images.names(indices)
