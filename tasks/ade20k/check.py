"""Whether a segmentation data set on disk is whole: pairs, counts, a sample of both images."""

from pathlib import Path

import numpy as np

from tasks import TaskError
from tasks.ade20k.data import decode_pair
from tasks.ade20k.datasets import CLASS_LIST, IGNORED, NUM_CLASSES, NUM_IMAGES
from tasks.ade20k.layout import SegmentationData, read
from tasks.check import SAMPLES, Check, Finding, Progress, is_turned, problems, rotations, sample


def check(
    root: str | Path,
    on_progress: Progress | None = None,
    samples: int = SAMPLES,
) -> Check:
    """Look at a folder in the official layout, or in one's own with a classes.json.

    Pairs all images with their label images; then decodes `samples` pairs, spread over both
    splits.
    """
    try:
        data = read(root)
    except TaskError as error:
        return Check((Finding("problem", str(error)),), None)
    findings = [counts(data), *class_names(data), *pairs(data, on_progress, samples)]
    return Check(tuple(findings), data)


def counts(data: SegmentationData) -> Finding:
    """The counts beside those of ADE20K; other ones are fine, but make another benchmark."""
    found = f"{len(data.train):,} training images, {len(data.val):,} test images, "
    found += f"{len(data.classes)} classes"
    if not data.official:
        return Finding("ok", f"{data.train.root}: {found}; values: {data.rule.describe()}")
    rows = [
        ("training images", len(data.train), NUM_IMAGES["train"]),
        ("test images", len(data.val), NUM_IMAGES["val"]),
        ("classes", len(data.classes), NUM_CLASSES),
    ]
    differing = [f"{name} {n:,} (official: {wanted:,})" for name, n, wanted in rows if n != wanted]
    if not differing:
        return Finding("ok", f"ADE20K: {found}")
    what = f"not the official ADE20K: {', '.join(differing)}"
    return Finding("note", what, "nothing to do if you mean it; tables will mark the score")


def class_names(data: SegmentationData) -> list[Finding]:
    """Whether classes go by number for want of the official list."""
    file = data.train.root / CLASS_LIST
    if not data.official or file.exists():
        return []
    what = f"{file}: missing; classes are called by number"
    return [Finding("note", what, "take it from the archive if you want their names")]


def pairs(data: SegmentationData, on_progress: Progress | None, samples: int) -> list[Finding]:
    """Decode images at even distances with their label images, half of them from each split."""
    picked = list(sample((data.train, data.val), samples))
    faults, turned, blank = [], [], []
    pixels = np.zeros(IGNORED + 1, dtype=np.int64)
    for done, (split, row) in enumerate(picked, start=1):
        try:
            _, labels = decode_pair(split, row, data.rule)
            found = np.bincount(labels.ravel(), minlength=IGNORED + 1)
            pixels += found
            if not found[:IGNORED].any():
                blank.append(split.label_names[row])
            if is_turned(split.path(row)):
                turned.append(split.names[row])
        except TaskError as error:
            faults.append(error)
        if on_progress is not None:
            on_progress(done, len(picked))
    findings = [*problems(faults), *rotations(turned, len(picked), "labels")]
    if blank:
        what = f"{len(blank)} of {len(picked)} label images label nothing, as {blank[0]}"
        findings.append(Finding("note", what, "nothing to do if you mean it"))
    if not faults:
        what = f"{len(picked)} images with labels, spread over both splits, decode: "
        findings.append(Finding("ok", what + describe(pixels, len(data.classes))))
    return findings


def describe(pixels: np.ndarray, num_classes: int) -> str:
    """`pixels` by class index, in words."""
    seen = np.count_nonzero(pixels[:IGNORED])
    unlabelled = pixels[IGNORED] / max(pixels.sum(), 1)
    return f"{seen} of {num_classes} classes seen, {unlabelled:.1%} of the pixels unlabelled"
