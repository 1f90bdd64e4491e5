"""Whether a segmentation data set on disk is whole: counts, all labels, a sample of images."""

from pathlib import Path

from tasks.ade20k.datasets import CLASS_LIST, NUM_CLASSES, NUM_IMAGES
from tasks.ade20k.judgement import Judgement, judge
from tasks.ade20k.layout import SegmentationData, SegmentationSplit, passed_over, read
from tasks.check import (
    MAX_BAD_IMAGES,
    SAMPLES,
    Check,
    Finding,
    Progress,
    images,
    unreadable,
)
from tasks.errors import TaskError
from tasks.images import Unreadable, decode
from tasks.images.files import shorten
from tasks.images.fingerprint import file_sizes
from tasks.images.twins import find_twins
from tasks.stores import unread_members


def check(
    root: str | Path,
    on_progress: Progress | None = None,
    samples: int = SAMPLES,
    max_bad_images: int = MAX_BAD_IMAGES,
) -> Check:
    """Look at a folder in the official layout, or in one's own with a classes.json.

    Pairs all images with their label images, judges all of these and the images' headers; then
    decodes `samples` images, spread over both splits.
    """
    try:
        data = read(root)
    except TaskError as error:
        return Check((Finding("problem", str(error)),), None)
    pairs = len(data.train) + len(data.val)
    judged = judge(data, on_progress=shifted(on_progress, 0, min(samples, pairs)))
    findings = [counts(data), *class_names(data), *left_out(data), *in_both(data)]
    findings += judged.findings
    findings += decoded(judged, shifted(on_progress, pairs, pairs), samples, max_bad_images)
    return Check(tuple(findings), judged.data)


def left_out(data: SegmentationData) -> list[Finding]:
    """Files and folders that are no image or label image by their names."""
    names, members = passed_over(data.train.root), unread_members(data.train.root)
    found = [Finding("note", line) for line in members]
    if not names:
        return found
    what = f"{len(names):,} files or folders are passed over for their names: {shorten(names)}"
    return [*found, Finding("note", what, "images are .jpg, .jpeg or .png, label images .png")]


def in_both(data: SegmentationData) -> list[Finding]:
    """Test images that are training images, too."""
    sizes = [file_sizes(split.root, split.names) for split in (data.train, data.val)]
    lines = find_twins(data.train, data.val, *sizes).line(data.train, data.val)
    return [Finding("note", line, "remove them from one split") for line in lines]


def shifted(on_progress: Progress | None, before: int, more: int) -> Progress | None:
    """`on_progress` of a part: `before` steps are done, and there are `more` besides its own."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(before + done, more + total)


def decoded(
    judged: Judgement, on_progress: Progress | None, samples: int, max_bad_images: int
) -> list[Finding]:
    """Images that cannot be read: by the headers of all, and by decoding some."""
    data, findings = judged.data, []
    faults = {id(getattr(data, name)): each.image_faults for name, each in judged.found.items()}
    splits = {"training": data.train, "test": data.val}
    for kind, split in splits.items():
        bad = [Unreadable(split.names[row], why) for row, why in faults[id(split)].items()]
        findings += unreadable(bad, len(split), len(split), kind, max_bad_images)

    def look(split: SegmentationSplit, row: int) -> None:
        if row not in faults[id(split)]:
            decode(split.path(row))

    return findings + images(splits, look, on_progress, samples, max_bad_images)


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
