"""Small files beside weights and the metadata inside: each kind typed, bounded, and refused whole.

They come from strangers, as the weights do. Imports no torch.
"""

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backbones.files import read_regular
from backbones.reading import MOST_TOKENS
from backbones.sizes import BackboneError

MOST_BYTES = 16 * 2**20
"""of a side file; the names of 21,841 classes take two million"""
MOST_PIXELS = 8192
"""of the side of an image"""

Pixels = Annotated[int, Field(ge=1, le=MOST_PIXELS)]
Heads = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
Eps = Annotated[float, Field(gt=0, lt=1)]
Means = tuple[Annotated[float, Field(ge=-10, le=10)], ...]
Stds = tuple[Annotated[float, Field(gt=0, le=10)], ...]
Three = Field(default=None, min_length=3, max_length=3)
CropRatio = Annotated[float, Field(gt=0, le=1)]


class SideFile(BaseModel):
    """What is not named here is of no concern to us."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class TimmConfig(SideFile):
    """`pretrained_cfg` of timm's config.json, as far as it tells of weights and their test."""

    mean: Means | None = Three
    std: Stds | None = Three
    input_size: tuple[Pixels, Pixels, Pixels] | None = None
    """channels, height, width"""
    crop_pct: CropRatio | None = None
    interpolation: str | None = None


class TimmFile(SideFile):
    """config.json of timm."""

    pretrained_cfg: TimmConfig = TimmConfig()
    global_pool: str | None = None
    label_names: Any = None
    """of the classes; looked at by `labels_beside` alone"""


class Config(SideFile):
    """config.json of transformers."""

    model_type: str | None = None
    hidden_size: Annotated[int, Field(ge=1)] | None = None
    hidden_act: str = "gelu"
    num_attention_heads: Heads | None = None
    layer_norm_eps: Eps | None = None
    use_mean_pooling: bool = False
    image_size: Pixels | tuple[Pixels, Pixels] | None = None
    patch_size: Pixels | tuple[Pixels, Pixels] | None = None
    id2label: Any = None
    """index -> name of a class; looked at by `labels_beside` alone"""


class Processor(SideFile):
    """preprocessor_config.json of transformers."""

    image_mean: Means | None = Three
    image_std: Stds | None = Three
    size: dict[str, int | None] | int | None = None
    crop_size: dict[str, int | None] | int | None = None
    do_center_crop: bool | None = None
    crop_pct: CropRatio | None = None


class Index(SideFile):
    """model.safetensors.index.json or pytorch_model.bin.index.json."""

    weight_map: Annotated[dict[str, str], Field(min_length=1)]
    """tensor -> file"""


class Anatomy(SideFile):
    """What a file of ours says of its backbone; see `loading.anatomy_metadata`."""

    num_heads: Heads | None = None
    norm_eps: Eps | None = None
    layer_scale: float | None = None
    absolute_position: bool = True
    relative_position: bool = False
    final_norm: bool = True
    mean: Means | None = Three
    std: Stds | None = Three
    image_size: Pixels | None = None


Kind = TypeVar("Kind", bound=SideFile)


def read_side_file(file: Path, kind: type[Kind]) -> Kind | None:
    """A JSON file as `kind`; None: there is none. Raises `BackboneError` for anything else."""
    try:
        content = read_regular(file, MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BackboneError(f"{file}: cannot be read as JSON ({error.strerror})") from None
    return parse_json(str(file), content, kind)


def parse_json(what: str, content: bytes | str, kind: type[Kind]) -> Kind:
    """JSON text as `kind`; `BackboneError` naming `what` and the first fault."""
    try:
        json.loads(content, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise BackboneError(f"{what}: cannot be read as JSON ({in_a_line(reason)})") from None
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        given = in_a_line(repr(first["input"]))[:60]
        raise BackboneError(f"{what}: {where} is {given}; {in_a_line(first['msg'])}") from None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these members; ValueError for a name that is there twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found


def in_a_line(text: object) -> str:
    """Text without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in str(text)).strip()
