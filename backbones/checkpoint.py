"""Checkpoint files: reading, comparing with what is wanted, and atomic writing."""

import argparse
import hashlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from backbones.formats import BIAS_TABLE
from backbones.sizes import BackboneError

__all__ = [
    "BIAS_TABLE",
    "check_keys",
    "describe",
    "file_sha256",
    "read_tensors",
    "save",
    "shorten",
]

WRAPPERS = ("teacher", "model", "state_dict", "module")
"""what state dicts lie under: DINO's, of whose two networks the teacher is evaluated; MAE's, DeiT's
and BEiT's; MoCo v3's; BEiT's with DeepSpeed"""


def read_tensors(
    file: Path, allow_pickle: bool = False
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, a torch file or a .npz file.

    A torch file may hold the state dict itself or under one of `WRAPPERS`, next to anything else
    that is only data (the reference's training states hold their `argparse.Namespace`). Only with
    `allow_pickle` is one read that holds more, which runs the code in it. Raises `BackboneError`
    for a file that is missing, truncated, or no checkpoint.
    """
    if not file.is_file():
        kind = "is a folder; expected a file" if file.is_dir() else "no such file"
        raise BackboneError(f"checkpoint {file}: {kind}")
    if file.suffix == ".npz":
        return read_npz(file), {}
    try:
        with safe_open(file, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        if file.suffix == ".safetensors":
            raise BackboneError(
                f"checkpoint {file}: truncated or no safetensors ({error})"
            ) from None
    content = read_torch(file, allow_pickle)
    if isinstance(content, dict):
        content = next((content[key] for key in WRAPPERS if key in content), content)
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise BackboneError(
            f"checkpoint {file}: holds no state dict; expected tensors by name, directly or "
            f"under {', '.join(WRAPPERS)}"
        )
    return content, {}


def read_torch(file: Path, allow_pickle: bool) -> Any:
    """What a torch file holds; see `read_tensors`."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=not allow_pickle)
    except pickle.UnpicklingError as error:
        found = re.search(r"Unsupported (global: GLOBAL \S+|\w+ \d+)", str(error))
        reason = found.group() if found else "unreadable"
        raise BackboneError(
            f"checkpoint {file}: truncated, no torch file, or one that needs pickle ({reason}); if "
            "you trust who made it, allow its code to run: --allow-pickle"
        ) from None
    # With pickle allowed, whatever the file's code raises.
    except Exception as error:
        if not allow_pickle and not isinstance(
            error, RuntimeError | EOFError | OSError | ValueError | KeyError
        ):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BackboneError(f"checkpoint {file}: truncated or no torch file ({reason})") from None


def read_npz(file: Path) -> dict[str, Tensor]:
    """The arrays of a .npz file, without pickle."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BackboneError(f"checkpoint {file}: truncated or no .npz file ({reason})") from None


def check_keys(file: Path, name: str, given: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Raise `BackboneError` listing both sides unless keys and shapes agree exactly.

    And one for values that are not finite.
    """
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
    broken = [key for key in sorted(wanted) if not given[key].isfinite().all()]
    if broken:
        raise BackboneError(
            f"checkpoint {file}: holds infinite values or NaN ({shorten(broken)}); expected the "
            "weights of a training that did not diverge"
        )


def shorten(names: list[str], most: int = 4) -> str:
    """The first few names and how many more there are."""
    if not names:
        return "none"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def save(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically; a crash leaves the old file or the new one.

    Names of one tensor, as of a plug-in that has its network's blocks as its own, have a copy each.
    """
    temporary = file.with_suffix(".partial")
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    first = {value.data_ptr(): key for key, value in reversed(tensors.items())}
    tensors = {
        key: value if first[value.data_ptr()] == key else value.clone()
        for key, value in tensors.items()
    }
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
