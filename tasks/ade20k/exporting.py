"""A trained UperNet as one program for other programs: a window of an image in, logits out.

Shapes: S side of a window, K classes.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tasks.ade20k.task import Ade20k
from tasks.ade20k.upernet import resize
from tasks.learnt import CLASSES_FILE, write_classes
from tasks.programs import PREPROCESSING_FILE, refuse_other, write_json, write_program

TOLERANCE = 1e-4


class Program(nn.Module):
    """A window, uint8 (1, 3, S, S), to logits (1, K, S, S), in float32."""

    def __init__(self, task: Ade20k) -> None:
        super().__init__()
        self.task = task

    def forward(self, window: Tensor) -> Tensor:
        task = self.task
        return resize(task.segmenter(task.maps(task.normalise(window))), window.shape[-2:])


@torch.no_grad()
def export(task: Ade20k, classes: Sequence[str], to: str, folder: Path) -> str:
    """Write a network of `classes` into `folder` as "torch" or "onnx"; how to read it.

    Raises `TaskError` for a library that is missing, and if what was written gives other logits.
    """
    task = task.eval().float().cpu().requires_grad_(False)
    side = task.recipe.image_size
    generator = torch.Generator().manual_seed(0)
    window = torch.randint(0, 256, (1, 3, side, side), generator=generator, dtype=torch.uint8)
    network = Program(task)
    program = torch.export.export(network, (window.flip(-1),), strict=False)
    how, found = write_program(program, to, folder)
    refuse_other(to, network(window), found(window), TOLERANCE)
    longest, shortest = task.recipe.scale
    steps = {
        "input": f"uint8 RGB window (1, 3, {side}, {side}); pixels are normalised inside",
        "resize_longest_side_at_most": longest,
        "resize_shortest_side_at_most": shortest,
        "interpolation": "bilinear",
        "antialias": False,
        "window": side,
        "stride": task.recipe.stride,
        "short_sides": f"padded at the right and at the bottom up to {side} with the mean colour, "
        "which the run does after normalising",
        "overlap": "logits of windows are averaged",
        "output": f"logits (1, K, {side}, {side}), K lines of {CLASSES_FILE}; resize them to the "
        "image bilinearly, and take the largest",
    }
    write_json(folder / PREPROCESSING_FILE, steps)
    write_classes(folder / CLASSES_FILE, classes)
    return how
