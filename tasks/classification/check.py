"""Whether a classification data set on disk is whole: archives, counts, a sample of images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tasks.check import MAX_BAD_IMAGES, SAMPLES, Check, Finding, Progress, Status, images, sample
from tasks.classification.datasets import (
    DATASETS,
    ROBUSTNESS,
    WNID,
    DatasetFacts,
    RobustnessFacts,
)
from tasks.classification.labelled import LabelledImages, Split
from tasks.classification.layout import read
from tasks.classification.robustness_sets import (
    RobustnessImages,
    locate,
    read_robustness,
    wnid_folders,
)
from tasks.errors import TaskError
from tasks.images import UnreadableImage, decode
from tasks.images.files import entries, shorten
from tasks.images.turned import turned_note
from tasks.stores import opened


def check(
    name: str,
    root: str | Path,
    on_progress: Progress | None = None,
    samples: int = SAMPLES,
    max_bad_images: int = MAX_BAD_IMAGES,
) -> Check:
    """Look at the folder of one of `DATASETS` or `ROBUSTNESS`.

    Reads the lists, or lists the folders; then decodes `samples` images, spread over the splits.
    Of a robustness set any wnids will do as classes: which of them a model has is not known here.
    """
    try:
        folder = opened(root)
    except TaskError as error:
        return Check((Finding("problem", str(error)),), None)
    facts = ROBUSTNESS[name] if name in ROBUSTNESS else DATASETS[name]
    findings = archives(facts, folder)
    if any(each.status == "problem" for each in findings):
        return Check(tuple(findings), None)
    data: LabelledImages | RobustnessImages
    try:
        if isinstance(facts, RobustnessFacts):
            data = read_robustness(name, folder, wnids(facts, folder))
        else:
            data = read(name, folder)
    except TaskError as error:
        return Check((*findings, Finding("problem", str(error))), None)
    findings.append(counts(data))
    findings += [Finding("note", line) for line in data.notes]
    if isinstance(data, LabelledImages):
        findings.append(balance(data))
        splits: dict[str, Split] = {"training": data.train, "test": data.val}
    else:
        splits = data.splits if len(data.splits) > 1 else {"test": only(data.splits)}
    broken: dict[int, list[int]] = {id(split): [] for split in splits.values()}

    def decode_row(split: Split, row: int) -> None:
        try:
            decode(split.path(row))
        except UnreadableImage:
            broken[id(split)].append(row)
            raise

    findings += images(splits, decode_row, on_progress, samples, max_bad_images)
    if isinstance(data, LabelledImages):
        findings += broken_classes(data, broken[id(data.train)], broken[id(data.val)])
    stored = [split for split in splits.values() if not split.upright]
    paths = [split.path(row) for split, row in sample(stored, max(samples, len(stored)))]
    findings += [Finding("note", line) for line in turned_note(paths, upright=False)]
    return Check(tuple(findings), data)


def archives(facts: DatasetFacts | RobustnessFacts, folder: Path) -> list[Finding]:
    """Whether there is something of each official archive, and what to get if not."""
    findings = []
    for archive in facts.archives:
        absent = [
            options[0]
            for options in archive.holds
            if not any((folder / option).exists() for option in options)
        ]
        if (
            isinstance(facts, RobustnessFacts)
            and not archive.holds
            and not has_wnids(facts, folder)
        ):
            absent = [facts.layout]
        if absent:
            what = ", ".join(f"{folder}/{name}" for name in absent)
            then = facts.unpack.format(folder=folder, name=absent[0])
            fix = f"get {archive.described} from {facts.origin} and {then}"
            status: Status = "problem" if archive.needed else "note"
            findings.append(Finding(status, f"{what}: missing", fix))
    return findings


def has_wnids(facts: RobustnessFacts, folder: Path) -> bool:
    """Whether some class folder lies in a folder, or in the archive's one inside it."""
    names = entries(folder) | entries(folder / facts.folder)
    return any(WNID.fullmatch(name) for name in names)


def wnids(facts: RobustnessFacts, folder: Path) -> list[str]:
    """All class folders of a robustness set, sorted. `TaskError` for one that is no wnid."""
    names = {name for each in locate(facts, folder).values() for name in wnid_folders(facts, each)}
    other = sorted(name for name in names if not WNID.fullmatch(name))
    if other:
        raise TaskError(
            f"{folder} has {len(other)} folders that are no wnid: {shorten(other)}; expected n and "
            "eight digits, as ImageNet names its classes"
        )
    return sorted(names)


def counts(data: LabelledImages | RobustnessImages) -> Finding:
    """The counts beside the official ones; other ones are fine, but make another benchmark."""
    facts = data.facts
    if isinstance(data, LabelledImages):
        rows = [
            ("classes", len(data.classes), data.facts.num_classes),
            ("training images", len(data.train), data.facts.num_train),
            ("test images", len(data.val), data.facts.num_val),
        ]
    else:
        total = data.facts.num_sets * data.facts.num_images
        rows = [
            ("classes", len(data.class_indices), data.facts.num_classes),
            ("test images", len(data), total),
        ]
    found = ", ".join(f"{count:,} {name}" for name, count, _ in rows)
    if not facts.num_classes:
        return Finding("ok", f"{facts.name}: {found}")
    if data.standard:
        return Finding("ok", f"{facts.title}: {found}")
    differing = [f"{name} {n:,} (official: {wanted:,})" for name, n, wanted in rows if n != wanted]
    what = f"not the official {facts.title}: {', '.join(differing) or 'images of each set'}"
    return Finding("note", what, "nothing to do if you mean it; tables will mark the score")


def balance(data: LabelledImages) -> Finding:
    """How many images the classes have."""
    parts = []
    for name, split in (("training", data.train), ("test", data.val)):
        per_class = np.bincount(split.targets, minlength=len(data.classes))
        fewest, most = f"{per_class.min():,}", f"{per_class.max():,}"
        parts.append(f"{fewest if fewest == most else f'{fewest} to {most}'} {name} images")
    return Finding("ok", f"a class has {' and '.join(parts)}")


def broken_classes(data: LabelledImages, train: Sequence[int], val: Sequence[int]) -> list[Finding]:
    """The classes of whose images none can be read, by rows of those that cannot."""
    number, findings = len(data.classes), list[Finding]()
    for kind, split, rows in (("training", data.train, train), ("test", data.val, val)):
        there = np.bincount(split.targets, minlength=number)
        bad = np.bincount(split.targets[list(rows)], minlength=number)
        names = [data.classes[label] for label in np.flatnonzero((bad > 0) & (bad == there))]
        if not names or len(rows) == len(split):  # the latter has been said
            continue
        what = f"{len(names)} of {number} classes have no {kind} image that can be read: "
        if kind == "test":
            findings.append(
                Finding("note", what + shorten(names), "they have no part in the score")
            )
        else:
            fix = "nothing would train for them: get these files again, or remove the folders"
            findings.append(Finding("problem", what + shorten(names), fix))
    return findings


def only(splits: dict[str, Split]) -> Split:
    (split,) = splits.values()
    return split
