"""What recipes have in common: what every run has, and what every training run has."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

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


R = TypeVar("R", bound="Recipe")


def complete(kind: "type[Recipe]", rows: Sourced) -> Sourced:
    """`rows` in the order of the fields of `kind`.

    Raises `TypeError`, a fault of the program, for a row that is no field and a field without one.
    """
    names = [each.name for each in dataclasses.fields(kind)]
    odd = sorted(set(names) ^ set(rows))
    if odd:
        raise TypeError(f"rows and fields of {kind.__name__} differ: {', '.join(odd)}")
    return {name: rows[name] for name in names}


def made(kind: type[R], rows: Sourced) -> R:
    """The recipe of complete rows."""
    return kind(**{name: value for name, (value, _) in complete(kind, rows).items()})


TITLES = {"vit_b": "ViT-B", "vit_l": "ViT-L", "vit_h": "ViT-H"}


@dataclass(frozen=True)
class Within:
    """Bounds of a field's number, or of each of its numbers; None needs none.

    The highest are far above what anybody needs: they are for slips of the finger.
    """

    low: float
    high: float
    open_low: bool = False
    """whether `low` itself is out of bounds"""
    open_high: bool = False

    def hold(self, value: Any) -> bool:
        """Whether `value` is in bounds; NaN never is."""
        if isinstance(value, tuple | list):
            return all(map(self.hold, value))
        if value is None:
            return True
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        above = self.low < value if self.open_low else self.low <= value
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        if self.open_low and self.open_high:
            return f"between {self.low:,} and {self.high:,}"
        low = f"above {self.low:,}" if self.open_low else f"at least {self.low:,}"
        high = f"below {self.high:,}" if self.open_high else f"at most {self.high:,}"
        return f"{low} and {high}"


Count = Annotated[int, Within(1, 1_000_000)]
Pixels = Annotated[int, Within(1, 16_384)]
Width = Annotated[int, Within(1, 65_536)]
Layers = Annotated[int, Within(0, 100)]
Share = Annotated[float, Within(0, 1)]
MOST = 1_000_000
MOST_LR = 1e30
"""a training that diverges ends by itself; beyond, float32 holds no step"""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every number that can change a score. Frozen; vary it with `dataclasses.replace`.

    A field with a default is one that only some protocols set. Each number has bounds in its type;
    `__post_init__` of a class has what concerns several fields.
    """

    protocol: str
    """versioned protocol id, for example imagenet1k/finetune@1"""
    backbone: str
    """backbone name"""
    image_size: Pixels
    """input side in pixels"""
    device_batch: Count
    """images per forward pass on one device: the unit of mixup and of batch-norm statistics"""
    precision: Literal["fp32", "bf16"]
    """arithmetic under autocast"""

    def __post_init__(self) -> None:
        for name, bounds in bounds_of(type(self)).items():
            require(self, name, bounds.hold(getattr(self, name)), str(bounds))

    def implied(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """What follows from a user's changes for fields that they do not name."""
        return {}

    def idle(self) -> dict[str, str]:
        """Fields that have no effect beside the others -> what makes them idle, "mixup 0".

        To change one of them is an error, for nothing would come of it.
        """
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

    epochs: Count
    """passes over the training set"""
    warmup_epochs: Annotated[float, Within(0, 1_000_000)]
    """epochs of linear warmup"""
    batch_size: Count
    """images per optimiser step: all devices and accumulation together"""
    optimizer: Literal["adamw", "lars"]
    """adamw, or lars (1-D parameters are exempt from adaptation and decay)"""
    base_lr: Annotated[float, Within(0, MOST_LR, open_low=True)]
    """learning rate per 256 images; the peak rate is base_lr x batch_size / 256"""
    schedule: Literal["cosine", "step", "poly"] = "cosine"
    """after warmup: a half-cosine down to min_lr, the rate times 0.1 at each of milestones, or a
    straight line down to min_lr (the polynomial of power 1)"""
    milestones: Annotated[tuple[float, ...], Within(0, 1, open_low=True, open_high=True)] = ()
    """of the step schedule: shares of all training steps, rising"""
    warmup_start: Share = 0.0
    """share of the peak rate at which warmup begins"""
    min_lr: Annotated[float, Within(0, 1000)]
    """where the half-cosine or the line ends (not scaled by the batch)"""
    weight_decay: Annotated[float, Within(0, 1000)]
    """decoupled weight decay"""
    betas: Annotated[tuple[float, float], Within(0, 1, open_high=True)]
    """AdamW's two; LARS uses the first as momentum"""
    layer_decay: Annotated[float, Within(0, 1, open_low=True)]
    """learning-rate factor from a layer to the one below; 1 switches it off"""
    clip_grad: Annotated[float | None, Within(0, MOST, open_low=True)]
    """largest global gradient norm; None: no clipping"""
    ema_decay: Annotated[float | None, Within(0, 1, open_low=True, open_high=True)]
    """decay of the averaged weights that are evaluated and kept; None: no averaging"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self,
            "warmup_epochs",
            self.warmup_epochs <= self.epochs,
            f"at most epochs {self.epochs} (give both)",
        )
        require(
            self,
            "device_batch",
            self.batch_size % self.device_batch == 0,
            f"a divisor of batch_size {self.batch_size} (give both)",
        )
        rising = list(self.milestones) == sorted(set(self.milestones))
        require(self, "milestones", rising, "rising shares between 0 and 1")
        stepped = self.schedule == "step"
        require(self, "milestones", stepped == bool(self.milestones), "some, for step alone")

    def implied(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """A warmup as long, of all epochs, as the protocol's, where its own no longer fits."""
        implied = super().implied(changes)
        epochs = changes.get("epochs")
        if isinstance(epochs, bool) or not isinstance(epochs, int):  # which is refused later
            return implied
        if "warmup_epochs" not in changes and 0 < epochs < self.warmup_epochs:
            implied["warmup_epochs"] = self.warmup_epochs * epochs / self.epochs
        return implied

    def idle(self) -> dict[str, str]:
        idle = super().idle()
        idle |= {"min_lr": "schedule step"} if self.schedule == "step" else {}
        return idle | ({} if self.warmup_epochs else {"warmup_start": "warmup_epochs 0"})

    @property
    def lr(self) -> float:
        """Peak learning rate by the linear scaling rule (MAE, Table 8)."""
        return self.base_lr * self.batch_size / 256


@dataclass(frozen=True, kw_only=True)
class TransferRecipe(TrainingRecipe):
    """A recipe that trains a head on a backbone, and the backbone with it."""

    drop_path: Annotated[float, Within(0, 1, open_high=True)]
    """stochastic depth of the last block; rises linearly from 0 at the first"""

    def backbone_options(self) -> dict[str, Any]:
        return super().backbone_options() | {"drop_path": self.drop_path}


def bounds_of(kind: type) -> dict[str, Within]:
    """The bounds of a recipe's fields."""
    hints = get_type_hints(kind, include_extras=True)
    found = {name: getattr(hints[name], "__metadata__", ()) for name in hints}
    return {name: each for name, extras in found.items() for each in extras}


def require(recipe: Recipe, field: str, holds: bool, expected: str) -> None:
    """Raise a one-line ValueError that names `field` unless `holds`."""
    if not holds:
        value = getattr(recipe, field)
        raise ValueError(f"recipe field {field} is {value!r}; expected {expected}")
