"""Plain Vision Transformers and their checkpoints.

    vit = backbones.create("vit_b", image_size=224)
    vit, report = backbones.load("vit_b", "mae_pretrain_vit_base.pth", image_size=224)

Importing this package does not import torch; creating a backbone does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backbones.sizes import SIZES, BackboneError, Size, size_of

if TYPE_CHECKING:
    from backbones.checkpoint import LoadReport
    from backbones.vit import ViT

__all__ = ["SIZES", "BackboneError", "Size", "create", "load", "size_of"]


def create(name: str, image_size: int = 224, drop_path: float = 0.0) -> ViT:
    """A randomly initialised backbone; `name` is a row of `backbones.SIZES`.

    Raises `BackboneError` for an unknown name or a size that the patch does not divide.
    """
    from backbones.vit import ViT

    return ViT(name, size_of(name), image_size, drop_path)


def load(
    name: str, checkpoint: str | Path, image_size: int = 224, drop_path: float = 0.0
) -> tuple[ViT, LoadReport]:
    """A backbone with the weights of a checkpoint file, and what became of each of its keys.

    Strict: every key is loaded, resized, or skipped by a named rule; anything else raises
    `BackboneError`, which lists both sides.
    """
    from backbones.checkpoint import load_into

    vit = create(name, image_size, drop_path)
    return vit, load_into(vit, Path(checkpoint))
