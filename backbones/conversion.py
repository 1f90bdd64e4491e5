"""Checkpoints of every format under our names; which format a file has, from its keys."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from backbones.colour import Colour
from backbones.formats import (
    BIAS_TABLE,
    CLASSIFIER_NORM,
    FORMATS,
    PATCHES,
    SHARED_TABLE,
    Tensors,
)
from backbones.posembed import is_square
from backbones.report import Pooling
from backbones.sizes import Anatomy, BackboneError


@dataclass
class Converted:
    """A checkpoint under our names, and what was done to get there."""

    format: str
    state: Tensors
    skipped: dict[str, str]
    """key of the file -> the rule"""
    changed: dict[str, str]
    """our key -> what was done to its tensor"""
    anatomy: Anatomy
    mean: Colour
    std: Colour
    pooling: Pooling
    assumed: list[str]


UNSUPPORTED = {
    r"layers\.\d+\.blocks\.": "stages, as a Swin transformer",
    r"reg(ister)?_tokens?$|storage_tokens$": "register tokens",
    r"dist(illation)?_token$": "a distillation token",
    r"patch_embed\.(backbone|proj\.\d+)\.|conv_root/|conv_proj": "a convolutional stem",
    r"patch_embed\.norm\.": "a norm of patches",
    r"norm_pre\.|pre_layrnorm|ln_pre\.": "a norm before the first block",
    r"[qk]_norm\.": "norms of queries and keys",
    r"mlp\.(w12|w1|fc1_g|gate)|weights_in\.": "a gated MLP",
    r"mlp\.norm\.|inner_attn_ln|attn\.norm\.": "norms inside its branches",
    r"rope|freqs": "rotary positions",
    r"attn_pool\.|MAPHead": "pooling by attention",
}
"""pattern in a key -> what it shows that no plain ViT has"""


def convert(file: str, tensors: Tensors, format: str | None = None) -> Converted:
    """A checkpoint's tensors under our names, by the format named or else the one that they show.

    Raises `BackboneError` naming `file` if the format is unknown, is not the file's, or is none.
    """
    # As DistributedDataParallel names what it wraps.
    if tensors and all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    name = detect(file, tensors) if format is None else confirm(file, tensors, format)
    layout = FORMATS[name]
    skipped: dict[str, str] = {}
    kept: Tensors = {}
    for key, value in tensors.items():
        rule = next((rule for start, rule in layout.skip.items() if re.match(start, key)), None)
        if rule is not None:
            skipped[key] = rule
            continue
        key = re.sub(f"^{layout.prefix}", "", key)
        for pattern, new in layout.rename.items():
            key = re.sub(pattern, new, key)
        kept[key] = value
    try:
        state = layout.rewrite(kept)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise BackboneError(f"checkpoint {file}: its shapes are not {name}'s ({reason})") from None
    changed = add_class_position(state)
    width = len(state[PATCHES]) if PATCHES in state else 0
    heads = layout.heads.get(width) or visible_heads(kept)
    anatomy = Anatomy(
        num_heads=heads,
        norm_eps=layout.norm_eps,
        layer_scale=0.1 if any(key.endswith("ls1.gamma") for key in state) else None,
        absolute_position="pos_embed" in state or not has_tables(state),
        relative_position=has_tables(state),
        final_norm=CLASSIFIER_NORM not in skipped.values() or "norm.weight" in state,
    )
    assumed = [layout.assumed] if layout.assumed and format is None else []
    return Converted(
        name, state, skipped, changed, anatomy, layout.mean, layout.std, layout.pooling, assumed
    )


def detect(file: str, tensors: Tensors) -> str:
    """The one format that the tensors show; `BackboneError` says what was seen."""
    found = [name for name, each in FORMATS.items() if each.fits(tensors) and each.told(tensors)]
    refuse_unsupported(file, tensors)
    if len(found) != 1:
        kind = f"may be {' or '.join(found)}" if found else "is in no known layout"
        seen = ", ".join(sorted(tensors)[:4]) or "nothing"
        raise BackboneError(
            f"checkpoint {file}: {kind}; seen: {seen}{' ...' if len(tensors) > 4 else ''} "
            f"({len(tensors)} tensors); expected one of {', '.join(FORMATS)}"
        )
    return found[0]


def confirm(file: str, tensors: Tensors, format: str) -> str:
    """The format named, if the tensors can have it."""
    if format not in FORMATS:
        raise BackboneError(f"unknown format {format!r}; there are {', '.join(FORMATS)}")
    if not FORMATS[format].fits(tensors):
        raise BackboneError(
            f"checkpoint {file}: is not in the layout of {format} ({FORMATS[format].source}); its "
            f"keys are those of {detect(file, tensors)}"
        )
    refuse_unsupported(file, tensors)
    return format


def refuse_unsupported(file: str, tensors: Tensors) -> None:
    """Raise `BackboneError` for keys that only other networks have."""
    for pattern, what in UNSUPPORTED.items():
        key = next((key for key in tensors if re.search(pattern, key)), None)
        if key is not None:
            raise BackboneError(
                f"checkpoint {file}: its network has {what} ({key}); only plain ViTs with one "
                "class token are supported"
            )


def has_tables(state: Tensors) -> bool:
    """Whether blocks have tables of relative position, or share one, as BEiT's."""
    return any(key.endswith(BIAS_TABLE) or key == SHARED_TABLE for key in state)


def visible_heads(kept: Tensors) -> int | None:
    """The number of heads where a tensor's shape shows it: of BEiT's tables and of .npz files."""
    for key, value in kept.items():
        if (key.endswith(BIAS_TABLE) or key == SHARED_TABLE) and value.ndim == 2:
            return value.shape[1]
        if key.endswith("attn.q.kernel") and value.ndim == 3:
            return value.shape[1]
    return None


def add_class_position(state: Tensors) -> dict[str, str]:
    """A row of zeros for a class token without position (DeiT III): adds nothing, as there."""
    table = state.get("pos_embed")
    if (
        table is None
        or "cls_token" not in state
        or table.ndim != 3
        or not is_square(table.shape[1])
    ):
        return {}
    row = torch.zeros_like(table[:, :1])
    state["pos_embed"] = torch.cat([row, table], dim=1)
    count = table.shape[1]
    return {"pos_embed": f"{count} -> {count + 1} positions, zeros for the class token"}


def with_facts(converted: Converted, facts: Mapping[str, Any]) -> Converted:
    """The same, with what is known from beside the tensors in place of what was assumed.

    Known: num_heads, norm_eps, final_norm, mean, std.
    """
    parts = ("num_heads", "norm_eps", "final_norm")
    anatomy = {key: facts[key] for key in parts if key in facts}
    return replace(
        converted,
        anatomy=replace(converted.anatomy, **anatomy),
        mean=tuple(facts.get("mean", converted.mean)),
        std=tuple(facts.get("std", converted.std)),
        assumed=[] if "mean" in facts else converted.assumed,
    )
