"""How tables call metrics, data sets and protocols: words that are handed in, see `use`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from results.protocol import ALL, PARTIAL, ProtocolId
from results.record import Record


@dataclass(frozen=True)
class Metric:
    """A score as tables show it."""

    title: str
    unit: str = ""
    better: Literal["higher", "lower"] = "higher"


@dataclass(frozen=True)
class Words:
    """What reports call things, in the order of a report; what has no words goes by its name."""

    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """scores that a table shows; where runs have none of them, it shows all that they have"""
    errors: frozenset[str] = frozenset()
    """metrics that a table does not show by themselves, of which less is better"""
    tasks: Mapping[str, str] = field(default_factory=dict)
    """task -> title; empty: none is needed"""
    protocols: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """task -> protocol without task and version -> title"""
    classes: Mapping[str, int] = field(default_factory=dict)
    """task -> number of classes of its official data"""
    own_data: frozenset[str] = frozenset()
    """tasks on any data of the user's, of which there is no official set"""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """task -> heading of the pictures of its runs"""


_words = [Words()]


def use(words: Words) -> None:
    """Take these words from now on, in all reports of this process."""
    _words[0] = words


def words() -> Words:
    """Those in use."""
    return _words[0]


def task_of(protocol: str) -> str:
    """The task of a protocol id: imagenet1k of imagenet1k/partial-2@1."""
    return ProtocolId.read(protocol).task


def trained_blocks(protocol: str) -> str | None:
    """2 of imagenet1k/partial-2@1; None for a protocol that is no partial fine-tuning."""
    blocks = ProtocolId.read(protocol).blocks
    return None if blocks == ALL else blocks


def family_of(protocol: str) -> str:
    """imagenet1k/partial-K@1 of all partial fine-tuning; every other protocol is its own."""
    return str(ProtocolId.read(protocol).family)


def is_own(record: Record) -> bool:
    """Whether a run is on data of the user's, not on an official set or some of its images."""
    data, official = record.data, words().classes.get(record.task)
    if data.miniature or data.standard:
        return False
    if data.own:
        return True
    return record.task in words().own_data or official not in (None, data.classes)


def task_order(task: str) -> tuple[int, str]:
    """Sorts tasks as a report shows them: unknown ones last, by name."""
    known = list(words().tasks)
    return (known.index(task) if task in known else len(known), task)


def data_title(task: str) -> str:
    return words().tasks.get(task, task)


def shown(metrics: Collection[str]) -> list[str]:
    """Those of some metrics that a table shows by themselves, the headline first."""
    return [name for name in words().metrics if name in metrics]


def metric_title(metric: str) -> tuple[str, str]:
    """Title and unit."""
    known = words().metrics.get(metric)
    return (known.title, known.unit) if known else (metric, "")


def decimals_of(metric: str) -> int:
    return 2 if metric in words().metrics else 4


def better(metric: str) -> Literal["higher", "lower"] | None:
    """Which score is the better one; None for a metric that nobody here knows."""
    if metric in words().errors:
        return "lower"
    known = words().metrics.get(metric)
    return known.better if known else None


def protocol_order(protocol: str) -> tuple[tuple[int, str], int, float, str]:
    """The same for protocol ids, by task first."""
    parts = ProtocolId.read(protocol)
    known = list(words().protocols.get(parts.task, ()))
    place = known.index(parts.full_name) if parts.full_name in known else len(known)
    return task_order(parts.task), place, float(trained_blocks(protocol) or 0), protocol


def protocol_title(protocol: str) -> str:
    """What a protocol does, without its data set."""
    parts, blocks = ProtocolId.read(protocol), trained_blocks(protocol)
    if blocks is not None:
        return f"fine-tuning of the last {blocks} block{'' if blocks in ('0.5', '1') else 's'}"
    if parts.name == PARTIAL:
        return "partial fine-tuning"
    known = words().protocols.get(parts.task, {})
    return known.get(parts.name, str(replace(parts, task="")).removeprefix("/"))


def table_title(protocol: str) -> str:
    """Of the table of a protocol, or of a family of them."""
    doing, data = protocol_title(protocol), data_title(task_of(protocol))
    title = as_title(f"{data}: {doing}" if data else doing)
    return f"{title} (protocol {protocol})"


def as_title(text: str) -> str:
    """With a capital letter first, unless its first word has one elsewhere, as iNaturalist."""
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    return text[:1].upper() + text[1:] if first.islower() else text


def plain(label: str) -> str:
    """So that the label mocov3 of a run meets the method "MoCo v3" of a paper."""
    return "".join(character for character in label.lower() if character.isalnum())
