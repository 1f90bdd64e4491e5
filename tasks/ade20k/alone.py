"""Test images without label images, for a network that is trained already."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tasks.ade20k.classes import ClassRule, has_own_classes, read_rule
from tasks.ade20k.datasets import FOLDER, NUM_CLASSES, SPLIT_FOLDERS
from tasks.ade20k.layout import IMAGES, LABELS, SegmentationData, SegmentationSplit, listed
from tasks.check import Check, Finding, Progress, images
from tasks.errors import TaskError
from tasks.images import FileNames, decode
from tasks.images.fingerprint import Fingerprint
from tasks.stores import opened


def locate(source: str | Path) -> Path | None:
    """The data folder that has test images, but no folder of label images for them."""
    root = opened(source)
    root = root / FOLDER if (root / FOLDER).is_dir() else root

    def has(kind: str) -> bool:
        return any((root / kind / name).is_dir() for name in SPLIT_FOLDERS["val"])

    return root if has(IMAGES) and not has(LABELS) else None


def images_alone(root: Path, names: Sequence[str], classes: Sequence[str]) -> SegmentationData:
    """Images without label images."""
    val = SegmentationSplit(root, FileNames(list(names)), FileNames([]))
    none = replace(val, names=FileNames([]))
    official = len(classes) == NUM_CLASSES
    return SegmentationData(root.name, none, val, ClassRule(tuple(classes)), "", official)


def check(
    root: Path, learnt: Sequence[str], on_progress: Progress | None, max_bad_images: int
) -> Check:
    """What there is to say of the images, which a network of the classes `learnt` is to label."""
    try:
        rule = read_rule(root)
        names = FileNames(sorted(listed(root, IMAGES, "val").values()))
    except TaskError as error:
        return Check((Finding("problem", str(error)),), None)
    own = has_own_classes(root)
    if not own and len(rule.classes) == len(learnt):
        rule = replace(rule, classes=tuple(learnt))
    digest = Fingerprint()
    digest.add(repr(rule))
    digest.add_files(root, names)
    val = SegmentationSplit(root, names, FileNames([]))
    none = replace(val, names=names.take(np.arange(0)))
    name = root.resolve().name if own else "ade20k"
    data = SegmentationData(name, none, val, rule, digest.hexdigest(), official=not own)
    what = f"{len(names):,} test images of {root} have no label images"
    findings = [Finding("problem", what, "there can be no score", unlabelled=True)]
    findings += images(
        {"test": val},
        lambda split, row: decode(split.path(row), upright=split.upright),
        on_progress,
        max_bad_images=max_bad_images,
    )
    return Check(tuple(findings), data)
