"""Augmentation of training images, one by one and as normalised batches.

timm's RandAugment, mixup and erasing draw from the global generators of `random` and numpy, so
each use seeds those for its own duration.
"""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import Mixup, auto_augment
from timm.data.auto_augment import RandAugment, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from backbones.colour import Colour
from tasks.classification.recipe import ClassificationRecipe
from tasks.images import Box, decode_box, random_resized_crop_box, resize


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Seed `random` and numpy's global generator inside; restore their states afterwards.

    Not for threads: the generators are shared by the whole process.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 timm's
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 timm's
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002 timm's


def clipped_crop_box(
    rng: np.random.Generator,
    height: int,
    width: int,
    area: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A random box (top, left, height, width), drawn once and clipped to the image.

    MAE's linear probe crops so (util/crop.py, after BYOL's); fine-tuning redraws instead.
    """
    target = height * width * rng.uniform(*area)
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    w = min(round(math.sqrt(target * aspect)), width)
    h = min(round(math.sqrt(target / aspect)), height)
    w, h = max(w, 1), max(h, 1)
    return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w


def rand_augment_of(recipe: ClassificationRecipe, mean: Colour) -> RandAugment | None:
    """timm's RandAugment with the parameters that `timm.data.create_transform` gives it."""
    if recipe.rand_augment is None:
        return None
    parameters = {
        "translate_const": int(recipe.image_size * 0.45),
        "img_mean": tuple(min(255, round(255 * channel)) for channel in mean),
        "interpolation": Image.Resampling.BICUBIC,
    }
    policy = rand_augment_transform(recipe.rand_augment, parameters)
    for op in policy.ops:
        if op.aug_fn is auto_augment.posterize:
            op.aug_fn = posterize
    return policy


def posterize(image: Image.Image, bits: int, **unused: Any) -> Image.Image:
    """timm's operation, black at 0 bits.

    The released recipe draws 0 bits now and then (magnitude 10). Pillow used to turn that into
    black, which its newer versions refuse with a ValueError.
    """
    if bits == 0:
        return Image.new(image.mode, image.size)
    return auto_augment.posterize(image, bits, **unused)


class SampleAugment:
    """Random resized crop, flip and RandAugment of one image."""

    def __init__(self, recipe: ClassificationRecipe, mean: Colour) -> None:
        self.recipe = recipe
        self.rand_augment = rand_augment_of(recipe, mean)

    def __call__(self, path: Path | str, rng: np.random.Generator, upright: bool = False) -> Tensor:
        """The training view of an image file, uint8 (3, S, S); all randomness is from `rng`.

        `upright`: turned by its EXIF tag. Raises UnreadableImage.
        """
        recipe = self.recipe
        draw = random_resized_crop_box if recipe.oversize_crop == "redraw" else clipped_crop_box
        area = (recipe.min_crop_area, 1.0)
        pixels = decode_box(path, lambda height, width: draw(rng, height, width, area), upright)
        crop = resize(pixels, recipe.image_size, flip=rng.random() < recipe.flip_prob)
        if self.rand_augment is None:
            return crop
        with seeded_globals(int(rng.integers(2**32))):
            augmented = self.rand_augment(Image.fromarray(crop.permute(1, 2, 0).numpy()))
        return torch.from_numpy(np.array(augmented)).permute(2, 0, 1)


class BatchAugment:
    """Random erasing, then mixup or cutmix, of a normalised batch on its device."""

    def __init__(self, recipe: ClassificationRecipe, num_classes: int) -> None:
        self.erase_prob = recipe.erase_prob
        self.mix: Mixup | None = None
        if recipe.mixup or recipe.cutmix:
            self.mix = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                prob=1.0,
                switch_prob=recipe.mix_switch_prob,
                mode="batch",
                label_smoothing=recipe.label_smoothing,
                num_classes=num_classes,
            )

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Images float (B, 3, S, S), changed in place, and class indices (B,); B even to mix.

        The targets come back as they are, or as probabilities (B, K) where images are mixed.
        Everything random comes from torch's global generators.
        """
        with seeded_globals(int(torch.randint(2**32, ()))):
            if self.erase_prob:
                erase = RandomErasing(self.erase_prob, mode="pixel", device=str(images.device))
                images = erase(images)
            if self.mix:
                images, targets = self.mix(images, targets)
        return images, targets
