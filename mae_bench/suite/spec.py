"""What a suite is to measure, as a file says it: weights by name, and blocks to be multiplied out.

    data_root = "/data"
    seeds = 3

    [weights.ours]
    checkpoint = "ours.pth"

    [weights.shorter]
    pretrain = {method = "mae", epochs = 400}

    [[measure]]
    backbones = ["vit_b"]
    weights = ["ours", "shorter", "released:mae", "scratch"]
    tasks = ["imagenet1k", "coco"]

Imports no torch.
"""

import difflib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from backbones.files import open_regular
from mae_bench.errors import RunError
from mae_bench.grid import HOLDOUT
from mae_bench.run.files import atomic

MOST_BYTES = 1024**2
RELEASED = "released:"
"""begins the name of weights that their authors released"""
PRETRAIN_BY = "pretrain:"
"""begins the name of a pre-training of our own by its protocol's recipe"""
OF_PRETRAIN: dict[str, type] = {"method": str, "seed": int, "tokenizer": str}
"""what pre-trainings of a suite take besides fields of the recipe"""
KINDS = {str: "a text", int: "a whole number"}
MOST_SEEDS = 1000
Names = Annotated[list[str], Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class WeightsSpec(_Part):
    """Weights under a name: a checkpoint, or a pre-training with settings of its own."""

    checkpoint: str | None = None
    """a file, the folder of a run, timm:<model> or hf:<repository>"""
    init: str | None = None
    """of a checkpoint: its label in the tables"""
    pretrain: dict[str, Any] | None = None
    """method (default: mae), seed (default: that of the run), tokenizer (default: the suite's) and
    fields of its recipe"""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.checkpoint is None) == (self.pretrain is None):
            raise ValueError("expected either checkpoint or pretrain")
        if self.init is not None and self.checkpoint is None:
            raise ValueError("init is the label of a checkpoint; there is none")
        for key, kind in OF_PRETRAIN.items():
            value = (self.pretrain or {}).get(key)
            if value is not None and type(value) is not kind:
                raise ValueError(f"{key} of pretrain is {value!r}; expected {KINDS[kind]}")
        return self


class Block(_Part):
    """Runs: every combination of what the lists hold."""

    backbones: Names
    weights: Names
    """of [weights], "scratch", "released:mae" or "pretrain:mae" and their like"""
    tasks: Names
    """tasks, data sets that only test (imagenet_a), or "pretrain" for the pre-training itself"""
    protocols: list[str] = Field(default_factory=list)
    """none: the first of each task"""
    overrides: list[dict[str, Any]] = Field(default=[{}], min_length=1)
    """fields of the recipe; each table is a run"""
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    """fields of the recipe -> values, of which each transfer takes the best, see `transfer`"""
    sweep_holdout: float = Field(default=HOLDOUT, gt=0, lt=1)
    """share of the training images that is held out for that"""
    seeds: int | list[int] | None = None
    """how many, counted from 0, or which; none: those of the suite"""

    @model_validator(mode="after")
    def _holdout_of_a_sweep(self) -> Self:
        if "sweep_holdout" in self.model_fields_set and not self.sweep:
            raise ValueError("sweep_holdout is the share that a sweep holds out; there is no sweep")
        return self


class SuiteSpec(_Part):
    """A suite."""

    data: str | None = None
    """mini: the built-in miniature world; else data_root"""
    data_root: str | None = None
    """a folder with the data sets somewhere in it"""
    folders: dict[str, str] = Field(default_factory=dict)
    """data set -> its folder, where it is not in data_root"""
    seeds: int | list[int] = 1
    """how many, counted from 0, or which"""
    tokenizer: str | None = None
    """DALL-E's encoder.pkl, for pre-trainings that predict tokens; none: one of our own is made"""
    report: list[str] = Field(default_factory=list)
    """tables of the paper that the report shows besides"""
    weights: dict[str, WeightsSpec] = Field(default_factory=dict)
    measure: list[Block] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.data is not None and self.data != "mini":
            raise ValueError('data is "mini" or not there; folders are said by data_root')
        if self.data is not None and self.data_root is not None:
            raise ValueError("data and data_root contradict each other; leave one out")
        return self


def read_spec(file: Path) -> SuiteSpec:
    """The suite in a TOML file; `RunError` of one line that names the file and the key."""
    try:
        with open_regular(file) as stream:
            text = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise RunError(f"suite {file}: {error.strerror}") from None
    if len(text) > MOST_BYTES:
        raise RunError(f"suite {file}: is over {MOST_BYTES} bytes")
    try:
        content = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:  # of letters, TOML, and numbers too long to read
        raise RunError(f"suite {file}: no TOML ({' '.join(str(error).split())})") from None
    if any("\0" in each for each in texts(content)):
        raise RunError(f"suite {file}: has a NUL character in a text, which no path may have")
    try:
        return SuiteSpec.model_validate(content)
    except ValidationError as error:
        raise RunError(f"suite {file}: {complaint(error)}") from None


def texts(value: Any) -> Iterator[str]:
    """All texts in what a file holds, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inside in value.items():
            yield key
            yield from texts(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from texts(inside)


def write_spec(spec: SuiteSpec, file: Path) -> None:
    """Write a suite as `read_spec` reads it."""
    if file.is_dir():
        raise RunError(f"--write {file}: is a folder; expected the name of a file")
    content = without_none(spec.model_dump(exclude_defaults=True))
    with atomic(file) as stream:
        tomli_w.dump(content, stream)


def without_none(value: Any) -> Any:
    """TOML has none."""
    if isinstance(value, dict):
        return {k: without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [without_none(each) for each in value]
    return value


def complaint(error: ValidationError) -> str:
    """The first thing that is wrong, with near matches for an unknown key."""
    found = error.errors(include_url=False)
    unknown = [each for each in found if each["type"] == "extra_forbidden"]
    first = next(iter([*unknown, *found]))  # a key written wrong is missing too
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg']}" if where else str(first["msg"])
    key, known = str(first["loc"][-1]), list(keys_at(first["loc"][:-1]))
    near = difflib.get_close_matches(key, known, n=2)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown key {where}; {hint}there are {', '.join(known)}"


def keys_at(place: tuple[int | str, ...]) -> Iterator[str]:
    """The keys of the table at a place of the file."""
    inside: dict[str, type[BaseModel]] = {"measure": Block, "weights": WeightsSpec}
    kind = inside.get(str(place[0])) if place else SuiteSpec
    yield from (kind or SuiteSpec).model_fields


def numbers(seeds: int | list[int]) -> list[int]:
    """Seeds: as many as said, counted from 0, or those listed."""
    if not 1 <= (seeds if isinstance(seeds, int) else len(seeds)) <= MOST_SEEDS:
        raise RunError(f"seeds is {seeds!r}; expected at least one and at most {MOST_SEEDS:,}")
    if isinstance(seeds, int):
        return list(range(seeds))
    if len(set(seeds)) < len(seeds):
        raise RunError(f"seeds is {seeds!r}; it lists one twice, which is no second run")
    return seeds
