"""What the tests of probes share: a two-block ViT, small recipes, a world to spoil."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch

from backbones.sizes import Size
from backbones.vit import ViT
from tasks.classification.probe_recipes import recipe_type, sourced
from tasks.recipe import made

SIDE = 32
TINY = Size(embed_dim=24, depth=2, num_heads=3, patch_size=8)


def tiny_vit(seed: int = 0) -> ViT:
    """Random weights at which tokens differ much from image to image."""
    torch.manual_seed(seed)
    vit = ViT("tiny", TINY, SIDE)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return vit


def small(protocol: str, **changes: Any) -> Any:
    """The protocol's recipe at 32 pixels."""
    whole = made(recipe_type(protocol), sourced("imagenet1k", "vit_b", protocol))
    return dataclasses.replace(whole, image_size=SIDE, **changes)


def copied(world: Path, folder: Path) -> Path:
    """ImageNet's folders of a world, times of change included."""
    shutil.copytree(world / "imagenet1k", folder / "imagenet1k")
    return folder / "imagenet1k"


def images(root: Path, split: str) -> list[Path]:
    return sorted((root / split).rglob("*.JPEG"))
