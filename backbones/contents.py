"""What lies in the files of a checkpoint: trees of tensors, taken from strangers.

A file is opened if it is a regular one, and not one that claims more than it holds; tensors that
are not plain arrays of numbers are refused by their names.
"""

import argparse
import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from backbones.files import INDEX_ENDING, NAMES, RUN_FILES, open_regular, weights_in
from backbones.side_files import Index, in_a_line, read_side_file
from backbones.sizes import BackboneError

OWN_METADATA = "mae_bench"
"""name in a torch file under which we write what a safetensors file says in its metadata"""

TORCH_BEGINS = (b"PK", b"\x80")
"""a zip archive, or a pickle as torch wrote them until version 1.6"""
EXPANSION = 4
SLACK = 64 * 2**20
"""a compressed file may unpack to so many times its size, and so many bytes more"""
SPARSE_FROM = 256 * 2**20
"""bytes of a file from which on most of them have to be on the disk"""
MOST_TENSORS = 100_000
LONGEST_NAME = 500
ALLOW = "if you trust who made it, allow its code to run: --allow-pickle"
NO_CLASSES: Mapping[str, type] = MappingProxyType({})
DEEPEST = 4
"""dictionaries inside each other that are looked into"""


@dataclass
class Contents:
    """The tree that a checkpoint holds; a leaf is a tensor or of no concern."""

    tree: Any
    metadata: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    """what was chosen on the way"""


def find_files(place: Path) -> tuple[list[Path], list[str]]:
    """The files that make up a checkpoint, and what was chosen among them.

    `place` is a file, an index of shards, or a folder that Hugging Face's names tell.
    """
    try:
        if place.is_dir():
            return files_in(place)
        with open_regular(place) as opened:
            refuse_sparse(place, opened.fileno())
    except FileNotFoundError:
        raise BackboneError(f"checkpoint {place}: no such file") from None
    except BackboneError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BackboneError(f"checkpoint {place}: {in_a_line(reason)}; expected a file") from None
    return (shards(place), []) if place.name.endswith(INDEX_ENDING) else ([place], [])


def files_in(folder: Path) -> tuple[list[Path], list[str]]:
    """The files of a folder that holds one checkpoint."""
    if any((folder / name).exists() for name in RUN_FILES):
        raise BackboneError(
            f"checkpoint {folder}: is a folder, of a run; expected a file, as in it "
            "backbone.safetensors of a pre-training"
        )
    there = weights_in(folder)
    if not there:
        raise BackboneError(
            f"checkpoint {folder}: is a folder without {', '.join(NAMES)}; expected a file, or a "
            "folder that Hugging Face's transformers wrote"
        )
    others = f", not {', '.join(there[1:])}" if len(there) > 1 else ""
    return find_files(folder / there[0])[0], [f"of the folder {there[0]}{others}"]


def shards(index: Path) -> list[Path]:
    """The files that an index names, beside it."""
    found = read_side_file(index, Index)
    assert found is not None  # it was there
    names = sorted(set(found.weight_map.values()))
    odd = next((n for n in names if Path(n).name != n or n.endswith(INDEX_ENDING)), None)
    if odd is not None:
        raise BackboneError(
            f"checkpoint {index}: names the file {in_a_line(odd)!r}; expected files beside it"
        )
    return [each for name in names for each in find_files(index.with_name(name))[0]]


def refuse_sparse(place: Path, descriptor: int) -> None:
    """Raise `BackboneError` for a large file whose bytes are not on the disk."""
    import os

    status = os.fstat(descriptor)
    on_disk = 512 * getattr(status, "st_blocks", status.st_size)
    if status.st_size >= SPARSE_FROM and on_disk < status.st_size / 2:
        raise BackboneError(
            f"checkpoint {place}: is a sparse file: of its {status.st_size:,} bytes {on_disk:,} "
            "are on the disk; expected a whole one"
        )


