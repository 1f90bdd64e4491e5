"""What a checkpoint file holds and which backbone it fits, told without loading it."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from backbones.colour import Colour
from backbones.conversion import Converted
from backbones.formats import BIAS_TABLE, SHARED_TABLE
from backbones.loading import AS_IT_IS, read
from backbones.reading import Reading
from backbones.report import POOLED, LoadReport, Pooling, counted, numbers, wrapped
from backbones.shapes import fitting, grid_in, size_in
from backbones.sizes import SIZES, Anatomy, BackboneError, Size
from backbones.vit import ViT


@dataclass
class Inspection:
    """What a checkpoint file holds."""

    file: str
    sha256: str
    format: str
    source: str
    tensors: int
    """of the encoder, under our names"""
    parameters: int
    """of the encoder"""
    backbones: list[str]
    """the rows of `SIZES` whose size it has"""
    size: Size
    """heads: those of `anatomy`, else the row's; 0 if neither tells"""
    image_size: int | None
    """pixels of the side that its positions belong to"""
    anatomy: Anatomy
    pixel_mean: Colour
    pixel_std: Colour
    pooling: Pooling
    skipped: dict[str, str]
    changed: dict[str, str]
    unexplained: list[str]
    """keys under our names that a plain ViT of this anatomy does not have"""
    missing: list[str]
    """keys that it would have"""
    assumed: list[str]
    said: list[str]
    metadata: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        size, anatomy = self.size, self.anatomy
        parts = {
            "layer scale": anatomy.layer_scale is not None,
            "absolute positions": anatomy.absolute_position,
            "tables of relative position": anatomy.relative_position,
            "final norm": anatomy.final_norm,
        }
        fits = ", ".join(self.backbones) or "no backbone by name; try a timm: name of this size"
        pixels = f"{self.image_size} pixels" if self.image_size else "an unknown image size"
        lines = [
            f"{self.file} (sha256 {self.sha256[:12]})",
            f"  format {self.format}: {self.source}",
            f"  fits {fits}: {size.embed_dim} channels, {size.depth} blocks, "
            f"{size.num_heads or 'unknown'} heads, patches of {size.patch_size} at {pixels}",
            f"  {self.tensors} tensors, {self.parameters:,} parameters",
            "  with " + ", ".join(part for part, has in parts.items() if has),
            "  without " + (", ".join(part for part, has in parts.items() if not has) or "nothing"),
            f"  layer norm eps {anatomy.norm_eps:g}, pixel mean {numbers(self.pixel_mean)} and "
            f"deviation {numbers(self.pixel_std)}; its own classifier reads {POOLED[self.pooling]}",
        ]
        lines += [f"  {what}" for what in self.said]
        lines += [f"  assumed: {what}" for what in self.assumed]
        lines += counted(self.skipped, "{} left out on purpose: {}")
        lines += [f"  {key}: {how}" for key, how in self.changed.items()]
        lines += [f"  unexplained: {key}" for key in self.unexplained]
        lines += [f"  missing: {key}" for key in self.missing]
        return wrapped(lines)


def inspect(checkpoint: str | Path, reading: Reading = AS_IT_IS) -> Inspection:
    """See `backbones.inspect`."""
    file, converted, report = read(checkpoint, reading)
    return inspected(file, converted, report)


def inspected(file: Path, converted: Converted, report: LoadReport) -> Inspection:
    """The same of a file that was read."""
    size = size_in(converted.state)
    if size is None:
        raise BackboneError(f"checkpoint {file}: holds no blocks of a ViT")
    if size.embed_dim % 4:
        raise BackboneError(
            f"checkpoint {file}: its tokens have {size.embed_dim} channels; expected a multiple "
            "of 4"
        )
    names, assumed = fitting(converted.state), list(report.assumed)
    row = SIZES[names[0]].num_heads if names else 0
    heads = converted.anatomy.num_heads or converted.guessed_heads or row
    if converted.anatomy.num_heads is None:
        if not heads:
            assumed.append("nothing about the number of heads, which no tensor shows")
        elif heads == row:
            assumed.append(f"{heads} heads, as {names[0]} has; no tensor shows them")
        else:
            assumed.append(
                f"{heads} heads, as {converted.format}'s of this width have; no tensor shows them"
            )
    grid = grid_in(converted.state, converted.grid)
    side = grid and grid * size.patch_size
    wanted = keys_of(replace(size, num_heads=1), side or size.patch_size, converted.anatomy)
    given = set(converted.state) - {SHARED_TABLE}
    if SHARED_TABLE in converted.state:
        wanted = {key for key in wanted if not key.endswith(BIAS_TABLE)}
    return Inspection(
        report.file,
        report.sha256,
        report.format,
        report.source,
        len(converted.state),
        sum(value.numel() for value in converted.state.values()),
        names,
        replace(size, num_heads=heads),
        side,
        converted.anatomy,
        converted.mean,
        converted.std,
        converted.pooling,
        report.skipped,
        report.resized,
        sorted(given - wanted),
        sorted(wanted - given),
        assumed,
        report.said,
        report.metadata,
    )


def keys_of(size: Size, image_size: int, anatomy: Anatomy) -> set[str]:
    """The names of a plain ViT's tensors."""
    with torch.device("meta"):
        return set(ViT("", size, image_size, anatomy=replace(anatomy, num_heads=1)).state_dict())
