"""The discrete VAE of DALL-E (2102.12092), whose codes are the visual tokens of images.

Networks and names are openai/DALL-E's (dall_e/encoder.py, dall_e/decoder.py), of any width.

Shapes: B images of side S, g = S / 8 codes of a side, V codes in the codebook.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.precision import as_they_are

STRIDE = 8
"""pixels of the side of what a code stands for"""
EPS = 0.1
"""pixels are brought to [EPS, 1 - EPS]: dall_e/utils.py"""
WIDTHS = (1, 2, 4, 8)
"""of the four groups of blocks, in units of the network's width"""


def map_pixels(images: Tensor) -> Tensor:
    """uint8 (B, 3, S, S) to what the encoder takes: dall_e/utils.py."""
    return (1 - 2 * EPS) / 255 * images.float() + EPS


def unmap_pixels(mapped: Tensor) -> Tensor:
    """Back to 0 to 1."""
    return ((mapped - EPS) / (1 - 2 * EPS)).clamp(0, 1)


class Residual(nn.Module):
    """Four convolutions behind ReLUs, scaled down by the number of blocks, beside a short cut."""

    def __init__(self, wide_in: int, wide_out: int, kernels: Sequence[int], layers: int) -> None:
        super().__init__()
        self.gain = 1 / layers**2
        self.id_path = nn.Identity() if wide_in == wide_out else conv(wide_in, wide_out, 1)
        hidden = wide_out // 4
        widths = [wide_in, hidden, hidden, hidden, wide_out]
        self.res_path = nn.Sequential()
        for i, kernel in enumerate(kernels, start=1):
            self.res_path.add_module(f"relu_{i}", nn.ReLU())
            self.res_path.add_module(f"conv_{i}", conv(widths[i - 1], widths[i], kernel))

    def forward(self, x: Tensor) -> Tensor:
        return self.id_path(x) + self.gain * self.res_path(x)


class Encoder(nn.Module):
    """Images (B, 3, S, S) of `map_pixels` to logits (B, V, g, g)."""

    def __init__(self, width: int = 256, depth: int = 2, codebook: int = 8192) -> None:
        super().__init__()
        self.width, self.depth, self.codebook = width, depth, codebook
        wide = [width * each for each in WIDTHS]
        self.blocks = nn.Sequential()
        self.blocks.add_module("input", conv(3, width, 7))
        for i, group in enumerate(groups([width, *wide], (3, 3, 3, 1), depth), start=1):
            if i < len(WIDTHS):
                group.add_module("pool", nn.MaxPool2d(2))
            self.blocks.add_module(f"group_{i}", group)
        self.blocks.add_module("output", output(wide[-1], codebook))

    def forward(self, mapped: Tensor) -> Tensor:
        return self.blocks(mapped)

    def tokens(self, images: Tensor) -> Tensor:
        """The codes int64 (B, g · g), row by row, of uint8 images (B, 3, S, S).

        In float32 whatever autocast says, so that a precision of the training does not change
        them; DALL-E's code takes float16 on a GPU.
        """
        with torch.no_grad(), as_they_are(images.device.type):
            return self(map_pixels(images)).argmax(dim=1).flatten(1)


class Decoder(nn.Module):
    """Codes as weights (B, V, g, g) to location and log-scale of a logit-Laplace (B, 6, S, S)."""

    def __init__(self, width: int, depth: int, codebook: int, narrow: int) -> None:
        super().__init__()
        wide = [width * each for each in reversed(WIDTHS)]
        self.blocks = nn.Sequential()
        self.blocks.add_module("input", conv(codebook, narrow, 1))
        for i, group in enumerate(groups([narrow, *wide], (1, 3, 3, 3), depth), start=1):
            if i < len(WIDTHS):
                group.add_module("upsample", nn.Upsample(scale_factor=2, mode="nearest"))
            self.blocks.add_module(f"group_{i}", group)
        self.blocks.add_module("output", output(wide[-1], 6))

    def forward(self, weights: Tensor) -> Tensor:
        return self.blocks(weights)


def groups(widths: Sequence[int], kernels: Sequence[int], depth: int) -> list[nn.Sequential]:
    """Groups of `depth` blocks, from each width to the next."""
    layers = depth * len(WIDTHS)
    made = []
    for before, after in pairwise(widths):
        group = nn.Sequential()
        for i in range(depth):
            block = Residual(after if i else before, after, kernels, layers)
            group.add_module(f"block_{i + 1}", block)
        made.append(group)
    return made


def output(wide_in: int, wide_out: int) -> nn.Sequential:
    head = nn.Sequential()
    head.add_module("relu", nn.ReLU())
    head.add_module("conv", conv(wide_in, wide_out, 1))
    return head


def conv(wide_in: int, wide_out: int, kernel: int) -> nn.Conv2d:
    """A convolution that keeps the size, initialised as dall_e/utils.py does."""
    layer = nn.Conv2d(wide_in, wide_out, kernel, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=1 / math.sqrt(wide_in * kernel**2))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class DiscreteVAE(nn.Module):
    """Encoder and decoder with the relaxed codes between them (2102.12092, section 2.1)."""

    def __init__(self, width: int, depth: int, codebook: int, narrow: int) -> None:
        super().__init__()
        self.encoder = Encoder(width, depth, codebook)
        self.decoder = Decoder(width, depth, codebook, narrow)
        # Images come with their channels last, and convolutions on a CPU are faster so, too.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, temperature: float, kl_weight: float) -> dict[str, Tensor]:
        """The evidence bound's loss of uint8 images (B, 3, S, S), by its parts.

        "reconstruction" is the negative log-likelihood a value of a pixel, "divergence" that of the
        codes from a uniform prior a code, in nats. "loss" weighs them as the sums over an image,
        divided by its values: 192 of them (8 x 8 x 3) to a code.
        """
        mapped = map_pixels(images)
        logits = self.encoder(mapped)
        weights = F.gumbel_softmax(logits, tau=temperature, dim=1)
        location, log_scale = self.decoder(weights).float().chunk(2, dim=1)
        reconstruction = logit_laplace(mapped, location, log_scale).mean()
        log_q = logits.float().log_softmax(dim=1)
        uniform = math.log(logits.shape[1])
        divergence = (log_q.exp() * (log_q + uniform)).sum(dim=1).mean()
        values = STRIDE**2 * images.shape[1]
        loss = reconstruction + kl_weight / values * divergence
        return {"loss": loss, "reconstruction": reconstruction, "divergence": divergence}

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """uint8 images to what their codes alone say of them, (B, 3, S, S) in 0 to 1."""
        codes = self.encoder(map_pixels(images)).argmax(dim=1)
        weights = F.one_hot(codes, self.encoder.codebook).permute(0, 3, 1, 2).float()
        return unmap_pixels(self.decoder(weights).chunk(2, dim=1)[0].sigmoid())


def logit_laplace(mapped: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
    """Negative log-density of values in (0, 1) whose logits are Laplace (2102.12092, A.3)."""
    distance = (mapped.logit() - location).abs()
    return (
        math.log(2)
        + log_scale
        + mapped.log()
        + (1 - mapped).log()
        + distance * torch.exp(-log_scale)
    )
