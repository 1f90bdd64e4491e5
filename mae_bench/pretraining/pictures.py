"""Pictures of what a masked autoencoder sees and predicts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mae_bench.pretraining.autoencoder import MaskedAutoencoder
from mae_bench.run.files import atomic
from tasks.task import Batch

if TYPE_CHECKING:
    from mae_bench.pretraining.masked import MaskedPretraining

GREY = 0.75
MARGIN = 12
CAPTION = 26
SIDE = 128
SEED = 0


@torch.no_grad()
def reconstruction_sheet(task: "MaskedPretraining", batch: Batch, file: Path) -> None:
    """Write a PNG with a column per image: original, masked, predicted, and its loss.

    `batch` is one of the task's training data. What is predicted for visible patches never met the
    loss and looks like noise, so the original is shown there. A model of normalised pixels predicts
    each patch up to its mean and spread; these are taken from the original.
    """
    mae = task.mae.eval()
    normal = task.normalise(batch["images"].to(task.mean.device))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        noise = batch.get("noise", mae.draw_noise(len(normal), torch.device("cpu")))
    noise = noise.to(normal.device)
    result = mae.reconstruct(normal, noise)
    losses = [mae(normal[i : i + 1], noise[i : i + 1]).loss.item() for i in range(len(normal))]
    target = mae.patches(normal).flatten(1, 2).flatten(2)
    predicted = result.pixels
    if mae.norm_pix:
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        predicted = predicted * (variance + 1e-6).sqrt() + mean
    removed = result.mask[..., None].bool()
    grey = (GREY - task.mean) / task.std
    grey = grey.flatten().repeat(mae.patch_size**2)
    rows = {
        "original": target,
        f"masked: {result.mask.mean():.0%} of the patches": torch.where(removed, grey, target),
        "predicted (visible patches kept)": torch.where(removed, predicted, target),
    }
    pixels = {
        title: (unpatchify(mae, patches) * task.std + task.mean).clamp(0, 1).cpu()
        for title, patches in rows.items()
    }
    with atomic(file) as stream:
        sheet(pixels, [f"loss {loss:.3f}" for loss in losses]).save(stream, "PNG")


def unpatchify(mae: MaskedAutoencoder, patches: Tensor) -> Tensor:
    """(B, N, p·p·3) to (B, 3, S, S)."""
    side, grid = mae.patch_size, mae.encoder.grid_size
    x = patches.view(len(patches), grid, grid, side, side, 3)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), 3, grid * side, grid * side)


def sheet(rows: dict[str, Tensor], below: Sequence[str]) -> Image.Image:
    """Rows of images (B, 3, S, S) in 0..1 under their titles; a line of text below each column."""
    count = len(next(iter(rows.values())))
    step = SIDE + MARGIN
    height = len(rows) * (step + CAPTION) + CAPTION
    canvas = Image.new("RGB", (MARGIN + count * step, height), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=16)
    for r, (title, images) in enumerate(rows.items()):
        top = r * (step + CAPTION)
        draw.text((MARGIN, top + 5), title, fill="black", font=font)
        for c, image in enumerate(images):
            array = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            smooth = Image.Resampling.NEAREST if array.shape[0] < SIDE else Image.Resampling.BICUBIC
            tile = Image.fromarray(array).resize((SIDE, SIDE), smooth)
            canvas.paste(tile, (MARGIN + c * step, top + CAPTION))
    for c, text in enumerate(below):
        at = (MARGIN + c * step, height - CAPTION - MARGIN + 4)
        draw.text(at, text, fill="black", font=ImageFont.load_default(size=14))
    return canvas
