"""Plain Vision Transformers and their checkpoints.

    vit = backbones.create("vit_b", image_size=224)
    vit, report = backbones.load("vit_b", "mae_pretrain_vit_base.pth", image_size=224)
    net = backbones.create("vit_b", 1024, dense=backbones.Dense(14, (2, 5, 8, 11), "decomposed"))
    vit = backbones.create("timm:vit_small_patch8_224")
    backbones.register("my_vit", factory, size)

Importing this package does not import torch; creating a backbone does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack, overload

from backbones.plugin import build, register
from backbones.plugin import find as find_plugin
from backbones.reading import Reading, ReadingOptions
from backbones.sizes import (
    SIZES,
    Anatomy,
    BackboneError,
    Dense,
    Size,
    shape_of,
    size_of,
    with_positions,
)

if TYPE_CHECKING:
    from torch import Tensor

    from backbones.dense import DenseViT
    from backbones.exporting import Export
    from backbones.inspection import Inspection
    from backbones.report import LoadReport
    from backbones.vit import ViT

__all__ = [
    "SIZES",
    "Anatomy",
    "BackboneError",
    "Dense",
    "Size",
    "convert",
    "create",
    "export",
    "inspect",
    "load",
    "register",
    "resize_positions",
    "size_of",
]


@overload
def create(
    name: str,
    image_size: int = ...,
    drop_path: float = ...,
    dense: None = None,
    anatomy: Anatomy | None = ...,
) -> ViT: ...
@overload
def create(
    name: str,
    image_size: int = ...,
    drop_path: float = ...,
    *,
    dense: Dense,
    anatomy: Anatomy | None = ...,
) -> DenseViT: ...
@overload
def create(
    name: str,
    image_size: int = ...,
    drop_path: float = ...,
    *,
    dense: Dense | None,
    anatomy: Anatomy | None = ...,
) -> ViT | DenseViT: ...
def create(
    name: str,
    image_size: int = 224,
    drop_path: float = 0.0,
    dense: Dense | None = None,
    anatomy: Anatomy | None = None,
) -> ViT | DenseViT:
    """A randomly initialised backbone: a row of `backbones.SIZES`, "timm:<model>" or a plug-in.

    With `dense`, one for dense prediction: it gives maps only. `anatomy` is the name's own by
    default. Raises `BackboneError` for an unknown name, a size that the patch does not divide, or a
    global block that it does not have.
    """
    plugin = find_plugin(name)
    if plugin is not None:
        return build(plugin, image_size, drop_path, dense)
    size, own = shape_of(name)
    anatomy = anatomy or with_positions(own, dense)
    if dense is not None:
        from backbones.dense import DenseViT

        return DenseViT(name, size, image_size, drop_path, dense, anatomy)
    from backbones.vit import ViT

    return ViT(name, size, image_size, drop_path, anatomy)


@overload
def load(
    name: str,
    checkpoint: str | Path,
    image_size: int = ...,
    drop_path: float = ...,
    dense: None = None,
    **reading: Unpack[ReadingOptions],
) -> tuple[ViT, LoadReport]: ...
@overload
def load(
    name: str,
    checkpoint: str | Path,
    image_size: int = ...,
    drop_path: float = ...,
    *,
    dense: Dense,
    **reading: Unpack[ReadingOptions],
) -> tuple[DenseViT, LoadReport]: ...
@overload
def load(
    name: str,
    checkpoint: str | Path,
    image_size: int = ...,
    drop_path: float = ...,
    *,
    dense: Dense | None,
    **reading: Unpack[ReadingOptions],
) -> tuple[ViT | DenseViT, LoadReport]: ...
def load(
    name: str,
    checkpoint: str | Path,
    image_size: int = 224,
    drop_path: float = 0.0,
    dense: Dense | None = None,
    **reading: Unpack[ReadingOptions],
) -> tuple[ViT | DenseViT, LoadReport]:
    """A backbone with the weights of a checkpoint, and what became of each of its keys.

    `checkpoint` is a file in one of `formats.FORMATS`, the index of a sharded one, a folder that
    Hugging Face's transformers wrote, "timm:<model>" or "hf:<repository>". `reading` says what a
    file does not tell, see `reading.Reading`: `format` where its keys tell too little, `key` and
    `prefix` where it holds several networks, `heads`, `grid`. Strict: every key is loaded, resized,
    or skipped by a named rule; anything else raises `BackboneError`, which lists both sides.
    `allow_pickle` runs code from a torch file that holds more than data.
    """
    from backbones.loading import load as load_checkpoint

    how = Reading(**reading)
    return load_checkpoint(name, checkpoint, image_size, drop_path, dense, how)


def resize_positions(table: Tensor, side: int, before: int = 1) -> Tensor:
    """A table of positions (1, before + n², C) resized to (1, before + side², C).

    The `before` rows, of a class token or registers, are kept. Bicubic, corners not aligned, no
    antialiasing, as every backbone here is resized. Raises `BackboneError` for no square.
    """
    import torch

    from backbones.posembed import is_square, resize_grid

    if table.ndim != 3 or len(table) != 1 or not is_square(table.shape[1] - before):
        raise BackboneError(
            f"positions of shape {tuple(table.shape)}; expected (1, {before} + a square, channels)"
        )
    return torch.cat([table[:, :before], resize_grid(table[:, before:].float(), side)], dim=1)


def inspect(checkpoint: str | Path, **reading: Unpack[ReadingOptions]) -> Inspection:
    """What a checkpoint holds and which backbone it fits, without building one; see `load`."""
    from backbones.inspection import inspect as inspect_checkpoint

    return inspect_checkpoint(checkpoint, Reading(**reading))


def export(vit: ViT, to: str) -> Export:
    """The weights of a plain ViT in the layout of "timm", "hf" or "mae"; see `exporting`."""
    from backbones.exporting import export as export_weights

    return export_weights(vit, to)


def convert(
    checkpoint: str | Path, to: str, **reading: Unpack[ReadingOptions]
) -> tuple[Export, LoadReport]:
    """A checkpoint's encoder in the layout of "timm", "hf" or "mae", at its own image size."""
    from backbones.exporting import convert as convert_checkpoint

    return convert_checkpoint(checkpoint, to, Reading(**reading))
