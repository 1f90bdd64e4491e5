"""Checkpoints of every format under our names; which format a file has, from its keys."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from backbones.colour import Colour
from backbones.contents import refuse_no_weights
from backbones.formats import (
    BIAS_TABLE,
    CLASSIFIER_NORM,
    FORMATS,
    PATCHES,
    SHARED_TABLE,
    Tensors,
)
from backbones.formats.layout import is_fixed_table
from backbones.posembed import is_square
from backbones.reading import MOST_TOKENS
from backbones.report import Pooling
from backbones.sizes import Anatomy, BackboneError

Grid = tuple[int, int]
"""rows and columns of patches"""


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
    guessed_heads: int | None = None
    """of a layout that others share, where nothing states them"""
    visible_heads: int | None = None
    """that a tensor's shape shows"""
    grid: Grid | None = None
    """of its absolute positions; None: it has none, or they fill no known grid"""
    beside: Tensors = field(default_factory=dict)
    """the file's other tensors under its own names: what was skipped"""


UNSUPPORTED = {
    r"layers\.\d+\.blocks\.": "stages, as a Swin transformer",
    r"reg(ister)?_tokens?$|storage_tokens$": "register tokens",
    r"dist(illation)?_token$": "a distillation token",
    r"patch_embed\.(backbone|proj\.\d+)\.|conv_root/|conv_proj\.conv_": "a convolutional stem",
    r"patch_embed\.norm\.": "a norm of patches",
    r"norm_pre\.|pre_layrnorm|ln_pre\.": "a norm before the first block",
    r"[qk]_norm\.": "norms of queries and keys",
    r"mlp\.(w12|w1|fc1_g|gate)|weights_in\.": "a gated MLP",
    r"mlp\.norm\.|inner_attn_ln|attn\.norm\.": "norms inside its branches",
    r"rope|freqs": "rotary positions",
    r"attn_pool\.|MAPHead": "pooling by attention",
}
"""pattern in a key -> what it shows that no plain ViT has"""


def convert(
    file: str, tensors: Tensors, format: str | None = None, grid: Grid | None = None
) -> Converted:
    """A checkpoint's tensors under our names, by the format named or else the one that they show.

    `grid` is that of its positions, if somebody says so. Raises `BackboneError` naming `file` if
    the format is unknown, is not the file's, or is none, and for tensors that are no weights.
    """
    name = detect(file, tensors) if format is None else confirm(file, tensors, format)
    layout = FORMATS[name]
    skipped: dict[str, str] = {}
    kept: Tensors = {}
    for key, value in tensors.items():
        rule = next((rule for start, rule in layout.skip.items() if re.match(start, key)), None)
        if rule is not None:
            skipped[key] = rule
            continue
        new = renamed(key, layout.prefix, layout.rename)
        if new in kept:
            raise BackboneError(f"checkpoint {file}: two tensors are {new}, one of them {key}")
        kept[new] = value
    refuse_no_weights(file, kept)
    try:
        state = layout.rewrite(kept)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise BackboneError(f"checkpoint {file}: its shapes are not {name}'s ({reason})") from None
    changed = add_class_position(state, grid)
    width = len(state[PATCHES]) if PATCHES in state and state[PATCHES].ndim else 0
    visible, usual = visible_heads(kept), layout.heads.get(width)
    sure = format is not None or layout.sure(tensors)
    anatomy = Anatomy(
        num_heads=visible or (usual if sure else None),
        norm_eps=layout.norm_eps,
        layer_scale=0.1 if any(key.endswith("ls1.gamma") for key in state) else None,
        absolute_position="pos_embed" in state or not has_tables(state),
        relative_position=has_tables(state),
        final_norm=CLASSIFIER_NORM not in skipped.values() or "norm.weight" in state,
    )
    return Converted(
        name,
        state,
        skipped,
        changed,
        anatomy,
        layout.mean,
        layout.std,
        layout.pooling,
        [layout.assumed] if layout.assumed and format is None else [],
        guessed_heads=None if sure else usual,
        visible_heads=visible,
        beside={key: tensors[key] for key in skipped},
    )


def renamed(key: str, prefix: str, rename: Mapping[str, str]) -> str:
    """A key of a layout under our name."""
    key = re.sub(f"^({prefix})", "", key) if prefix else key
    for pattern, new in rename.items():
        key = re.sub(pattern, new, key)
    return key


def settle_grid(
    file: str,
    converted: Converted,
    told: Grid | None = None,
    known: Grid | None = None,
    square: bool = False,
) -> None:
    """Find the grid of a file's positions: `told` by the user, `known` from beside the tensors.

    Else that of a fixed table, else a square, which is assumed where the layout has others too,
    unless the file is known to be `square`.
    """
    table = converted.state.get("pos_embed")
    if table is None or table.ndim != 3:
        if told is not None:
            raise BackboneError(f"checkpoint {file}: --grid: it has no absolute positions")
        return
    count = table.shape[1] - ("cls_token" in converted.state)
    for grid, said in ((told, "--grid says"), (known, "the configuration beside it says")):
        if grid is not None and math.prod(grid) != count:
            raise BackboneError(
                f"checkpoint {file}: has {count} positions of patches; {said} {grid[0]} x "
                f"{grid[1]}, which are {math.prod(grid)}"
            )
    side = math.isqrt(max(0, count))
    converted.grid = told or known or fixed_grid(table, count)
    if converted.grid is None and is_square(count):
        converted.grid = (side, side)
        if not square and not FORMATS[converted.format].square:
            converted.assumed.append(
                f"a grid of {side} x {side} patches for its {count} positions; --grid ROWSxCOLUMNS "
                "for another"
            )


def fixed_grid(table: torch.Tensor, count: int) -> Grid | None:
    """The grid whose sin-cos table a table with class row is; None: it is none."""
    if table.shape[1] != count + 1 or not 0 < count <= MOST_TOKENS**2:
        return None
    shorter = [n for n in range(math.isqrt(count), 0, -1) if count % n == 0]
    pairs = [pair for n in shorter for pair in ((n, count // n), (count // n, n))]
    return next((pair for pair in pairs for first in (False, True)
                 if is_fixed_table(table, pair, first)), None)  # fmt: skip


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


def add_class_position(state: Tensors, grid: Grid | None) -> dict[str, str]:
    """A row of zeros for a class token without position (DeiT III): adds nothing, as there."""
    table = state.get("pos_embed")
    if table is None or "cls_token" not in state or table.ndim != 3:
        return {}
    count = table.shape[1]
    if not (is_square(count) if grid is None else count == math.prod(grid)):
        return {}
    row = torch.zeros_like(table[:, :1])
    state["pos_embed"] = torch.cat([row, table], dim=1)
    return {"pos_embed": f"{count} -> {count + 1} positions, zeros for the class token"}


def with_facts(converted: Converted, facts: Mapping[str, Any]) -> Converted:
    """The same, with what is known from beside the tensors in place of what was assumed.

    Known: num_heads, norm_eps, final_norm, mean, std.
    """
    parts = ("num_heads", "norm_eps", "final_norm")
    anatomy = {key: facts[key] for key in parts if key in facts}
    told = "mean" in facts and "std" in facts
    return replace(
        converted,
        anatomy=replace(converted.anatomy, **anatomy),
        mean=tuple(facts.get("mean", converted.mean)),
        std=tuple(facts.get("std", converted.std)),
        assumed=[] if told else list(converted.assumed),
        guessed_heads=None if "num_heads" in facts else converted.guessed_heads,
    )
