"""Crops of images: the random one of training and the centred one of evaluation."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as pillow

from tasks.images.decoding import Box, cut, decode, decode_box
from tasks.images.jitter import Jitter

MOST_RESIZED = 2**26
"""pixels to which a test image is resized before its centre is cut: 256 MiB, reached by sides as 1
to 1000 at a size of 224"""


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator behind everything random about one sample; each number below 2^32.

    The stream is that of `default_rng([seed, epoch, index])`, made in half the time.
    """
    return np.random.default_rng(np.array((seed, epoch, index), dtype=np.uint32))


def random_resized_crop_box(
    rng: np.random.Generator,
    height: int,
    width: int,
    area: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A random box within an image, distributed as in torchvision's RandomResizedCrop.

    Its share of the image's area is uniform in `area` and the logarithm of its aspect (width by
    height) uniform in `ratio`; a box that does not fit is drawn again up to ten times, and then
    the largest centred one with an aspect in `ratio` is taken.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        pixels = height * width * (area[0] + (area[1] - area[0]) * rng.random())
        aspect = math.exp(low + (high - low) * rng.random())
        w = round(math.sqrt(pixels * aspect))
        h = round(math.sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.random() * (height - h + 1))
            left = int(rng.random() * (width - w + 1))
            return top, left, h, w
    h, w = height, width
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def square_box(
    height: int, width: int, share: float, rng: np.random.Generator | None = None
) -> Box:
    """A square of `share` of an image's shorter side; in its middle, or drawn from `rng`.

    Resized to 224 it is what Resize(256) and CenterCrop(224) or RandomCrop(224) cut, at 0.875.
    """
    side = max(1, round(share * min(height, width)))
    rows, columns = height - side + 1, width - side + 1
    if rng is None:
        return rows // 2, columns // 2, side, side
    return int(rng.random() * rows), int(rng.random() * columns), side, side


class Crop(NamedTuple):
    """A box of an image, not yet resized."""

    pixels: np.ndarray
    """uint8 (h, w, 3)"""
    flip: bool
    """whether to mirror it"""
    jitter: Jitter | None = None
    """of its colours, after it is resized"""

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes


def draw_crop(
    path: Path | str,
    rng: np.random.Generator,
    area: tuple[float, float],
    upright: bool = False,
) -> Crop:
    """A random box of an image, half of them to be mirrored; `upright`: see `decode`.

    Draws from `rng` in the order of RandomResizedCrop and RandomHorizontalFlip. Raises
    UnreadableImage.
    """
    pixels = decode_box(path, lambda h, w: random_resized_crop_box(rng, h, w, area), upright)
    return Crop(pixels, flip=rng.random() < 0.5)


def random_crop(
    path: Path | str, size: int, rng: np.random.Generator, area: tuple[float, float]
) -> Tensor:
    """The training view of an image, uint8 (3, size, size): `draw_crop` and `resize`."""
    crop = draw_crop(path, rng, area)
    return resize(crop.pixels, size, crop.flip)


def crop_resize(image: np.ndarray, box: Box, size: int, flip: bool) -> Tensor:
    """`box` of a uint8 (H, W, 3) image, resized to uint8 (3, size, size), mirrored if `flip`.

    Bicubic and antialiased, like Pillow's resize of the same crop but for rounding: 70 dB and
    more from it where Pillow resizes rows before columns, as torch does (and every Pillow did up
    to version 12), about 54 dB where it goes the other way round.
    """
    return resize(cut(image, box), size, flip)


def resize(image: np.ndarray, size: int, flip: bool, mode: str = "bicubic") -> Tensor:
    """A uint8 (H, W, 3) image, resized to uint8 (3, size, size), mirrored if `flip`.

    `mode`: bicubic or bilinear, with antialiasing.

    The result has its channels last in memory, as it was decoded.
    """
    # torch's vectorised uint8 kernel takes and gives channels last without another copy, but only
    # if the strides say so in full: of the batch axis too, which numpy's [None] would leave at 0.
    batch = torch.from_numpy(np.array(image, order="C")).unsqueeze(0).permute(0, 3, 1, 2)
    resized = F.interpolate(batch, size=(size, size), mode=mode, antialias=True)
    return (resized.flip(3) if flip else resized)[0]


def eval_crop(
    image: Path | str | Image.Image, size: int, crop_ratio: float, upright: bool = False
) -> Tensor:
    """The centre of an image as uint8 (3, size, size), to the bit as torchvision cuts it.

    Resize(int(size / crop_ratio), bicubic, by Pillow), then CenterCrop(size): the evaluation
    transform of facebookresearch/mae, util/datasets.py. `upright`: see `decode`. Raises
    UnreadableImage.
    """
    if not isinstance(image, Image.Image):
        image = Image.fromarray(decode(image, upright))
    shorter_side = int(size / crop_ratio)
    image = image.convert("RGB")
    if shorter_side**2 * max(image.size) / min(image.size) > MOST_RESIZED:
        resized = resize_middle(image, shorter_side, size)
    else:
        resized = pillow.resize(image, shorter_side, InterpolationMode.BICUBIC)
    return pillow.pil_to_tensor(pillow.center_crop(resized, size))


def resize_middle(image: Image.Image, shorter_side: int, size: int) -> Image.Image:
    """What CenterCrop(size) needs of a long image after Resize(shorter_side), and no more.

    Its longer side is `size`. Within two grey levels of torchvision, which would ask for the memory
    of the whole: a row of 60,000 pixels is resized to 15 million by 256.
    """
    longer, shorter = max(image.size), min(image.size)
    resized = int(shorter_side * longer / shorter)
    scale = longer / resized
    first = round((resized - size) / 2)
    begin, end = first * scale, (first + size) * scale
    reach = math.ceil(2 * max(scale, 1)) + 1  # of the bicubic filter
    low, high = max(0, math.floor(begin) - reach), min(longer, math.ceil(end) + reach)
    if image.width == longer:
        part = image.crop((low, 0, high, shorter))
        shape, box = (size, shorter_side), (begin - low, 0.0, end - low, float(shorter))
    else:
        part = image.crop((0, low, shorter, high))
        shape, box = (shorter_side, size), (0.0, begin - low, float(shorter), end - low)
    return part.resize(shape, Image.Resampling.BICUBIC, box)
