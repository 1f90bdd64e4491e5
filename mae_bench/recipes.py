"""Recipes of every command: looked up, overridden, compared. Imports no torch.

The pre-training recipe is here; those of the downstream tasks are in `tasks`.
"""

import dataclasses
import difflib
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import backbones
import tasks
from mae_bench.errors import RunError
from tasks.recipe import Recipe, Sourced, TrainingRecipe, require, said_by

PRETRAIN = "pretrain"

# Published numbers are compared across number formats and device counts all the time; both stay
# in the recipe and in its hash.
NOT_THE_PROTOCOL = {"device_batch", "precision"}


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(TrainingRecipe):
    """Every number that can change a pre-trained masked autoencoder."""

    mask_ratio: float
    """share of the patches that is removed"""
    norm_pix: bool
    """predict pixels normalised per patch"""
    decoder_dim: int
    """width of the decoder"""
    decoder_depth: int
    """blocks of the decoder"""
    decoder_heads: int
    """attention heads of the decoder"""
    min_crop_area: float
    """smallest share of the image that a random resized crop takes"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "mask_ratio", 0 < self.mask_ratio < 1, "between 0 and 1")
        require(self, "min_crop_area", 0 < self.min_crop_area <= 1, "in (0, 1]")
        for name in ("decoder_dim", "decoder_depth", "decoder_heads"):
            require(self, name, getattr(self, name) >= 1, "at least 1")


MAE = (
    said_by("mae PRETRAIN.md (1600 for the released checkpoints)", epochs=800)
    | said_by("mae PRETRAIN.md", norm_pix=True, device_batch=64)
    | said_by("MAE Table 8", optimizer="adamw", base_lr=1.5e-4, weight_decay=0.05)
    | said_by("MAE Table 8", betas=(0.9, 0.95), batch_size=4096, warmup_epochs=40.0)
    | said_by("mae main_pretrain.py", image_size=224, min_lr=0.0, clip_grad=None, layer_decay=1.0)
    | said_by("mae main_pretrain.py", ema_decay=None, min_crop_area=0.2)
    | said_by("mae util/lr_sched.py", schedule="cosine", milestones=(), warmup_start=0.0)
    | said_by("MAE Table 1", mask_ratio=0.75, decoder_dim=512, decoder_depth=8)
    | said_by("mae models_mae.py", decoder_heads=16)
    | said_by("ours: bf16 needs no loss scaling; mae uses fp16 with it", precision="bf16")
)

MINIATURE = said_by(
    "ours: tuned on the miniature world",
    image_size=32,
    epochs=10,
    warmup_epochs=2.0,
    batch_size=128,
    device_batch=128,
    base_lr=3e-3,
    min_crop_area=0.5,
    decoder_dim=64,
    decoder_depth=2,
    decoder_heads=4,
    norm_pix=False,
    precision="fp32",
)


def sourced(task: str, backbone: str, protocol: str) -> Sourced:
    """Every field of a recipe with its value and where that comes from.

    `task` is a downstream task, or "pretrain" with protocol "mae". Raises the packages' one-line
    errors for an unknown name.
    """
    backbones.size_of(backbone)
    if task != PRETRAIN:
        return tasks.sourced(task, backbone, protocol)
    rows = dict(MAE)
    if backbone == "vit_mini":
        rows |= MINIATURE
    rows |= said_by("what was asked for", protocol=f"{PRETRAIN}/{protocol}@1", backbone=backbone)
    return {field.name: rows[field.name] for field in fields(PretrainRecipe)}


def recipe(task: str, backbone: str, protocol: str) -> Recipe:
    """The recipe of a protocol for a backbone."""
    kind = PretrainRecipe if task == PRETRAIN else tasks.recipe_type(task, protocol)
    return kind(**{k: value for k, (value, _) in sourced(task, backbone, protocol).items()})


def override(base: Recipe, changes: dict[str, Any]) -> Recipe:
    """`base` with some fields changed; `RunError` names an unknown field or a refused value."""
    names = [f.name for f in fields(base) if f.name not in ("protocol", "backbone")]
    for name in changes:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=2)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise RunError(f"unknown recipe field {name!r}; {hint}there are {', '.join(names)}")
    kinds = get_type_hints(type(base))
    try:
        return dataclasses.replace(base, **{k: typed(k, v, kinds[k]) for k, v in changes.items()})
    except ValueError as error:
        raise RunError(str(error)) from None


def typed(name: str, value: Any, kind: Any) -> Any:
    """A recipe field's value as its type; `ValueError` if it is none, or is not finite."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError  # slow, and --help needs it not

    try:
        return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ValueError(f"recipe field {name} is {value!r}; {reason}") from None


def deviations(base: Recipe, effective: Recipe) -> list[str]:
    """What an effective recipe changes of its protocol: "epochs 100 -> 1"."""
    old, new = base.to_dict(), effective.to_dict()
    return [
        f"{name} {old[name]} -> {new[name]}"
        for name in old
        if old[name] != new[name] and name not in NOT_THE_PROTOCOL
    ]
