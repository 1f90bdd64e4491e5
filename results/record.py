"""What one run was, what it scored and what it cost: the file `record.json`."""

import ast
import math
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from results.errors import ResultsError

SCHEMA_VERSION: Final = 1


def _in_utc(time: AwareDatetime) -> AwareDatetime:
    if time.utcoffset() != timedelta(0):
        raise ValueError("expected a time in UTC")
    return time


def _json_safe(value: Any) -> Any:
    """Tuples become lists; NaN and infinities, which JSON cannot hold, are refused."""
    if isinstance(value, dict):
        return {key: _json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_safe(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("expected finite numbers only")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError("expected whole numbers below 2^63")
    return value


def _as_tuple(value: Any) -> Any:
    """A list, as JSON has it, in a part whose parts are told apart by their hashes."""
    return tuple(value) if isinstance(value, list) else value


LARGEST: Final = 2**63
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_as_tuple)]
UtcTime = Annotated[AwareDatetime, AfterValidator(_in_utc)]
ProtocolText = Annotated[str, Field(pattern=r"^[a-z0-9_.-]+/[a-z0-9_.-]+@[1-9][0-9]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Values = Annotated[dict[Text, JsonValue], BeforeValidator(_json_safe)]
HexDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]


class _Part(BaseModel):
    """Strict on purpose: a file by another program, or an edited one, is refused, not guessed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Named(_Part):
    """A data set by its name, and by all that is in it."""

    name: Text
    fingerprint: HexDigest


class Checkpoint(_Part):
    """The weights a run started from. What determined them is there if the file tells it."""

    file: Text
    """file name, without the folder"""
    sha256: Sha256
    recipe_hash: HexDigest | None = None
    """recipe of the pre-training"""
    data: Named | None = None
    """images of the pre-training"""
    seed: Count | None = None
    """of the pre-training"""
    continued_from: "Checkpoint | None" = None
    """the weights that the pre-training itself started from; None: random ones"""
    tokenizer: "Checkpoint | None" = None
    """whose tokens the pre-training predicted; None: it predicted none"""
    read_as: Texts = ()
    """what else the weights depend on than the file: "key model_ema", what a user said of it"""
    assumed: Texts = ()
    """what neither the file nor a user told, for people"""

    @property
    def is_traced(self) -> bool:
        """Whether all that determined the weights is recorded: recipe, data and seed."""
        return None not in (self.recipe_hash, self.data, self.seed)

    @property
    def origin(self) -> tuple:
        """What determined the weights besides seeds, or the file itself where that is unknown.

        Weights of one origin differ in their seed alone.
        """
        if self.recipe_hash is None or self.data is None or self.seed is None:
            return (self.sha256, *self.read_as)
        before = self.continued_from.origin if self.continued_from else ()
        known = (self.recipe_hash, self.data.fingerprint, before, *self.read_as)
        return known if self.tokenizer is None else (*known, self.tokenizer.origin)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the pre-training and those before it, where `origin` is known without the file."""
        if not self.is_traced or self.seed is None:
            return ()
        return (self.seed, *(self.continued_from.seeds if self.continued_from else ()))

    def to_dict(self) -> dict[str, Any]:
        """For JSON, as files had it before the data and the seed of pre-training were in it."""
        known = self.model_dump(exclude={"continued_from", "tokenizer"})
        others = {"continued_from": self.continued_from, "tokenizer": self.tokenizer}
        known |= {name: each.to_dict() for name, each in others.items() if each is not None}
        known = {k: list(v) if isinstance(v, tuple) else v for k, v in known.items()}
        return {k: v for k, v in known.items() if v not in (None, []) or k == "recipe_hash"}


class Data(_Part):
    """The images a run trained on and was scored on."""

    name: Text
    fingerprint: HexDigest
    """names the exact list of files and labels, wherever the data set lies"""
    train_images: Count
    val_images: Count
    classes: Count
    miniature: bool
    """drawn by the built-in miniature world"""
    standard: bool
    """the counts are those of the official data set"""
    upright: bool = False
    """the user's own images, turned by their EXIF tags; the official ones are read as stored"""
    own: bool = False
    """the user's own classes or images, however many they are; never comparable to a publication"""

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.miniature and self.standard:
            raise ValueError("miniature data is never the standard data set")
        return self


class Cost(_Part):
    """What a run took. None: not measured."""

    seconds: NonNegativeFloat | None = None
    images_per_second: NonNegativeFloat | None = None
    peak_memory_bytes: Count | None = None
    """largest device memory of one process"""
    flops_per_image: NonNegativeFloat | None = None
    """of a pre-training: floating-point operations of one image, forward and backward"""
    parameters: Count | None = None
    """here and below: of the backbone of a transfer"""
    forward_flops: NonNegativeFloat | None = None
    """floating-point operations of one image, forward"""
    latency_seconds: NonNegativeFloat | None = None
    """median time of one image's forward pass in float32, on the run's device"""


class Earlier(_Part):
    """Where a part of a run happened that went on elsewhere."""

    device: Text
    processes: Annotated[PositiveInt, Field(le=LARGEST)]
    sharded: bool = False
    seconds: NonNegativeFloat
    """of its training"""


class Environment(_Part):
    """Where a run happened, or the last part of it."""

    python: Text
    torch: Text
    versions: dict[str, str]
    """other libraries: name to version"""
    device: Text
    bf16: Text | None = None
    """what a CPU multiplied bfloat16 with, of a run whose recipe says bf16; None: another run, or
    one from before this was written down"""
    processes: Annotated[PositiveInt, Field(le=LARGEST)]
    sharded: bool = False
    """whether each process held a part of the network alone"""
    earlier: list[Earlier] = Field(default_factory=list)
    """where it was trained before, if that was elsewhere; a run from before this was written down
    tells nothing"""
    commit: Text | None
    """of mae-bench; None when it does not run from a repository"""
    command: str


class Changed(_Part):
    """A field of the recipe that a run changed of its protocol."""

    field: Text
    value: Annotated[JsonValue, BeforeValidator(_json_safe)]
    standard: Annotated[JsonValue, BeforeValidator(_json_safe)]
    """what the protocol has there"""

    def __str__(self) -> str:
        """ "epochs 100 -> 1", as it stands among a record's deviations."""
        return f"{self.field} {_python(self.standard)} -> {_python(self.value)}"


def _python(value: Any) -> Any:
    """A value of JSON as a recipe has it: tuples in place of lists."""
    return tuple(map(_python, value)) if isinstance(value, list) else value


class Tried(_Part):
    """A candidate of a sweep."""

    values: Values
    """of the fields that were swept"""
    score: float | None
    """on the held-out images; None: it failed"""
    failed: Text | None = None
    """why"""
    seconds: NonNegativeFloat | None = None
    """of its training"""

    def __str__(self) -> str:
        """ "base_lr 0.001, weight_decay 0.05"."""
        return ", ".join(f"{name} {_python(value)}" for name, value in self.values.items())


class HeldOut(_Part):
    """The training images by which a sweep chose, and those it trained on meanwhile."""

    share: Annotated[float, Field(gt=0, lt=1)]
    """of the training images, of each class where an image has one"""
    seed: Count
    train_images: Count
    images: Count
    fingerprint: HexDigest
    """names the held-out images"""


class Sweep(_Part):
    """How settings were chosen: each combination of some values, by held-out training images."""

    grid: Annotated[dict[Text, list[JsonValue]], BeforeValidator(_json_safe)]
    """field of the recipe -> values"""
    metric: Text
    held_out: HeldOut
    tried: list[Tried]
    chosen: Values
    notes: list[Text] = Field(default_factory=list)
    """ties, a best value at an end of its list, and failures, for people"""

    @property
    def spec(self) -> dict[str, Any]:
        """What decides the choice, without what it came to."""
        return self.model_dump(include={"grid", "metric", "held_out"})

    def __str__(self) -> str:
        """What stands among a record's deviations: the same whatever was chosen."""
        lists = (f"{k} over {', '.join(map(str, map(_python, v)))}" for k, v in self.grid.items())
        return (
            f"swept: {'; '.join(lists)}: chosen by {self.metric} on {self.held_out.images} "
            f"held-out training images ({self.held_out.share:.0%})"
        )


CHANGE = re.compile(r"(\w+) (\(.+\)|\S+) -> (\(.+\)|\S+)")


def read_changes(deviations: Iterable[str]) -> list[Changed]:
    """What older records tell as text alone: the one place where that text is read."""
    found = []
    for text in deviations:
        match = CHANGE.fullmatch(text)
        if match is not None:
            name, standard, value = match.groups()
            changed = Changed(field=name, value=_literal(value), standard=_literal(standard))
            found += [changed] if str(changed) == text else []
    return found


def _literal(text: str) -> Any:
    """A number, a truth value, None or a tuple of them; else the text itself."""
    try:
        value = ast.literal_eval(text)
        return value if str(_python(_json_safe(value))) == text else text
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


class Record(_Part):
    """One run. Percentages are 0 to 100, so a top-1 of 83.6 is `metrics["top1"] == 83.6`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Text
    kind: Literal["transfer", "pretrain"]
    protocol: ProtocolText
    """versioned id, for example imagenet1k/finetune@1"""
    task: Text
    backbone: Text
    init: Text
    """what the weights came from: "scratch", "mae", or any short label"""
    checkpoint: Checkpoint | None
    tokenizer: Checkpoint | None = None
    """whose tokens a pre-training predicts; None: it predicts none"""
    data: Data
    trained_on: Named | None = None
    """what the scored weights were trained on, where that is not `data`: in an evaluation"""
    recipe: Annotated[dict[str, JsonValue], BeforeValidator(_json_safe)]
    recipe_hash: HexDigest
    deviations: list[Text]
    """differences from the protocol, for people: "epochs 100 -> 1", "limited to 64 images" """
    changed: list[Changed] = Field(default_factory=list)
    """what of the recipe is not the protocol's"""
    sweep: Sweep | None = None
    """how some of these were chosen; None: nothing was swept"""
    seed: Count
    metrics: dict[Text, float]
    intervals: dict[Text, tuple[float, float]] = Field(default_factory=dict)
    """metric -> ends of its 95 % confidence interval over images, where there is one"""
    cost: Cost
    environment: Environment
    started: UtcTime
    finished: UtcTime
    complete: bool
    skipped_images: Count
    """files that could not be decoded"""
    unreadable: list[Text] = Field(default_factory=list)
    """the same by reason, for people: "test: 2 images: truncated (a.jpg, b.jpg)" """
    data_notes: list[Text] = Field(default_factory=list)
    """what of the data is odd, was left out or read otherwise than given, for people"""

    @model_validator(mode="after")
    def _times_in_order(self) -> Self:
        if self.finished < self.started:
            raise ValueError("finished lies before started")
        return self

    @model_validator(mode="after")
    def _intervals_of_metrics(self) -> Self:
        for name, (low, high) in self.intervals.items():
            if name not in self.metrics or low > high:
                raise ValueError("expected intervals of metrics, the lower end first")
        return self

    @property
    def comparable(self) -> bool:
        """Whether the scores may be subtracted from published ones of the same protocol."""
        return self.complete and not self.deviations and self.data.standard

    @property
    def other_deviations(self) -> list[str]:
        """Those that are no field of the recipe: "limited to 64 images"."""
        told = set(map(str, self.changed))
        return [text for text in self.deviations if text not in told]

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"


def parse_record(text: str | bytes) -> Record:
    """The record in the text of a `record.json`.

    Raises ResultsError with a one-line reason for anything else.
    """
    try:
        record = Record.model_validate_json(text)
    except ValidationError as error:
        raise ResultsError(_reason(error)) from error
    if "schema_version" not in record.model_fields_set:
        raise ResultsError("schema_version is missing; not a record of mae-bench")
    if "changed" not in record.model_fields_set:
        return record.model_copy(update={"changed": read_changes(record.deviations)})
    return record


def _reason(error: ValidationError) -> str:
    """One line; an unknown version explains all other complaints, so it comes first."""
    details = error.errors(include_url=False)
    detail = next((d for d in details if d["loc"] == ("schema_version",)), details[0])
    if detail["loc"] == ("schema_version",):
        return f"schema_version is {detail['input']!r}; this mae-bench reads {SCHEMA_VERSION}"
    where = ".".join(str(part) for part in detail["loc"])
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    message = " ".join(detail["msg"].split())
    return f"{where}: {message}{more}" if where else f"{message}{more}"
