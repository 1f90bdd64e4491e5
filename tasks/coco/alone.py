"""A COCO test set alone, for a network that is trained already."""

import contextlib
import pickle
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tasks.check import Check, Finding, Progress, images
from tasks.coco.data import decode_known
from tasks.coco.files import Place
from tasks.coco.layout import CocoData, feed
from tasks.coco.packing import census, pack_split
from tasks.coco.pair import read_file
from tasks.coco.split import CocoSplit, Table
from tasks.errors import TaskError
from tasks.images import FileNames, UnreadableImage, stored
from tasks.images.fingerprint import Fingerprint

BOXES_SCORED = "boxes alone are scored: the test data lack outlines"
MASK_HEAD = ".mask_head."
"""in the names of a mask head's weights, of any engine"""


def is_alone(source: str | Path) -> bool:
    """Whether this is one annotation file, and not TRAIN.json,VAL.json."""
    file = Path(source).expanduser()
    return file.suffix.lower() == ".json" and ("," not in str(source) or file.is_file())


def read_alone(source: str | Path, learnt: Sequence[str]) -> CocoData:
    """Read VAL.json for a network of the classes `learnt`; there are no training images.

    It may annotate nothing. TaskError for a file that is broken or of other classes.
    """
    file = Path(source).expanduser()
    if not file.is_file():
        raise TaskError(f"{file} is no file; expected an annotation file, or a whole data set")
    found = read_file("val", Place(file, None, file.stem), None, learnt)
    notes = found.notes
    masks = bool((found.outlines.found & ~found.tables.crowds).any())
    val = pack_split(found, masks, notes)
    none = val.take(np.arange(0))
    digest = Fingerprint()
    feed(digest, val)
    digest.add(repr((found.tables.category_ids, found.tables.classes)))
    return CocoData(
        name=file.stem,
        train=none,
        val=val,
        all_train=none,
        classes=found.tables.classes,
        category_ids=found.tables.category_ids,
        fingerprint=digest.hexdigest(),
        standard=False,
        census=(census(found, val),),
        counts=notes.counts,
        examples=notes.examples,
    )


def images_alone(
    root: Path, names: Sequence[str], classes: Sequence[str], weights: Collection[str]
) -> CocoData:
    """Images without annotations, with ids from 1 on; category ids too, in the classes' order."""
    sizes = np.zeros((len(names), 2), np.int32)  # of those that cannot be read, which is told later
    for row, name in enumerate(names):
        with contextlib.suppress(UnreadableImage):
            sizes[row] = stored(root / name).upright
    nothing = pickle.dumps(([], [], b"", b"", []))
    val = CocoSplit(
        root=root,
        names=FileNames(list(names)),
        image_ids=np.arange(1, len(names) + 1),
        sizes=sizes,
        json_file=root,
        num_annotations=0,
        left_out=np.zeros(0, np.int64),
        masks=any(MASK_HEAD in name for name in weights),
        objects=np.zeros(len(names), np.int64),
        packed=np.frombuffer(nothing, np.uint8),
        spans=np.tile([0, len(nothing)], (len(names), 1)),
        table=Table.empty(len(names)),
    )
    none = val.take(np.arange(0))
    return CocoData(
        name=root.name,
        train=none,
        val=val,
        all_train=none,
        classes=tuple(classes),
        category_ids=tuple(range(1, len(classes) + 1)),
        fingerprint="",
        standard=False,
        census=(),
        counts={},
        examples={},
    )


def check(
    source: str | Path, learnt: Sequence[str], on_progress: Progress | None, max_bad_images: int
) -> Check:
    """What there is to say of VAL.json, for a network of the classes `learnt`."""
    try:
        data = read_alone(source, learnt)
    except TaskError as error:
        return Check((Finding("problem", str(error)),), None)
    labelled = data.val.num_annotations > 0
    lines = data.report_lines() if labelled else data.census
    findings = [Finding("note", line) for line in lines]
    if not labelled:
        what = f"{data.val.json_file} annotates nothing in any image"
        findings.append(Finding("problem", what, "there can be no score", unlabelled=True))
    findings += images({"test": data.val}, decode_known, on_progress, max_bad_images=max_bad_images)
    return Check(tuple(findings), data)


def as_trained(data: CocoData, names: Collection[str]) -> CocoData:
    """The data for a network with or without masks. TaskError where it lacks those of the data."""
    masks = any(MASK_HEAD in name for name in names)
    if data.masks and not masks:
        raise TaskError(
            f"{data.val.json_file} has outlines, and the run was trained on boxes alone, without "
            "masks; expected test data of boxes alone: leave the segmentations out"
        )
    return replace(data, mask_head=masks)
