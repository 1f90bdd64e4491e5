"""Reading, strict loading and writing of backbone checkpoints."""

import argparse
import hashlib
import json
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from backbones.posembed import resize
from backbones.sizes import BackboneError
from backbones.vit import ViT

DECODER_KEYS = ("mask_token", "decoder_")


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


def load_into(vit: ViT, file: Path) -> LoadReport:
    """Load the file's encoder weights into `vit`, strictly; see `backbones.load`."""
    tensors, metadata = read_tensors(file)
    report = LoadReport(file.name, file_sha256(file), metadata=metadata)
    named = metadata.get("backbone")
    if named not in (None, vit.name):
        raise BackboneError(f"checkpoint {file}: holds a {named}; asked for {vit.name}")
    own = vit.state_dict()
    full = "decoder_embed.weight" in tensors
    state = {}
    for key, value in tensors.items():
        if full and key.startswith(DECODER_KEYS):
            report.skipped[key] = "MAE decoder"
        elif key == "pos_embed" and value.ndim == 3 and value.shape[1] != own[key].shape[1]:
            try:
                state[key] = resize(value.float(), vit.grid_size)
            except ValueError as error:
                raise BackboneError(f"checkpoint {file}: {error}") from None
            report.resized[key] = f"{value.shape[1]} -> {own[key].shape[1]} positions, bicubic"
        else:
            state[key] = value
    check_keys(file, vit.name, state, own)
    report.loaded = sorted(state)
    vit.load_state_dict(state)
    return report


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
