"""Colour jitter, as torchvision's of Pillow images."""

from typing import NamedTuple, Self

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as pillow

STEPS = (
    pillow.adjust_brightness,
    pillow.adjust_contrast,
    pillow.adjust_saturation,
    pillow.adjust_hue,
)


class Jitter(NamedTuple):
    """Changes of an image's colours, as they were drawn."""

    order: tuple[int, ...]
    """of `STEPS`"""
    factors: tuple[float, ...]
    """of brightness, contrast, saturation (1: no change) and hue (turns, 0: no change)"""

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: float, saturation: float, hue: float) -> Self:
        """Distributed as in torchvision's ColorJitter(strength, strength, saturation, hue)."""
        order = tuple(rng.permutation(len(STEPS)).tolist())
        most = (strength, strength, saturation)
        factors = [rng.uniform(max(0, 1 - each), 1 + each) for each in most]
        return cls(order, (*factors, rng.uniform(-hue, hue)))

    def apply(self, image: Image.Image) -> Image.Image:
        """To an RGB image; steps that change nothing are left out."""
        for step in self.order:
            if self.factors[step] != (0 if step == 3 else 1):
                image = STEPS[step](image, self.factors[step])
        return image

    def apply_to(self, image: Tensor) -> Tensor:
        """The same to uint8 (3, S, S)."""
        changed = self.apply(Image.fromarray(image.permute(1, 2, 0).numpy()))
        return pillow.pil_to_tensor(changed)
