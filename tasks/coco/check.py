"""Whether a COCO data set on disk is whole: files, counts, annotations, a sample of images."""

from dataclasses import replace
from pathlib import Path

from tasks.check import (
    MAX_BAD_IMAGES,
    SAMPLES,
    Check,
    Finding,
    Progress,
    images,
)
from tasks.coco.data import decode_known
from tasks.coco.datasets import (
    ARCHIVES,
    CATEGORY_IDS,
    NUM_ANNOTATIONS,
    NUM_CLASSES,
    NUM_IMAGES,
    NUM_TRAIN_USED,
    SPLITS,
)
from tasks.coco.files import roboflow
from tasks.coco.layout import NO_ANNOTATION, ONLY_CROWDS, CocoData, read
from tasks.errors import TaskError
from tasks.images.files import entries
from tasks.stores import opened

PASSED_OVER, MISSED = "they are passed over", "their objects count as not found"
"""what becomes of unreadable images: in training, and in COCO's test"""


def check(
    root: str | Path,
    on_progress: Progress | None = None,
    samples: int = SAMPLES,
    max_bad_images: int = MAX_BAD_IMAGES,
) -> Check:
    """Look at a folder in the official layout, or at "TRAIN.json,VAL.json".

    Reads the annotations, about half a minute for the official ones; then decodes `samples`
    images, spread over both splits.
    """
    try:
        findings = [] if is_own(root) else archives(opened(root))
    except TaskError as error:
        return Check((Finding("problem", str(error)),), None)
    if any(each.status == "problem" for each in findings):
        return Check(tuple(findings), None)
    try:
        data = read(root)
    except TaskError as error:
        return Check((*findings, Finding("problem", str(error))), None)
    findings += own_counts(data) if is_own(root) else official_counts(data)
    findings += [Finding("note", line) for line in data.report_lines()]
    splits = {"training": data.train, "test": data.val}
    found = images(splits, decode_known, on_progress, samples, max_bad_images)
    for each in found:
        fix = each.fix.replace(PASSED_OVER, MISSED) if " test images" in each.what else each.fix
        findings.append(replace(each, fix=fix))
    return Check(tuple(findings), data)


def is_own(root: str | Path) -> bool:
    """Whether `root` is the user's own pair of files, or half of it, or a folder of Roboflow's."""
    folder = opened(root)
    return roboflow(folder) is not None or (str(root).endswith(".json") and not folder.is_dir())


def archives(folder: Path) -> list[Finding]:
    """Whether there is something of each official archive, and what to get if not."""
    findings = []
    for name, archive in ARCHIVES.items():
        wanted = {f"instances_{split}2017.json" for split in SPLITS}
        found = entries(folder / name)
        absent = sorted(wanted - found) if name == "annotations" else [] if found else ["*.jpg"]
        if absent:
            what = " and ".join(f"{folder / name}/{file}" for file in absent)
            fix = f"get {archive.name} ({archive.size / 1e9:.1f} GB, md5 {archive.md5}) from "
            fix += f"{archive.url} and unpack it in {folder}"
            findings.append(Finding("problem", f"{what}: missing", fix))
        else:
            findings.append(Finding("ok", f"{folder / name}"))
    return findings


def official_counts(data: CocoData) -> list[Finding]:
    """The counts beside those of COCO 2017; other ones are fine, but make another benchmark."""
    train_images = len(data.train)
    total = train_images + sum(
        data.counts.get(reason, 0) for reason in (NO_ANNOTATION, ONLY_CROWDS)
    )
    rows = [
        ("training images", total, NUM_IMAGES["train"]),
        ("training images with objects", train_images, NUM_TRAIN_USED),
        ("test images", len(data.val), NUM_IMAGES["val"]),
        ("training annotations", data.train.num_annotations, NUM_ANNOTATIONS["train"]),
        ("test annotations", data.val.num_annotations, NUM_ANNOTATIONS["val"]),
        ("classes", len(data.classes), NUM_CLASSES),
    ]
    differing = [
        f"{name} {found:,} (official: {official:,})"
        for name, found, official in rows
        if found != official
    ]
    if not differing and data.category_ids != CATEGORY_IDS:
        differing = ["category ids"]
    if differing:
        what = f"not the official COCO 2017: {', '.join(differing)}"
        return [Finding("note", what, "nothing to do if you mean it; tables will mark the score")]
    return [Finding("ok", f"COCO 2017: {counts(data)}")]


def own_counts(data: CocoData) -> list[Finding]:
    places = f"{data.train.json_file} and {data.val.json_file}"
    return [Finding("ok", f"{places}: {counts(data)}")]


def counts(data: CocoData) -> str:
    return (
        f"{len(data.train):,} training images with objects, {len(data.val):,} test images, "
        f"{len(data.classes)} classes"
    )
