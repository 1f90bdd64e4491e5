"""Plain Vision Transformers and their checkpoints.

    vit = backbones.create("vit_b", image_size=224)
    vit, report = backbones.load("vit_b", "mae_pretrain_vit_base.pth", image_size=224)
    net = backbones.create("vit_b", 1024, dense=backbones.Dense(14, (2, 5, 8, 11), "decomposed"))

Importing this package does not import torch; creating a backbone does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, overload

from backbones.sizes import SIZES, BackboneError, Dense, Size, size_of

if TYPE_CHECKING:
    from backbones.checkpoint import LoadReport
    from backbones.dense import DenseViT
    from backbones.vit import ViT

__all__ = ["SIZES", "BackboneError", "Dense", "Size", "create", "load", "size_of"]


@overload
def create(name: str, image_size: int = ..., drop_path: float = ..., dense: None = None) -> ViT: ...
@overload
def create(
    name: str, image_size: int = ..., drop_path: float = ..., *, dense: Dense
) -> DenseViT: ...
@overload
def create(
    name: str, image_size: int = ..., drop_path: float = ..., *, dense: Dense | None
) -> ViT | DenseViT: ...
def create(
    name: str, image_size: int = 224, drop_path: float = 0.0, dense: Dense | None = None
) -> ViT | DenseViT:
    """A randomly initialised backbone; `name` is a row of `backbones.SIZES`.

    With `dense`, one for dense prediction: it gives maps only. Raises `BackboneError` for an
    unknown name, a size that the patch does not divide, or a global block that it does not have.
    """
    if dense is not None:
        from backbones.dense import DenseViT

        return DenseViT(name, size_of(name), image_size, drop_path, dense)
    from backbones.vit import ViT

    return ViT(name, size_of(name), image_size, drop_path)


@overload
def load(
    name: str,
    checkpoint: str | Path,
    image_size: int = ...,
    drop_path: float = ...,
    dense: None = None,
) -> tuple[ViT, LoadReport]: ...
@overload
def load(
    name: str,
    checkpoint: str | Path,
    image_size: int = ...,
    drop_path: float = ...,
    *,
    dense: Dense,
) -> tuple[DenseViT, LoadReport]: ...
@overload
def load(
    name: str,
    checkpoint: str | Path,
    image_size: int = ...,
    drop_path: float = ...,
    *,
    dense: Dense | None,
) -> tuple[ViT | DenseViT, LoadReport]: ...
def load(
    name: str,
    checkpoint: str | Path,
    image_size: int = 224,
    drop_path: float = 0.0,
    dense: Dense | None = None,
) -> tuple[ViT | DenseViT, LoadReport]:
    """A backbone with the weights of a checkpoint file, and what became of each of its keys.

    Strict: every key is loaded, resized, or skipped by a named rule; anything else raises
    `BackboneError`, which lists both sides.
    """
    from backbones.checkpoint import load_into

    vit = create(name, image_size, drop_path, dense=dense)
    return vit, load_into(vit, Path(checkpoint))