def read_files(files: list[Path], allow_pickle: bool) -> Contents:
    """What the files hold together."""
    if len(files) == 1:
        return read_file(files[0], allow_pickle)
    whole = Contents({})
    for file in files:
        part = read_file(file, allow_pickle)
        if not isinstance(part.tree, dict):
            raise BackboneError(f"checkpoint {file}: holds no tensors by name; expected a shard")
        twice = sorted(str(key) for key in set(part.tree) & set(whole.tree))
        if twice:
            raise BackboneError(f"checkpoint {file}: {twice[0]} is in another shard too")
        whole.tree |= part.tree
        whole.metadata |= part.metadata
    whole.said.append(f"{len(files)} shards")
    return whole


def read_file(file: Path, allow_pickle: bool) -> Contents:
    """What one safetensors, torch or .npz file holds."""
    refuse_pointer(file)
    if file.suffix == ".npz":
        return Contents(read_npz(file))
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            refuse_names(file, names)
            tensors = {key: opened.get_tensor(key) for key in names}
            return Contents(tensors, opened.metadata() or {})
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        # A torch file may have any name, and one of safetensors too.
        if file.suffix == ".safetensors" or isinstance(error, BackboneError):
            if isinstance(error, BackboneError):
                raise
            raise BackboneError(
                f"checkpoint {file}: truncated or no safetensors ({brief(error)})"
            ) from None
    tree = read_torch(file, allow_pickle)
    own = tree.get(OWN_METADATA) if isinstance(tree, dict) else None
    told = isinstance(own, dict) and all(isinstance(v, str) for kv in own.items() for v in kv)
    return Contents(tree, dict(own) if told and own is not None else {})


def read_torch(file: Path, allow_pickle: bool, inert: Mapping[str, type] = NO_CLASSES) -> Any:
    """What a torch file holds; `BackboneError` with the reason for any other.

    `inert` gives classes that stand for those of the file by name, and run nothing.
    """
    refuse_text(file)
    refuse_expanding(file)
    known: list[Any] = [argparse.Namespace, *((kind, name) for name, kind in inert.items())]
    try:
        with torch.serialization.safe_globals(known), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinds of tensors that are refused by name
            return torch.load(file, map_location="cpu", weights_only=not allow_pickle)
    except pickle.UnpicklingError as error:
        found = re.search(r"Unsupported (global: GLOBAL \S+|\w+ \d+)", str(error))
        if found is None:
            raise BackboneError(f"checkpoint {file}: truncated or no torch file") from None
        raise BackboneError(
            f"checkpoint {file}: no torch file, or one that needs pickle ({found.group()}); "
            + ("no code of such a file is run here: expected data alone" if inert else ALLOW)
        ) from None
    # Of a damaged file torch raises nearly anything, and one with pickle allowed whatever it likes.
    except Exception as error:
        raise BackboneError(
            f"checkpoint {file}: truncated or no torch file ({brief(error)})"
        ) from None


def read_npz(file: Path) -> dict[str, Tensor]:
    """The arrays of a .npz file, without pickle."""
    refuse_expanding(file)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            refuse_names(file, list(arrays.files))
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    except BackboneError:
        raise
    except Exception as error:  # as above
        raise BackboneError(
            f"checkpoint {file}: truncated or no .npz file ({brief(error)})"
        ) from None


def refuse_pointer(file: Path) -> None:
    """Raise `BackboneError` for what Git LFS leaves in place of a large file."""
    with open_regular(file) as opened:
        if opened.read(64).startswith(b"version https://git-lfs"):
            raise BackboneError(
                f"checkpoint {file}: is a pointer of Git LFS and not the weights; git lfs pull "
                "gets them"
            )


def refuse_text(file: Path) -> None:
    """Raise `BackboneError` for what begins as no torch file does, with what it is."""
    with open_regular(file) as opened:
        start = opened.read(64)
    if start.startswith(TORCH_BEGINS):
        return
    what = "truncated or no torch file"
    if start.lstrip().startswith(b"{") and file.suffix == ".json":
        what = f"is JSON, and no index of shards (*{INDEX_ENDING}); expected a file of weights"
    raise BackboneError(f"checkpoint {file}: {what}")


