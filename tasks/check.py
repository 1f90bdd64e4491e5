"""What a check of this machine, or of a data set, has to say; what checks of data sets share.

Imports no torch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import ExifTags, Image

Status = Literal["ok", "note", "problem"]

Progress = Callable[[int, int], None]
"""called as (images done, images in total)"""

NAMED = 5
"""faulty files that are named; the others are counted"""
SAMPLES = 200
"""images that are decoded"""


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and, unless all is well, what to do."""

    status: Status
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Check:
    """What was found about a data set."""

    findings: tuple[Finding, ...]
    data: Any
    """the data, or None if they cannot be read"""

    @property
    def ok(self) -> bool:
        return all(each.status != "problem" for each in self.findings)


def sample(splits: Sequence[Any], most: int) -> Iterator[tuple[Any, int]]:
    """(split, row) of up to `most` images at even distances, as many from each split."""
    for split in splits:
        count = min(most // len(splits), len(split))
        for index in range(count):
            yield split, index * len(split) // count


def problems(faults: Sequence[Exception]) -> list[Finding]:
    """The first few files that cannot be used, and how many more."""
    fix = "get or write these files again, and check the rest of their folder"
    findings = [Finding("problem", str(error), fix) for error in faults[:NAMED]]
    if faults[NAMED:]:
        findings.append(Finding("problem", f"{len(faults) - NAMED} more such images", fix))
    return findings


def is_turned(path: Path) -> bool:
    """Whether an image's EXIF tags ask for a rotation, which nothing here applies."""
    with Image.open(path) as image:
        return image.getexif().get(ExifTags.Base.Orientation, 1) != 1


def rotations(turned: Sequence[str], count: int, what: str) -> list[Finding]:
    """A note about the images of a sample of `count` that ask for one; `what` must fit them."""
    if not turned:
        return []
    many = f"{len(turned)} of {count} images have an EXIF rotation, as {turned[0]} has"
    return [Finding("note", many, f"it is not applied: {what} must fit the pixels as stored")]
