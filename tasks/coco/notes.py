"""What reading an annotation file has to say: how often, with a few ids or names."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

EXAMPLES = 5
"""ids or names that are kept of everything noted"""

Example = int | str


@dataclass
class Notes:
    """What was left out, read in an odd spelling, or merely looks odd."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, tuple[Example, ...]] = field(default_factory=dict)

    def add(
        self, reason: str, found: np.ndarray | Sequence[Example], count: int | None = None
    ) -> None:
        """Note what was `found`; `count` of it if that is not one for each."""
        if len(found):
            some = found[:EXAMPLES]
            self.counts[reason] = len(found) if count is None else count
            self.examples[reason] = tuple(some.tolist() if isinstance(some, np.ndarray) else some)

    def update(self, *others: "Notes") -> None:
        """Add those of `others`."""
        for other in others:
            self.counts |= other.counts
            self.examples |= other.examples
