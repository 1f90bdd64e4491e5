"""Whether a segmentation data set can be trained and scored, as `data check` and a run see it.

A score is worth nothing where a class is missing for the way that its values were written, so all
label images are judged before the first step.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tasks.ade20k.census import VALUES, Census, census
from tasks.ade20k.classes import ClassRule
from tasks.ade20k.datasets import CLASS_LIST, IGNORED, OWN_CLASSES, SPLITS
from tasks.ade20k.layout import SegmentationData, limited_rows
from tasks.ade20k.likely import likely_cause
from tasks.check import Check, Finding, Progress, refuse
from tasks.images.files import shorten
from tasks.images.unreadable import Unreadable, grouped

NAMED = 5
"""classes and values that are named; the others are counted"""
MANY_UNLABELLED = 0.5
"""share of the pixels from which on it is a note"""
REPAIR = "get or write these files again, or remove each together with its image"


@dataclass(frozen=True)
class Judgement:
    """What all label images say."""

    findings: tuple[Finding, ...]
    data: SegmentationData
    """the data, told whether images are turned where sizes leave it open"""

    found: dict[str, Census]
    """what was counted, by split"""

    def refuse(self) -> None:
        """Raise TaskError for what is a problem, in one line."""
        refuse(Check(self.findings, self.data), "ade20k", self.data.train.root)


def judge(
    data: SegmentationData, limit: int | None = None, on_progress: Progress | None = None
) -> Judgement:
    """Look at all label images of `data`, of which `limit` of each split will be used."""
    done, total = 0, len(data.train) + len(data.val)

    def step() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    found = {split: census(getattr(data, split), step) for split in SPLITS}
    turned, upright = rotations(found)
    findings = [
        *unusable(data, found),
        *strangers(data, found),
        *contradictions(data, found),
        *misfits(data, found),
        *nameless(data, found),
        *too_few(data.rule, found),
        *misplaced(data, found),
    ]
    if limit is not None and not findings:
        few = {
            split: each.take(limited_rows(len(each.counts), limit)) for split, each in found.items()
        }
        findings = too_few(data.rule, few, f" that the limit of {limit} takes")
    if not any(each.status == "problem" for each in findings):
        findings += [summary(data.rule, found), *absences(data.rule, found)]
    findings += [*blank(data, found), *turned]
    splits = {split: replace(getattr(data, split), upright=upright) for split in SPLITS}
    return Judgement(tuple(findings), replace(data, **splits), found)


def unusable(data: SegmentationData, found: dict[str, Census]) -> Iterator[Finding]:
    """Label images that cannot be read, by reason."""
    for split, each in found.items():
        names = getattr(data, split).label_names
        faults = (Unreadable(names[row], why) for row, why in each.label_faults.items())
        for reason, those in grouped(faults).items():
            fix = REPAIR
            if "of colours" in reason:
                fix = (
                    "export masks of class indices instead of colours (or exchange the folders, if "
                    "these are the photographs)"
                )
            what = f"{len(those):,} of {len(names):,} {split} label images cannot be used, as "
            yield Finding("problem", f"{what}{those[0]}, which {reason}", fix)


def strangers(data: SegmentationData, found: dict[str, Census]) -> Iterator[Finding]:
    """Values that no class has."""
    rule, pixels = data.rule, sum_of(found)
    unknown = np.flatnonzero(pixels * ~expected(rule))
    if not len(unknown):
        return
    files = np.sum([each.files for each in found.values()], axis=0)
    told = [
        f"{value} ({files[value]:,} label images, {share(pixels[value], pixels.sum())}, as "
        f"{example(data, found, value)})"
        for value in unknown[:NAMED]
    ]
    more = f" and {len(unknown) - NAMED} more such values" if len(unknown) > NAMED else ""
    what = f"label images have values that no class has: {', '.join(told)}{more}; expected "
    fix = f"get these files again; for data of your own write {OWN_CLASSES}{proposal(pixels)}"
    fix = fix if data.official else likely_cause(rule, pixels)
    yield Finding("problem", what + rule.describe(), fix)


def contradictions(data: SegmentationData, found: dict[str, Census]) -> Iterator[Finding]:
    """Palettes by which one colour is several values: each file numbers its colours anew."""
    names = [name for split in found for name in getattr(data, split).label_names]
    colours = np.concatenate([each.colours for each in found.values()])
    rows, values = np.nonzero(colours >= 0)
    pairs, first = np.unique(
        np.stack([colours[rows, values], values], axis=1), axis=0, return_index=True
    )
    several = np.flatnonzero(np.diff(pairs[:, 0]) == 0)
    if not len(several):
        return
    (colour, one), (_, other) = pairs[several[0]], pairs[several[0] + 1]
    places = [names[rows[first[at]]] for at in (several[0], several[0] + 1)]
    yield Finding(
        "problem",
        f"the palettes of label images contradict each other: the colour {colour >> 16}, "
        f"{colour >> 8 & 255}, {colour & 255} is the value {one} in {places[0]} and {other} in "
        f"{places[1]}, and values are what counts",
        "write label images again with one palette for all, or in grey of the classes' values",
    )


def misfits(data: SegmentationData, found: dict[str, Census]) -> Iterator[Finding]:
    """Label images of another size than their image, turned or not."""
    for split, each in found.items():
        pairs = getattr(data, split)
        rows = np.flatnonzero(known_sizes(each) & ~(fits(each, False) | fits(each, True)))
        if len(rows):
            (height, width), image = each.label_sizes[rows[0]], each.images[rows[0]]
            yield Finding(
                "problem",
                f"{len(rows):,} of {len(pairs):,} {split} label images are not as large as their "
                f"image, as {pairs.label_names[rows[0]]}, {width} wide and {height} high, whose "
                f"image is {image[1]} wide and {image[0]} high",
                "write label images in the size of the images, without smoothing",
            )


def nameless(data: SegmentationData, found: dict[str, Census]) -> Iterator[Finding]:
    """One's own data that go as ADE20K for want of a classes.json."""
    root = data.train.root
    if not data.official or data.standard or (root / CLASS_LIST).exists():
        return
    pixels, seen = sum_of(found), len(classes_in(data.rule, sum_of(found)))
    what = f"no {OWN_CLASSES} and no {CLASS_LIST}, so the folder is read as ADE20K, "
    what += f"whose 150 classes begin at 1: {seen} of them occur, {unlabelled(data.rule, pixels)}"
    fix = f"for your own data write {OWN_CLASSES}{proposal(pixels)}; for ADE20K get {CLASS_LIST}"
    few = seen < len(data.classes) / 2
    yield Finding("problem" if few else "note", what, fix)


