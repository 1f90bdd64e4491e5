"""Checkpoint files: reading, comparing with what is wanted, and atomic writing."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from backbones.choosing import choose_state, shorten
from backbones.contents import find_files, read_files, refuse_no_weights
from backbones.files import atomic
from backbones.formats import BIAS_TABLE
from backbones.sizes import BackboneError

__all__ = [
    "BIAS_TABLE",
    "check_keys",
    "check_shapes",
    "describe",
    "file_sha256",
    "read_tensors",
    "refuse_not_finite",
    "save",
    "shorten",
]


def read_tensors(
    file: Path, allow_pickle: bool = False, key: str | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, a torch file, a .npz file, or shards of them.

    A torch file may hold the state dict itself or in a dictionary, next to anything else that is
    only data (the reference's training states hold their `argparse.Namespace`); `key` says where,
    if it holds several. Only with `allow_pickle` is one read that holds more, which runs the code
    in it. Raises `BackboneError` for a file that is missing, truncated, or no checkpoint.
    """
    files, _ = find_files(file)
    chosen = choose_state(file, read_files(files, allow_pickle), key)
    return chosen.tensors, chosen.metadata


def check_keys(file: Path, name: str, given: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Raise `BackboneError` listing both sides unless keys and shapes agree exactly.

    And one for values that are no numbers of a network, or not finite.
    """
    check_shapes(file, name, given, wanted)
    refuse_no_weights(file, {key: given[key] for key in wanted if wanted[key].is_floating_point()})
    refuse_not_finite(file, given)
    refuse_blank(file, given)


def check_shapes(
    file: Path, name: str, given: dict[str, Tensor], wanted: dict[str, Tensor]
) -> None:
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


def refuse_not_finite(file: Path, tensors: dict[str, Tensor]) -> None:
    """Raise `BackboneError` for NaN and for what is infinite, or becomes so in float32."""
    broken = [key for key in sorted(tensors) if not is_finite(tensors[key])]
    if broken:
        raise BackboneError(
            f"checkpoint {file}: holds infinite values or NaN ({shorten(broken)}); expected the "
            "weights of a training that did not diverge"
        )


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite as they will be computed with."""
    return bool((tensor.float() if tensor.dtype == torch.float64 else tensor).isfinite().all())


def refuse_blank(file: Path, tensors: dict[str, Tensor]) -> None:
    """Raise `BackboneError` for matrices of nothing but zeros, as of a file never filled."""
    blank = [
        key for key in sorted(tensors) if tensors[key].ndim > 1 and is_blank(key, tensors[key])
    ]
    if blank:
        raise BackboneError(
            f"checkpoint {file}: holds matrices of nothing but zeros ({shorten(blank)}); expected "
            "trained weights: write the file again, all of its parts gathered"
        )


def is_blank(key: str, tensor: Tensor) -> bool:
    """Whether a matrix that a training fills is empty of it; positions may well be zeros."""
    filled = key.endswith(("proj.weight", "qkv.weight", "fc1.weight", "fc2.weight"))
    return filled and not tensor.any()


def save(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically; a crash leaves the old file or the new one.

    Names of one tensor, as of a plug-in that has its network's blocks as its own, have a copy each.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    first = {value.data_ptr(): key for key, value in reversed(tensors.items())}
    tensors = {
        key: value if first[value.data_ptr()] == key else value.clone()
        for key, value in tensors.items()
    }
    content = safetensors.torch.save(tensors, {"format": "pt", **metadata})
    header, start = ordered_header(content)
    with atomic(file) as stream:
        stream.write(header)
        stream.write(memoryview(content)[start:])


def ordered_header(content: bytes) -> tuple[bytes, int]:
    """The header of safetensors with its metadata in order, and where the tensors begin.

    The library writes metadata in a random order, so that equal weights had unequal files.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = dict(sorted(header.pop("__metadata__", {}).items()))
    text = json.dumps({"__metadata__": metadata} | header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, 8 + length


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe(metadata: Mapping[str, object]) -> dict[str, str]:
    """Metadata as the strings that safetensors stores."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
