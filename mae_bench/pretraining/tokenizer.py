"""Tokenizers: encoders of discrete VAEs, DALL-E's released one or ours, read without running code.

Imported where torch is needed anyway.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.checkpoint import check_keys
from backbones.contents import (
    digest,
    find_files,
    read_file,
    read_torch,
    refuse_names,
    refuse_odd,
)
from backbones.sizes import BackboneError
from mae_bench.pretraining.discrete_vae import WIDTHS, Encoder
from mae_bench.pretraining.recipes import MOST_CODES

MOST_WIDTH, MOST_DEPTH = 4096, 64
FEWEST_USED = 2
"""codes that a tokenizer has to tell apart at the least"""
DECODER = "decoder."
"""what the names of a decoder begin with, in a file of ours"""
DEEPEST = 16
"""modules inside each other"""


class Inert:
    """Stands for a class that DALL-E's file names: keeps what the file says, and runs nothing."""

    state: dict[str, Any]

    def __new__(cls, *_: Any) -> "Inert":
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None:
        self.state = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


CLASSES: dict[str, type] = dict.fromkeys(
    (
        "dall_e.encoder.Encoder",
        "dall_e.encoder.EncoderBlock",
        "dall_e.utils.Conv2d",
        "torch.nn.modules.container.Sequential",
        "torch.nn.modules.activation.ReLU",
        "torch.nn.modules.pooling.MaxPool2d",
        "torch.nn.modules.linear.Identity",
    ),
    Inert,
)
"""of openai/DALL-E, whose encoder.pkl is the module itself and not its tensors"""


@dataclass
class Tokenizer:
    """An encoder and where it comes from."""

    encoder: Encoder
    name: str
    """of its file"""
    sha256: str
    metadata: dict[str, str]
    """of a file of ours; empty for DALL-E's, unless somebody has put it into another file"""

    @property
    def is_ours(self) -> bool:
        """Whether a run of ours has trained it."""
        return is_ours(self.metadata)

    def __str__(self) -> str:
        kind = "of ours" if self.is_ours else "DALL-E's layout"
        return (
            f"tokenizer {self.name} ({kind}, {self.encoder.codebook:,} codes, "
            f"sha256 {self.sha256[:12]})"
        )


def read_tokenizer(place: str | Path) -> Tokenizer:
    """The encoder in a file: DALL-E's encoder.pkl, its tensors alone, or tokenizer.safetensors.

    Nothing of the file is executed. Raises `BackboneError`, a line, for a file that is missing,
    damaged or holds something else.
    """
    place = Path(place)
    try:
        files, _ = find_files(place)
        tensors, metadata = tensors_of(files[0])
    except BackboneError as error:  # which may speak of a checkpoint
        raise BackboneError(re.sub("^checkpoint ", "tokenizer ", str(error))) from None
    tensors = {plain(key): value for key, value in tensors.items()}
    encoder = fitting(files[0], tensors)
    encoder.load_state_dict({key: value.float() for key, value in tensors.items()})
    used = metadata.get("codes_used")
    if used is not None and used.isdigit() and int(used) < FEWEST_USED:
        raise BackboneError(
            f"tokenizer {place}: its codebook has collapsed: it names every patch by {used} of its "
            f"{encoder.codebook:,} codes, so there is nothing to predict; train it longer, or with "
            "another seed"
        )
    return Tokenizer(encoder.eval().requires_grad_(False), place.name, digest(files), metadata)


def tensors_of(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name and metadata of a file, of whose modules none is made."""
    if file.suffix in (".safetensors", ".npz"):
        contents = read_file(file, allow_pickle=False)
        tree, metadata = contents.tree, contents.metadata
    else:
        tree, metadata = read_torch(file, allow_pickle=False, inert=CLASSES), {}
    named = dict(walk(tree)) if isinstance(tree, Inert) else tree
    if not isinstance(named, dict) or not any(isinstance(v, Tensor) for v in named.values()):
        raise BackboneError(
            f"tokenizer {file}: holds no tensors; expected DALL-E's encoder.pkl, or "
            "tokenizer.safetensors of a run of pretrain --method tokenizer"
        )
    refuse_names(file, list(named))
    tensors = {
        key: value
        for key, value in named.items()
        if isinstance(value, Tensor) and not (is_ours(metadata) and key.startswith(DECODER))
    }
    for key, value in tensors.items():
        refuse_odd(file, key, value)
    return {key: value.detach() for key, value in tensors.items()}, metadata


def is_ours(metadata: Mapping[str, str]) -> bool:
    return metadata.get("method") == "tokenizer"


def plain(key: str) -> str:
    """DALL-E's convolutions call their weight w and their bias b."""
    return re.sub(r"\.w$", ".weight", re.sub(r"\.b$", ".bias", key))


def walk(module: Inert, path: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The parameters of a module that was not made, by the names of a state dict."""
    parameters, inside = (module.state.get(name) for name in ("_parameters", "_modules"))
    for name, value in parameters.items() if isinstance(parameters, dict) else ():
        if isinstance(value, Tensor):
            yield f"{path}{name}", value
    for name, child in inside.items() if isinstance(inside, dict) else ():
        if isinstance(child, Inert) and depth < DEEPEST:
            yield from walk(child, f"{path}{name}.", depth + 1)


def fitting(file: Path, tensors: dict[str, Tensor]) -> Encoder:
    """An encoder, with new weights, of the size that the tensors show and fit in all names."""
    first, last = tensors.get("blocks.input.weight"), tensors.get("blocks.output.conv.weight")
    numbers = [re.match(r"blocks\.group_1\.block_(\d{1,4})\.", key) for key in tensors]
    depth = max((int(found[1]) for found in numbers if found), default=0)
    if first is None or last is None or first.ndim != 4 or last.ndim != 4 or not depth:
        raise BackboneError(
            f"tokenizer {file}: holds no encoder of a discrete VAE; expected DALL-E's encoder.pkl "
            "(its tensors begin with blocks.input.w), or tokenizer.safetensors of a run of "
            "pretrain --method tokenizer"
        )
    width, codebook = len(first), len(last)
    if width % 4 or not (4 <= width <= MOST_WIDTH and depth <= MOST_DEPTH):
        raise BackboneError(
            f"tokenizer {file}: is {width} wide with {depth} blocks a group; expected a multiple "
            f"of 4 up to {MOST_WIDTH} and at most {MOST_DEPTH}"
        )
    if not FEWEST_USED <= codebook <= MOST_CODES or last.shape[1] != width * WIDTHS[-1]:
        raise BackboneError(
            f"tokenizer {file}: its last layer is {tuple(last.shape[:2])}; expected 2 codes or "
            f"more of {width * WIDTHS[-1]} channels"
        )
    with torch.device("meta"):  # compared before memory is asked for
        check_keys(file, "DALL-E's encoder", tensors, Encoder(width, depth, codebook).state_dict())
    return Encoder(width, depth, codebook)
