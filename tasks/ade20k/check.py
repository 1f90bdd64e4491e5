"""Whether a segmentation data set on disk is whole: pairs, counts, a sample of both images."""

from pathlib import Path

import numpy as np

from tasks import TaskError
from tasks.ade20k.data import decode_pair
from tasks.ade20k.datasets import CLASS_LIST, IGNORED, NUM_CLASSES, NUM_IMAGES
from tasks.ade20k.layout import SegmentationData, SegmentationSplit, read
from tasks.check import (
    MAX_BAD_IMAGES,
    SAMPLES,
    Check,
    Finding,
    Progress,
    images,
    is_turned,
    rotations,
)


def check(
    root: str | Path,
    on_progress: Progress | None = None,
    samples: int = SAMPLES,
    max_bad_images: int = MAX_BAD_IMAGES,
) -> Check:
    """Look at a folder in the official layout, or in one's own with a classes.json.

    Pairs all images with their label images; then decodes `samples` pairs, spread over both
    splits.
    """
    try:
        data = read(root)
    except TaskError as error:
        return Check((Finding("problem", str(error)),), None)
    findings = [
        counts(data),
        *class_names(data),
        *pairs(data, on_progress, samples, max_bad_images),
    ]
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


def pairs(
    data: SegmentationData, on_progress: Progress | None, samples: int, max_bad_images: int
) -> list[Finding]:
    """Decode images at even distances with their label images, half of them from each split."""
    turned, blank = [], []
    pixels = np.zeros(IGNORED + 1, dtype=np.int64)
    seen = 0

    def look(split: SegmentationSplit, row: int) -> None:
        nonlocal pixels, seen
        _, labels = decode_pair(split, row, data.rule)
        found = np.bincount(labels.ravel(), minlength=IGNORED + 1)
        pixels += found
        seen += 1
        if not found[:IGNORED].any():
            blank.append(split.label_names[row])
        if is_turned(split.path(row)):
            turned.append(split.names[row])

    splits = {"training": data.train, "test": data.val}
    findings = images(splits, look, on_progress, samples, max_bad_images)
    findings += rotations(turned, seen, "labels")
    if blank:
        what = f"{len(blank)} of {seen} label images label nothing, as {blank[0]}"
        findings.append(Finding("note", what, "nothing to do if you mean it"))
    if findings[0].status == "ok":
        what = f"{seen} images with labels, spread over both splits, decode: "
        findings[0] = Finding("ok", what + describe(pixels, len(data.classes)))
    return findings


def describe(pixels: np.ndarray, num_classes: int) -> str:
    """`pixels` by class index, in words."""
    seen = np.count_nonzero(pixels[:IGNORED])
    unlabelled = pixels[IGNORED] / max(pixels.sum(), 1)
    return f"{seen} of {num_classes} classes seen, {unlabelled:.1%} of the pixels unlabelled"
