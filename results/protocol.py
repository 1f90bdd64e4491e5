"""The parts of a protocol's id."""

import functools
import re
from dataclasses import dataclass, replace

PARTIAL = "partial"
ALL = "K"
"""in place of a number of blocks, for all of them"""
_PARTIAL_NAME = re.compile(rf"{PARTIAL}-([0-9]+(?:\.[0-9]+)?|{ALL})")


@dataclass(frozen=True)
class ProtocolId:
    """What is done on which task, and the version of its numbers: imagenet1k/partial-2@1."""

    task: str
    """imagenet1k"""
    name: str
    """what is done: finetune, partial"""
    version: str
    """1; rises whenever a number of the recipe changes"""
    blocks: str | None = None
    """of partial fine-tuning alone: 2, the number of blocks that train, or `ALL`"""

    @classmethod
    @functools.cache
    def read(cls, text: str) -> "ProtocolId":
        """The parts of an id as records, run.json and lists of published numbers hold it.

        The one reader of such text: whatever knows the parts makes a `ProtocolId` of them. Of text
        that is no id, the parts that are missing are empty.
        """
        task, _, rest = text.partition("/")
        name, _, version = rest.partition("@")
        partial = _PARTIAL_NAME.fullmatch(name)
        return cls(task, PARTIAL, version, partial[1]) if partial else cls(task, name, version)

    def __str__(self) -> str:
        return f"{self.task}/{self.full_name}" + f"@{self.version}" * bool(self.version)

    @property
    def full_name(self) -> str:
        """The id without task and version: partial-2."""
        return self.name if self.blocks is None else f"{self.name}-{self.blocks}"

    @property
    def asked(self) -> str:
        """As `mae-bench transfer --protocol` takes it: partial:2."""
        return self.name if self.blocks is None else f"{self.name}:{self.blocks}"

    @property
    def family(self) -> "ProtocolId":
        """Of all numbers of blocks, imagenet1k/partial-K@1; every other protocol is its own."""
        return self if self.blocks is None else replace(self, blocks=ALL)
