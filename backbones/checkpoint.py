"""Reading, strict loading and writing of backbone checkpoints."""

import argparse
import hashlib
import json
import math
import os
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from timm.layers import resize_rel_pos_bias_table
from torch import Tensor

from backbones.dense import DenseViT
from backbones.posembed import is_square, resize, resize_grid
from backbones.relative import CLASS_TOKEN_ROWS
from backbones.sizes import BackboneError, size_of
from backbones.vit import ViT

# What is skipped on purpose: beginnings of keys -> the rule.
DECODER = {"mask_token": "MAE decoder", "decoder_": "MAE decoder"}
NO_CLASS_TOKEN = {"cls_token": "class token: not used in dense prediction"}
NO_NORM = {"norm.": "final norm: maps are taken before it"}

BIAS_TABLE = "attn.relative_position_bias_table"
"""end of the name of BEiT's tables of relative position"""


@dataclass
class LoadReport:
    """What became of each key of a checkpoint file."""

    file: str
    sha256: str
    loaded: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)
    """key -> "197 -> 257 positions" """
    skipped: dict[str, str] = field(default_factory=dict)
    """key -> the rule that skips it"""
    fresh: dict[str, str] = field(default_factory=dict)
    """key that the file lacks -> the rule that lets it start without"""
    metadata: dict[str, str] = field(default_factory=dict)
    """what a file of ours says about its origin"""

    @property
    def method(self) -> str | None:
        """How the weights were pre-trained, if the file tells."""
        return self.metadata.get("method")

    @property
    def recipe_hash(self) -> str | None:
        """The recipe of the pre-training, if the file tells."""
        found = self.metadata.get("recipe_hash", "")
        return found if re.fullmatch("[0-9a-f]{8,64}", found) else None

    def __str__(self) -> str:
        lines = [f"{self.file} (sha256 {self.sha256[:12]}): {len(self.loaded)} tensors loaded"]
        lines += [f"  resized {key}: {how}" for key, how in self.resized.items()]
        for rule in dict.fromkeys(self.skipped.values()):
            count = sum(r == rule for r in self.skipped.values())
            lines.append(f"  skipped {count} on purpose: {rule}")
        for rule in dict.fromkeys(self.fresh.values()):
            count = sum(r == rule for r in self.fresh.values())
            lines.append(f"  {count} not in the file: {rule}")
        return "\n".join(lines)


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file or a torch file (read without pickle).

    A torch file may hold the state dict itself or under "model", next to anything else that is
    only data (the reference's training states hold their `argparse.Namespace`). Raises
    `BackboneError` for a file that is missing, truncated, or no checkpoint.
    """
    if not file.is_file():
        kind = "is a folder; expected a file" if file.is_dir() else "no such file"
        raise BackboneError(f"checkpoint {file}: {kind}")
    try:
        with safe_open(file, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        if file.suffix == ".safetensors":
            raise BackboneError(
                f"checkpoint {file}: truncated or no safetensors ({error})"
            ) from None
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"Unsupported (global: GLOBAL \S+|\w+ \d+)", str(error))
        reason = found.group() if found else "unreadable"
        raise BackboneError(
            f"checkpoint {file}: truncated, no torch file, or one that needs pickle ({reason})"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BackboneError(f"checkpoint {file}: truncated or no torch file ({reason})") from None
    if isinstance(content, dict):
        content = content.get("model", content)
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise BackboneError(
            f"checkpoint {file}: holds no state dict; expected tensors by name, directly or "
            'under "model"'
        )
    return content, {}


def load_into(vit: ViT | DenseViT, file: Path) -> LoadReport:
    """Load the file's encoder weights into `vit`, strictly; see `backbones.load`.

    A `DenseViT` also takes a file of a plain ViT: without its final norm and, unless it has one
    itself, its class token, with fresh relative positions, and with the patches that
    `fit_patches` makes.
    """
    tensors, metadata = read_tensors(file)
    report = LoadReport(file.name, file_sha256(file), metadata=metadata)
    named = metadata.get("backbone")
    if named not in (None, vit.name):
        raise BackboneError(f"checkpoint {file}: holds a {named}; asked for {vit.name}")
    own = vit.state_dict()
    rules = DECODER if "decoder_embed.weight" in tensors else {}
    if isinstance(vit, DenseViT):
        rules = rules | NO_NORM | ({} if vit.dense.class_token else NO_CLASS_TOKEN)
    state = {}
    for key, value in tensors.items():
        rule = next((rules[start] for start in rules if key.startswith(start)), None)
        if rule is None:
            state[key] = value
        else:
            report.skipped[key] = rule
    try:
        fit_positions(state, own, report, "cls_token" in own)
    except ValueError as error:
        raise BackboneError(f"checkpoint {file}: {error}") from None
    if isinstance(vit, DenseViT):
        fit_patches(state, vit, report)
        fit_bias_tables(state, own, report, vit.dense.class_token)
        add_relative_positions(state, own, report)
    check_keys(file, vit.name, state, own)
    report.loaded = sorted(set(state) - set(report.fresh))
    vit.load_state_dict(state)
    return report


def fit_positions(
    state: dict[str, Tensor], own: dict[str, Tensor], report: LoadReport, class_token: bool
) -> None:
    """Bring `pos_embed` to as many positions as `own` has, with a class row only if asked for.

    Raises `ValueError` if the positions fill no square grid.
    """
    key = "pos_embed"
    if key not in state or state[key].ndim != 3 or state[key].shape[1] == own[key].shape[1]:
        return
    table, given, wanted = state[key], state[key].shape[1], own[key].shape[1]
    how = [f"{given} -> {wanted} positions"]
    if not class_token:
        if not is_square(given):
            if not is_square(given - 1):
                raise ValueError(f"{key} has {given} positions; expected a square or 1 + a square")
            table = table[:, 1:]
            how.append("class row dropped")
        if table.shape[1] != wanted:
            table = resize_grid(table.float(), math.isqrt(wanted))
            how.append("bicubic")
    else:
        table = resize(table.float(), math.isqrt(wanted - 1))
        how.append("bicubic")
    state[key] = table
    report.resized[key] = ", ".join(how)


def fit_patches(state: dict[str, Tensor], vit: DenseViT, report: LoadReport) -> None:
    """Resize the patch projection where `vit` has another patch size than its name's.

    ViTDet (2203.16527) interpolates ViT-H's filters from 14 x 14 to 16 x 16 pixels. How exactly
    is not published and unconfirmed, and so is whether positions stay at 16 x 16, as here; this is
    bicubic, corners not aligned, no antialiasing, as for positions.
    """
    key = "patch_embed.proj.weight"
    usual, patch = size_of(vit.name).patch_size, vit.patch_size
    if key in state and patch != usual and state[key].shape[2:] == (usual, usual):
        weight = state[key].float()
        state[key] = F.interpolate(weight, (patch, patch), mode="bicubic", align_corners=False)
        report.resized[key] = f"{usual} x {usual} -> {patch} x {patch} pixels, bicubic"


def fit_bias_tables(
    state: dict[str, Tensor], own: dict[str, Tensor], report: LoadReport, class_token: bool
) -> None:
    """Resize BEiT's tables of relative position to the windows that `own` has.

    The class token's rows are kept as they are, or dropped where there is none. As in BEiT,
    offsets are spaced geometrically; between them timm interpolates linearly where BEiT does
    cubically (its scipy function is gone).
    """
    for key in [key for key in state if key.endswith(BIAS_TABLE) and key in own]:
        given, wanted = len(state[key]), len(own[key])
        if given == wanted or state[key].ndim != 2 or state[key].shape[1] != own[key].shape[1]:
            continue
        how = [f"{given} -> {wanted} offsets"]
        table, rows = state[key].float(), CLASS_TOKEN_ROWS if class_token else 0
        if not class_token and not is_square(given) and is_square(max(0, given - CLASS_TOKEN_ROWS)):
            table = table[:-CLASS_TOKEN_ROWS]
            how.append("class rows dropped")
        if len(table) <= rows or not is_square(len(table) - rows):
            continue  # `check_keys` names it
        if len(table) != wanted:
            side = (math.isqrt(wanted - rows) + 1) // 2
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of how timm indexes
                table = resize_rel_pos_bias_table(table, (side, side), tuple(own[key].shape))
            how.append("geometric spacing, linear")
        state[key] = table
        report.resized[key] = ", ".join(how)


def add_relative_positions(
    state: dict[str, Tensor], own: dict[str, Tensor], report: LoadReport
) -> None:
    """Relative positions at zero for a file that has none at all."""

    def is_relative(key: str) -> bool:
        return "rel_pos_" in key or key.endswith(BIAS_TABLE)

    if not any(map(is_relative, state)):
        wanted = list(filter(is_relative, own))
        state |= {key: torch.zeros_like(own[key]) for key in wanted}
        report.fresh = dict.fromkeys(wanted, "relative position, starts at zero")


def check_keys(file: Path, name: str, given: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Raise `BackboneError` listing both sides unless keys and shapes agree exactly."""
    missing = sorted(set(wanted) - set(given))
    unexpected = sorted(set(given) - set(wanted))
    if missing or unexpected:
        raise BackboneError(
            f"checkpoint {file} does not fit {name}: missing {shorten(missing)}; "
            f"unexpected {shorten(unexpected)}"
        )
    shapes = [
        f"{key} {tuple(given[key].shape)} for {tuple(wanted[key].shape)}"
        for key in sorted(wanted)
        if given[key].shape != wanted[key].shape
    ]
    if shapes:
        raise BackboneError(f"checkpoint {file} does not fit {name}: shapes {shorten(shapes)}")


def shorten(names: list[str], most: int = 4) -> str:
    """The first few names and how many more there are."""
    if not names:
        return "none"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def save(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically; a crash leaves the old file or the new one."""
    temporary = file.with_suffix(".partial")
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    try:
        with temporary.open("wb") as stream:
            stream.write(safetensors.torch.save(tensors, {"format": "pt", **metadata}))
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe(metadata: Mapping[str, object]) -> dict[str, str]:
    """Metadata as the strings that safetensors stores."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