def too_few(rule: ClassRule, found: dict[str, Census], which: str = "") -> list[Finding]:
    """Splits with no class, or with one, whose IoU of 100 would say nothing."""
    findings = []
    for split, each in found.items():
        seen = classes_in(rule, each.pixels)
        if len(seen) < 2 and each.label_sizes.any():
            what = f"no class occurs in the {split} label images{which}"
            if seen:
                what = f"one class alone occurs in the {split} label images{which}, "
                what += repr(rule.classes[seen[0]])
            there = np.flatnonzero(each.pixels).tolist()
            missing = [name for at, name in enumerate(rule.classes) if at not in seen]
            values = ", ".join(told(rule, value) for value in there[: NAMED + 1])
            many = f" and {len(there) - NAMED - 1} more" if len(there) > NAMED + 1 else ""
            what += f"; the values are {values or 'none'}{many}"
            what += f"; missing: {shorten(missing, NAMED)}"
            blank = split == "val" and not len(seen)
            findings.append(Finding("problem", what, likely_cause(rule, each.pixels), blank))
    return findings


def misplaced(data: SegmentationData, found: dict[str, Census]) -> Iterator[Finding]:
    """A class of one's own that occurs nowhere while its pixels may go by another value."""
    rule, pixels = data.rule, sum_of(found)
    seen = classes_in(rule, pixels)
    absent = [index for index in range(len(rule.classes)) if index not in seen]
    if data.official or not absent or len(seen) < 2:
        return
    names = shorten([rule.classes[index] for index in absent], NAMED)
    if pixels[rule.ignore_index] and not rule.ignore_is_given:
        yield Finding(
            "problem",
            f"{names}: in no label image, while {share(pixels[rule.ignore_index], pixels.sum())} "
            f"have the value {rule.ignore_index}, which counts nowhere unless {OWN_CLASSES} says "
            "otherwise",
            f"if {rule.ignore_index} is a class, write it as {value_of(rule, absent[0])}; if it is "
            f'not, say so in {OWN_CLASSES}: "ignore_index": {rule.ignore_index}',
        )
    elif rule.zero_is_unlabelled and pixels[0] and absent == [len(rule.classes) - 1]:
        yield Finding(
            "problem",
            f"{names}: in no label image, while the values 0 to {absent[0]} are as many as the "
            f"classes, and {share(pixels[0], pixels.sum())} are 0, which counts nowhere",
            f'if 0 is the class {rule.classes[0]!r}, set "zero_is_unlabelled": false in '
            f"{OWN_CLASSES}; if it is not, leave {names} out of the list",
        )


