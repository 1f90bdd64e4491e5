"""Image files that could not be read, each with its reason."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

EXAMPLES = 3
"""names that a line gives of each reason"""


class Unreadable(NamedTuple):
    """A file that was left out."""

    name: str
    """of the file, as the data set calls it"""
    reason: str
    """why, without the name: "16 bits a channel; expected 8" """


NOT_KEPT = "reason not kept by an older version"


def restored(items: Iterable[Any]) -> list[Unreadable]:
    """What was saved as (name, reason), or by older versions as names alone."""
    return [Unreadable(e, NOT_KEPT) if isinstance(e, str) else Unreadable(*e) for e in items]


def by_reason(items: Iterable[Unreadable], examples: int = EXAMPLES) -> list[str]:
    """A line for each reason, the commonest first: "12 images: truncated (a.jpg, b.jpg, ...)"."""
    return [
        f"{count(names)}: {reason} ({some(names, examples)})"
        for reason, names in grouped(items).items()
    ]


def grouped(items: Iterable[Unreadable]) -> dict[str, list[str]]:
    """Reason -> names, the commonest first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, reason in items:
        groups[reason].append(name)
    return dict(sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])))


def count(names: Sequence[str]) -> str:
    return f"{len(names):,} image{'s' * (len(names) != 1)}"


def some(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + ", ..." * (len(names) > most)
