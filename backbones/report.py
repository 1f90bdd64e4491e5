"""What is said about a loaded checkpoint. Imports no torch."""

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

from backbones.colour import IMAGENET_MEAN, IMAGENET_STD, Colour

Pooling = Literal["cls", "patches"]

POOLED: dict[Pooling, str] = {"cls": "the class token", "patches": "the mean of the patches"}


@dataclass
class LoadReport:
    """What became of each key of a checkpoint file, and what belongs to its weights."""

    file: str
    sha256: str
    format: str = ""
    """name in `formats.FORMATS`; of a plug-in: "plugin" """
    source: str = ""
    """the repository and file that write it"""
    backbone: str = ""
    loaded: list[str] = field(default_factory=list)
    """our names"""
    resized: dict[str, str] = field(default_factory=dict)
    """our name -> "197 -> 257 positions" """
    skipped: dict[str, str] = field(default_factory=dict)
    """key of the file -> the rule that skips it"""
    fresh: dict[str, str] = field(default_factory=dict)
    """key that the file lacks -> the rule that lets it start without"""
    parameters_loaded: int = 0
    parameters: int = 0
    """of the backbone"""
    num_heads: int = 0
    norm_eps: float = 1e-6
    pixel_mean: Colour = IMAGENET_MEAN
    pixel_std: Colour = IMAGENET_STD
    pooling: Pooling = "cls"
    """what the source's own classifier reads: the class token or the mean of the patches"""
    shared: bool = False
    """whether another method's files have this layout too, which MoCo v3's plain names are"""
    assumed: list[str] = field(default_factory=list)
    """what neither the file nor its format tells"""
    said: list[str] = field(default_factory=list)
    """what was chosen in the file, and by whom"""
    read_as: dict[str, str] = field(default_factory=dict)
    """what else these weights depend on than the file: its part, the user's choices, and what
    files beside it say"""
    tested: dict[str, Any] = field(default_factory=dict)
    """what the file or one beside it says of testing its own classifier: image_size, crop_ratio,
    and `cut`, how images are cut otherwise than here"""
    metadata: dict[str, str] = field(default_factory=dict)
    """what a file of ours says about its origin"""

    @property
    def coverage(self) -> float:
        """The share of the backbone's parameters that came from the file."""
        return self.parameters_loaded / max(1, self.parameters)

    @property
    def method(self) -> str | None:
        """How the weights were pre-trained, if the file tells."""
        return self.metadata.get("method")

    @property
    def maker(self) -> str | None:
        """The method that a file of ours names, or the layout of another's if it is one's alone."""
        return self.method or (None if self.shared else self.format)

    @property
    def recipe_hash(self) -> str | None:
        """The recipe of the pre-training, if the file tells."""
        found = self.metadata.get("recipe_hash", "")
        return found if re.fullmatch("[0-9a-f]{8,64}", found) else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"coverage": self.coverage}

    def __str__(self) -> str:
        lines = [
            f"{self.file} (sha256 {self.sha256[:12]}): {len(self.loaded)} tensors loaded, "
            f"{100 * self.coverage:.4g}% of the parameters of {self.backbone}",
            f"  format {self.format}: {self.source}" if self.source else f"  format {self.format}",
            f"  {self.num_heads} heads, layer norm eps {self.norm_eps:g}, pixel mean "
            f"{numbers(self.pixel_mean)} and deviation {numbers(self.pixel_std)}; its own "
            f"classifier reads {POOLED[self.pooling]}",
        ]
        lines += [f"  {what}" for what in self.said]
        lines += [f"  assumed: {what}" for what in self.assumed]
        lines += [f"  resized {key}: {how}" for key, how in self.resized.items()]
        lines += counted(self.skipped, "skipped {} on purpose: {}")
        lines += counted(self.fresh, "{} not in the file: {}")
        return wrapped(lines)


def wrapped(lines: Iterable[str]) -> str:
    """The lines, those that are longer than a terminal is wide broken at spaces."""
    fill = partial(
        textwrap.fill,
        width=80,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(map(fill, lines))


def counted(rules: Mapping[str, str], line: str) -> list[str]:
    """A line for each rule, with how many keys it treats."""
    found = list(rules.values())
    return [f"  {line.format(found.count(rule), rule)}" for rule in dict.fromkeys(found)]


def numbers(colour: Colour) -> str:
    """Three numbers, or one that all are."""
    each = [f"{value:g}" for value in colour]
    return each[0] if len(set(each)) == 1 else " ".join(each)