def absences(rule: ClassRule, found: dict[str, Census]) -> Iterator[Finding]:
    """Classes that occur nowhere, or in one split alone."""
    train, val = (set(classes_in(rule, found[split].pixels)) for split in SPLITS)
    kinds = (
        (set(range(len(rule.classes))) - train - val, "in no label image", "they count nowhere"),
        (val - train, "in the val split alone", "nothing trains for them; their IoU will be 0"),
        (train - val, "in the train split alone", "no test image has them"),
    )
    for indices, where, effect in kinds:
        if indices:
            names = [f"{rule.classes[at]} ({value_of(rule, at)})" for at in sorted(indices)]
            count = f"{len(names)} of {len(rule.classes)} classes occur"
            what = f"{count} {where}: {shorten(names, NAMED)}; {effect}"
            yield Finding("note", what, "nothing to do if you mean it")


def summary(rule: ClassRule, found: dict[str, Census]) -> Finding:
    """What was counted."""
    pixels, many = sum_of(found), sum(len(each.counts) for each in found.values())
    seen = [f"{len(classes_in(rule, found[split].pixels))} in {split}" for split in SPLITS]
    what = f"all {many:,} label images are counted: of {len(rule.classes)} classes "
    what += f"{' and '.join(seen)}, {unlabelled(rule, pixels)}"
    if unlabelled_share(rule, pixels) < MANY_UNLABELLED:
        return Finding("ok", what)
    what += ", which count neither in training nor in the score"
    return Finding("note", what, "if they are the background, name it as a class with a value")


def blank(data: SegmentationData, found: dict[str, Census]) -> Iterator[Finding]:
    """Label images without a class, some of a split."""
    for split, each in found.items():
        pairs = getattr(data, split)
        labelled = each.counts[:, class_values(data.rule)].any(axis=1)
        rows = np.flatnonzero(~labelled & (each.label_sizes[:, 0] > 0))
        if 0 < len(rows) < len(pairs):
            what = f"{len(rows):,} of {len(pairs):,} {split} label images label nothing, as "
            yield Finding("note", what + pairs.label_names[rows[0]], "nothing to do if you mean it")


def rotations(found: dict[str, Census]) -> tuple[list[Finding], bool]:
    """What is done about images with an EXIF rotation; whether to turn where sizes leave it open.

    mmsegmentation's reader, OpenCV, turns images and never label images. A label image that fits
    the stored pixels alone was drawn on those.
    """
    turned = stored = either = 0
    for each in found.values():
        rotated = known_sizes(each) & (each.images[:, 2] > 1)
        as_shown, as_stored = fits(each, True) & rotated, fits(each, False) & rotated
        turned += int((as_shown & ~as_stored).sum())
        stored += int((as_stored & ~as_shown).sum())
        either += int((as_stored & as_shown).sum())
    upright = not (stored and not turned)
    parts = []
    if turned:
        parts.append(f"{turned:,} are turned, as their label images are")
    if stored:
        parts.append(f"{stored:,} are taken as stored, as their label images are")
    if either:
        how = "to be turned, as mmsegmentation does" if upright else "to be as stored, like those"
        parts.append(f"{either:,}, whose sizes leave it open, are assumed {how}")
    if not parts:
        return [], upright
    count = turned + stored + either
    what = f"{count:,} images have an EXIF rotation: {'; '.join(parts)}"
    fix = "see in predictions.png whether the labels lie on what they label"
    return [Finding("note", what, fix * bool(either))], upright


