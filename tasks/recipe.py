"""What recipes have in common: what every run has, and what every training run has."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import backbones

Sourced = dict[str, tuple[Any, str]]
"""recipe field -> its value and where that comes from"""


def said_by(source: str, **values: Any) -> Sourced:
    """Fields whose values come from one source."""
    return {name: (value, source) for name, value in values.items()}


def row_of(backbone: str, published: Collection[str]) -> str:
    """The row of a table by sizes whose numbers a backbone takes: its own, or one as large.

    As large is as wide and as deep ("timm:vit_large_patch32_224" takes ViT-L's numbers); where
    there is none it is ViT-B's. Raises `BackboneError` for an unknown name.
    """
    size = backbones.size_of(backbone)
    if backbone in published:
        return backbone
    shape = (size.embed_dim, size.depth)
    known = {row: backbones.size_of(row) for row in published}
    alike = [row for row, its in known.items() if (its.embed_dim, its.depth) == shape]
    return alike[0] if alike else "vit_b"


def for_backbone(rows: Sourced, backbone: str, row: str) -> Sourced:
    """The numbers of `row` with their sources, for a backbone that may have none of its own."""
    if backbone == row:
        return rows
    source = f"ours: {TITLES[row]}'s value; none is published"
    return {k: (value, s if s.startswith("ours") else source) for k, (value, s) in rows.items()}


TITLES = {"vit_b": "ViT-B", "vit_l": "ViT-L", "vit_h": "ViT-H"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every number that can change a score. Frozen; vary it with `dataclasses.replace`.

    A field with a default is one that only some protocols set.
    """

    protocol: str
    """versioned protocol id, for example imagenet1k/finetune@1"""
    backbone: str
    """backbone name"""
    image_size: int
    """input side in pixels"""
    device_batch: int
    """images per forward pass on one device: the unit of mixup and of batch-norm statistics"""
    precision: Literal["fp32", "bf16"]
    """arithmetic under autocast"""

    def __post_init__(self) -> None:
        for name in ("image_size", "device_batch"):
            require(self, name, getattr(self, name) >= 1, "at least 1")

    def implied(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """What follows from a user's changes for fields that they do not name."""
        return {}

    def backbone_options(self) -> dict[str, Any]:
        """How `backbones.create` and `backbones.load` are to make the backbone."""
        return {"image_size": self.image_size}

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    def digest(self) -> str:
        """Twelve hex digits that name these exact settings.

        What is at its default does not count: a field that a later version adds leaves the
        digests of recipes without it as they were.
        """
        fields = dataclasses.fields(self)
        said = {f.name: getattr(self, f.name) for f in fields}
        said = {f.name: said[f.name] for f in fields if said[f.name] != f.default}
        text = json.dumps(said, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe(Recipe):
    """A recipe of the training loop."""

    epochs: int
    """passes over the training set"""
    warmup_epochs: float
    """epochs of linear warmup"""
    batch_size: int
    """images per optimiser step: all devices and accumulation together"""
    optimizer: Literal["adamw", "lars"]
    """adamw, or lars (1-D parameters are exempt from adaptation and decay)"""
    base_lr: float
    """learning rate per 256 images; the peak rate is base_lr x batch_size / 256"""
    schedule: Literal["cosine", "step", "poly"] = "cosine"
    """after warmup: a half-cosine down to min_lr, the rate times 0.1 at each of milestones, or a
    straight line down to min_lr (the polynomial of power 1)"""
    milestones: tuple[float, ...] = ()
    """of the step schedule: shares of all training steps, rising"""
    warmup_start: float = 0.0
    """share of the peak rate at which warmup begins"""
    min_lr: float
    """where the half-cosine or the line ends (not scaled by the batch)"""
    weight_decay: float
    """decoupled weight decay"""
    betas: tuple[float, float]
    """AdamW's two; LARS uses the first as momentum"""
    layer_decay: float
    """learning-rate factor from a layer to the one below; 1 switches it off"""
    clip_grad: float | None
    """largest global gradient norm; None: no clipping"""
    ema_decay: float | None
    """decay of the averaged weights that are evaluated and kept; None: no averaging"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "batch_size"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("warmup_epochs", "base_lr", "min_lr", "weight_decay"):
            require(self, name, getattr(self, name) >= 0, "0 or more")
        require(self, "layer_decay", 0 < self.layer_decay <= 1, "in (0, 1]")
        require(self, "warmup_epochs", self.warmup_epochs <= self.epochs, "at most epochs")
        require(
            self,
            "device_batch",
            self.batch_size % self.device_batch == 0,
            f"a divisor of batch_size {self.batch_size}",
        )
        require(self, "warmup_start", 0 <= self.warmup_start <= 1, "0 to 1")
        rising = list(self.milestones) == sorted(set(self.milestones))
        within = all(0 < share < 1 for share in self.milestones)
        require(self, "milestones", rising and within, "rising shares between 0 and 1")
        stepped = self.schedule == "step"
        require(self, "milestones", stepped == bool(self.milestones), "some, for step alone")
        ema = self.ema_decay
        require(self, "ema_decay", ema is None or 0 < ema < 1, "None or in (0, 1)")
        require(self, "clip_grad", self.clip_grad is None or self.clip_grad > 0, "None or above 0")

    @property
    def lr(self) -> float:
        """Peak learning rate by the linear scaling rule (MAE, Table 8)."""
        return self.base_lr * self.batch_size / 256


@dataclass(frozen=True, kw_only=True)
class TransferRecipe(TrainingRecipe):
    """A recipe that trains a head on a backbone, and the backbone with it."""

    drop_path: float
    """stochastic depth of the last block; rises linearly from 0 at the first"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "drop_path", 0 <= self.drop_path < 1, "0 or more and below 1")

    def backbone_options(self) -> dict[str, Any]:
        return super().backbone_options() | {"drop_path": self.drop_path}


def require(recipe: Recipe, field: str, holds: bool, expected: str) -> None:
    """Raise a one-line ValueError that names `field` unless `holds`."""
    if not holds:
        value = getattr(recipe, field)
        raise ValueError(f"recipe field {field} is {value!r}; expected {expected}")
