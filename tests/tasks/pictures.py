"""A picture for tests of image loading."""

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 150, 203


def picture(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Image.Image:
    """Smooth colours, hard edges and noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=float)
    pixels[height // 4 : height // 2, width // 3 :] *= 0.4
    pixels += rng.normal(0, 12, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