# What values and sizes are


def class_values(rule: ClassRule) -> slice:
    """The values of the classes."""
    return slice(rule.first, rule.first + len(rule.classes))


def value_of(rule: ClassRule, index: int) -> int:
    return rule.first + index


def expected(rule: ClassRule) -> np.ndarray:
    """Of each value, whether the rule knows it, bool (256,)."""
    known = np.zeros(VALUES, dtype=bool)
    known[class_values(rule)] = True
    known[: rule.first] = True
    known[rule.ignore_index] = True
    return known


def classes_in(rule: ClassRule, pixels: np.ndarray) -> list[int]:
    """Indices of the classes that have pixels."""
    return np.flatnonzero(pixels[class_values(rule)]).tolist()


def sum_of(found: dict[str, Census]) -> np.ndarray:
    """Pixels of each value in all splits."""
    return np.sum([each.pixels for each in found.values()], axis=0)


def told(rule: ClassRule, value: int) -> str:
    """A value, and what it stands for where that is no class."""
    if value == rule.ignore_index:
        return f"{value} (ignored)"
    return f"{value} (unlabelled)" if value < rule.first else str(value)


def unlabelled_share(rule: ClassRule, pixels: np.ndarray) -> float:
    return 1 - pixels[class_values(rule)].sum() / max(pixels.sum(), 1)


def unlabelled(rule: ClassRule, pixels: np.ndarray) -> str:
    return f"{unlabelled_share(rule, pixels):.1%} of the pixels unlabelled"


def share(pixels: int, total: int) -> str:
    found = 100 * pixels / max(total, 1)
    return f"{found:.1f} % of the pixels" if found >= 0.05 else f"{pixels:,} pixels"


def example(data: SegmentationData, found: dict[str, Census], value: int) -> str:
    """A label image with the value."""
    for split, each in found.items():
        rows = np.flatnonzero(each.counts[:, value])
        if len(rows):
            return getattr(data, split).label_names[rows[0]]
    raise AssertionError(value)


def proposal(pixels: np.ndarray) -> str:
    """A classes.json for the values that were found, or what has to change first."""
    values = [value for value in np.flatnonzero(pixels).tolist() if value != IGNORED]
    if values == [0] and pixels[IGNORED]:  # as of masks in black and white
        content: dict[str, Any] = {"classes": ["name of black", "name of white"]}
        return (
            f", such as {json.dumps(content)}, once the label images have the value 1 in place of "
            f"{IGNORED}, which is kept for pixels that count nowhere"
        )
    if len(values) < 2:
        return ""
    first = min(values[0], 1)
    unused = values[-1] + 1 - first - len(values)
    if unused > len(values):
        many = ", ..." if len(values) > NAMED else ""
        return (
            f", once the label images have consecutive values: now they have "
            f"{', '.join(map(str, values[:NAMED]))}{many}, which take 0 to {len(values) - 1}"
        )
    names = {value: f"name of {value}" for value in values}
    classes = [names.get(value, f"unused {value}") for value in range(first, values[-1] + 1)]
    content = {"classes": classes}
    content |= {"zero_is_unlabelled": True} if first == 1 else {}
    content |= {"ignore_index": IGNORED} if pixels[IGNORED] else {}
    return f", such as {json.dumps(content)}"


def known_sizes(each: Census) -> np.ndarray:
    """Of each pair, whether both sizes are known, bool (N,)."""
    return (each.label_sizes[:, 0] > 0) & (each.images[:, 0] > 0)


def fits(each: Census, upright: bool) -> np.ndarray:
    """Of each pair, whether the label image is as large as the image, turned or not, bool (N,)."""
    sizes, across = each.images[:, :2], each.images[:, 2] > 4
    if upright:
        sizes = np.where(across[:, None], sizes[:, ::-1], sizes)
    return (sizes == each.label_sizes).all(axis=1)
