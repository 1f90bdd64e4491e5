"""What a check of this machine, or of a data set, has to say; what checks of data sets share.

Imports no torch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.errors import TaskError

if TYPE_CHECKING:
    from tasks.images.unreadable import Unreadable

Status = Literal["ok", "note", "problem"]

Progress = Callable[[int, int], None]
"""called as (images done, images in total)"""

NAMED = 5
"""reasons that are named"""
MAX_BAD_IMAGES = 50
"""images that may be unreadable, unless the user says otherwise"""
SAMPLES = 200
"""images that are decoded"""


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and, unless all is well, what to do."""

    status: Status
    what: str
    fix: str = ""
    unlabelled: bool = False
    """a problem, since no test image has a label"""
    unreadable: bool = False
    """of images that a run will meet, count and name itself"""


@dataclass(frozen=True)
class Check:
    """What was found about a data set."""

    findings: tuple[Finding, ...]
    data: Any
    """the data, or None if they cannot be read"""

    def notes(self) -> list[str]:
        """What is odd, but no reason to refuse the data; a line each."""
        return [each.what for each in self.findings if each.status == "note"]

    def unreadable(self) -> list[str]:
        """Those of the notes that are of images of a sample, and not for ever."""
        return [each.what for each in self.findings if each.status == "note" and each.unreadable]

    @property
    def unlabelled(self) -> bool:
        """Whether nothing is wrong but that no test image has a label: there can be no score."""
        wrong = [each for each in self.findings if each.status == "problem"]
        return self.data is not None and bool(wrong) and all(each.unlabelled for each in wrong)

    @property
    def ok(self) -> bool:
        return all(each.status != "problem" for each in self.findings)


def sample(splits: Sequence[Any], most: int) -> Iterator[tuple[Any, int]]:
    """(split, row) of up to `most` images at even distances, as many from each split."""
    for split in splits:
        count = min(most // len(splits), len(split))
        for index in range(count):
            yield split, index * len(split) // count


def images(
    splits: Mapping[str, Any],
    decode: Callable[[Any, int], Any],
    on_progress: Progress | None,
    samples: int = SAMPLES,
    max_bad_images: int = MAX_BAD_IMAGES,
) -> list[Finding]:
    """Decode up to `samples` images at even distances, as many from each split.

    `decode(split, row)` raises `UnreadableImage`; it sees to it that an image is as its use wants
    it. `splits`: "training" or "test" -> images, with their `names`. Single unreadable ones are
    noted, with their reasons, as they will be when the data are used. It is a problem if none of a
    split can be read, or if more cannot than may be left out.
    """
    from tasks.images import Unreadable, UnreadableImage

    picked = list(sample(list(splits.values()), max(samples, len(splits))))
    bad: dict[int, list[Unreadable]] = {}
    for done, (split, row) in enumerate(picked, start=1):
        try:
            decode(split, row)
        except UnreadableImage as error:
            bad.setdefault(id(split), []).append(Unreadable(split.names[row], error.reason))
        if on_progress is not None:
            on_progress(done, len(picked))
    findings = []
    for kind, split in splits.items():
        taken = sum(each is split for each, _ in picked)
        findings += unreadable(bad.get(id(split), []), taken, len(split), kind, max_bad_images)
    if not findings:
        spread = {1: "", 2: ", spread over both splits,"}.get(len(splits), ", spread over all,")
        findings.append(Finding("ok", f"{len(picked)} images{spread} decode"))
    return findings


def unreadable(
    bad: "Sequence[Unreadable]", taken: int, total: int, kind: str, limit: int
) -> list[Finding]:
    """What `bad` of `taken` images of a split of `total` mean; nothing if there are none."""
    from tasks.images import by_reason

    if not bad:
        return []
    sampled = f"{len(bad)} of {taken} {kind} images" + " looked at" * (taken < total)
    what = f"{sampled} cannot be read: {'; '.join(by_reason(bad)[:NAMED])}"
    repair = "get or write these files again, and check the rest of their folder"
    if len(bad) == taken:
        return [Finding("problem", what, f"none can: {repair}")]
    if len(bad) > limit:
        return [Finding("problem", what, f"{repair}; --max-bad-images is {limit}")]
    expected = len(bad) * total // taken
    more = f"; about {expected:,} in all, if the rest is alike, which would end a run"
    more = more if expected > limit else ""
    fix = f"they are passed over when the data are used{more}: {repair}"
    return [Finding("note", what, fix, unreadable=True)]


def refuse(check: Check, name: str, source: str | Path) -> None:
    """Raise `TaskError` with the first problem that was found, if there is any."""
    problems = [each for each in check.findings if each.status == "problem"]
    if problems:
        line = problems[0].what + (f"; {problems[0].fix}" if problems[0].fix else "")
        if problems[1:]:
            line += f" ({len(problems) - 1} more: mae-bench data check {name} --root {source})"
        raise TaskError(line)


def is_turned(path: Path) -> bool:
    """Whether an image's EXIF tags ask for a rotation, which nothing here applies."""
    from PIL import ExifTags, Image

    from tasks.images.header import FORMATS

    with Image.open(path, formats=FORMATS) as image:
        return image.getexif().get(ExifTags.Base.Orientation, 1) != 1


def rotations(turned: Sequence[str], count: int, what: str) -> list[Finding]:
    """A note about the images of a sample of `count` that ask for one; `what` must fit them."""
    if not turned:
        return []
    many = f"{len(turned)} of {count} images have an EXIF rotation, as {turned[0]} has"
    return [Finding("note", many, f"it is not applied: {what} must fit the pixels as stored")]
