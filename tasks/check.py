"""What a check of this machine, or of a data set, has to say."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and, unless all is well, what to do."""

    status: Status
    what: str
    fix: str = ""