def refuse_expanding(file: Path) -> None:
    """Raise `BackboneError` for a zip archive that unpacks to far more than it is."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except Exception:  # no archive, or a damaged one: its reader says so
        return
    size, unpacked = file.stat().st_size, sum(member.file_size for member in members)
    if unpacked > EXPANSION * size + SLACK:
        raise BackboneError(
            f"checkpoint {file}: its {size:,} bytes unpack to {unpacked:,}; expected weights, "
            "which can hardly be compressed"
        )
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise BackboneError(f"checkpoint {file}: has parts of one name; expected a sound archive")


def refuse_names(file: Path, names: list[Any]) -> None:
    """Raise `BackboneError` for names that no network gives its tensors."""
    if len(names) > MOST_TENSORS:
        raise BackboneError(
            f"checkpoint {file}: holds {len(names):,} tensors; expected at most {MOST_TENSORS:,}"
        )
    for name in names:
        if isinstance(name, str) and not (name.isprintable() and len(name) <= LONGEST_NAME):
            raise BackboneError(
                f"checkpoint {file}: has the name {in_a_line(name)[:60]!r}; expected printable "
                f"ones of at most {LONGEST_NAME} characters"
            )


def states_in(tree: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The dictionaries in a tree that hold tensors by name: where each is, and what it holds.

    Modules that pickle made count as their state.
    """
    seen: set[int] = set()

    def walk(node: Any, path: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(node, nn.Module):
            node = node.state_dict()
        if not isinstance(node, dict) or id(node) in seen or len(seen) > MOST_TENSORS:
            return
        seen.add(id(node))
        named = {key: value for key, value in node.items() if isinstance(key, str)}
        if any(isinstance(value, Tensor) for value in named.values()):
            yield path, named
        if depth < DEEPEST:
            for key, value in named.items():
                yield from walk(value, f"{path}.{key}" if path else key, depth + 1)

    yield from walk(tree, "", 0)


DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def refuse_odd(file: Path, name: str, value: Tensor) -> None:
    """Raise `BackboneError` for a tensor that is no plain array in memory, all of it there."""
    kind = next(
        (
            kind
            for kind, has in (
                ("a nested tensor", value.is_nested),
                (f"a {str(value.layout).removeprefix('torch.')} tensor", is_sparse(value)),
                ("a quantised tensor", value.is_quantized),
                (f"a {type(value).__name__}", type(value) not in (Tensor, nn.Parameter)),
                (f"a tensor on {value.device.type}", value.device.type != "cpu"),
            )
            if has
        ),
        None,
    )
    if kind is None:
        there, claimed = value.untyped_storage().nbytes(), value.numel() * value.element_size()
        if claimed > there:
            kind = f"a view that shows its {there:,} bytes as {claimed:,}"
    if kind is not None:
        raise BackboneError(
            f"checkpoint {file}: {name} is {kind}; expected a dense tensor of floats"
        )


def is_sparse(value: Tensor) -> bool:
    """Whether it is laid out otherwise than by strides."""
    return not value.is_nested and value.layout != torch.strided


def refuse_no_weights(file: Path | str, tensors: dict[str, Tensor]) -> None:
    """Raise `BackboneError` for tensors that no network computes with."""
    for name, value in tensors.items():
        kind = str(value.dtype).removeprefix("torch.")
        if value.dtype not in DTYPES:
            what = f"holds {kind} values"
        elif not value.numel():
            what = f"is empty, {tuple(value.shape)}"
        else:
            continue
        raise BackboneError(
            f"checkpoint {file}: {name} {what}; expected weights in float16, bfloat16, float32 or "
            "float64"
        )


def digest(files: list[Path]) -> str:
    """SHA-256 of a file's bytes, as hex; of several, of their names and theirs."""
    each = []
    for file in files:
        with file.open("rb") as stream:
            each.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if len(files) == 1:
        return each[0]
    named = "".join(f"{file.name} {sha}\n" for file, sha in zip(files, each, strict=True))
    return hashlib.sha256(named.encode()).hexdigest()


def brief(error: Exception) -> str:
    """The first line of what an exception says."""
    return in_a_line((str(error).strip() or type(error).__name__).splitlines()[0])[:200]
