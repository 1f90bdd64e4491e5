"""From checked annotations to `CocoSplit`: what is of use, packed image by image, and counted."""

from dataclasses import dataclass

import numpy as np

from tasks.coco.crosscheck import MOST
from tasks.coco.looked import Looked
from tasks.coco.notes import Notes
from tasks.coco.outlines import Outlines
from tasks.coco.pickled import Written, pickled
from tasks.coco.segmentation import FAULTS, FEW_POINTS, NO_SEGMENTATION
from tasks.coco.split import CocoSplit, Table
from tasks.coco.tables import Tables
from tasks.columns import first
from tasks.errors import TaskError
from tasks.images.files import FileNames

NO_BOX = "no box of four numbers"
EMPTY_BOX = "a box of no width or height"
OUTSIDE = "a box outside the image"
NO_ANNOTATION = "train images without annotation"
ONLY_CROWDS = "train images with nothing usable but crowds"


@dataclass(eq=False)
class ReadSplit:
    """What reading one file came to, before it is known whether masks count."""

    split: str
    tables: Tables
    outlines: Outlines
    boxes: np.ndarray
    """what is wrong with each annotation's box, text (A,); "" if nothing"""
    areas: np.ndarray
    """by which the test calls objects small, medium or large; NaN in training"""
    before: Notes
    """from before the image files were looked at"""
    looked: Looked
    """what these told"""
    after: Notes
    unsized: np.ndarray
    """rows of the images whose sizes the image files told"""

    @property
    def notes(self) -> Notes:
        """All of them."""
        notes = Notes()
        notes.update(self.before, self.looked.notes, self.after)
        return notes


def pack_split(found: ReadSplit, masks: bool, notes: Notes) -> CocoSplit:
    """All images of a file with what of their annotations is of use; notes the rest."""
    tables, split = found.tables, found.split
    faults = found.boxes.copy()
    if masks:
        plain = faults == ""
        faults[plain] = found.outlines.faults[plain]
        refuse_mixed(tables, faults)
    packed, spans, table = pack_images(found, faults == "", masks)
    for fault in (NO_BOX, EMPTY_BOX, OUTSIDE, *FAULTS):
        notes.add(f"{split} annotations left out for {fault}", tables.ids[faults == fault])
    count = len(tables.names)
    objects = tables.images[(faults == "") & ~tables.crowds]
    if not len(objects) and len(tables.ids):
        raise TaskError(
            f"{tables.path} holds no object that is of use ({reasons(faults)}); expected some"
        )
    if split == "val":
        refuse_useless(tables, faults)
    return CocoSplit(
        root=found.looked.root,
        names=FileNames(tables.names),
        image_ids=tables.image_ids,
        sizes=tables.sizes,
        json_file=tables.path,
        num_annotations=len(tables.ids),
        left_out=tables.ids[faults != ""],
        masks=masks,
        objects=np.bincount(objects, minlength=count),
        packed=packed,
        spans=spans,
        table=table,
    )


def refuse_mixed(tables: Tables, faults: np.ndarray) -> None:
    """Raise TaskError if half of the objects, or more, have a box alone among others' outlines."""
    alone = np.flatnonzero((faults == NO_SEGMENTATION) & ~tables.crowds)
    count = int((~tables.crowds).sum())
    if len(alone) and len(alone) >= MOST * count:
        raise TaskError(
            f"{tables.path}: {len(alone):,} of {count:,} objects have a box but no outline, for "
            f"example annotation {tables.ids[alone[0]]}, and the others have both; masks would be "
            "trained with them as background: give outlines to all, or to none (then boxes alone "
            "are trained)"
        )


def refuse_useless(tables: Tables, faults: np.ndarray) -> None:
    """Raise TaskError if most objects of a test cannot be used: the rest do not stand for it."""
    things = ~tables.crowds
    useless = np.flatnonzero((faults != "") & things)
    if len(useless) > MOST * things.sum():
        raise TaskError(
            f"{tables.path}: {len(useless):,} of {things.sum():,} objects are of no use "
            f"({reasons(faults[useless])}), for example annotation {tables.ids[useless[0]]}; "
            "correct them, or take them out if they mean nothing"
        )


def reasons(faults: np.ndarray) -> str:
    """The faults with their counts: "3 with no segmentation"."""
    names, counts = np.unique(faults[faults != ""].astype(str), return_counts=True)
    return ", ".join(f"{n} with {name}" for name, n in zip(names, counts, strict=True)) or "crowds"


def pack_images(
    found: ReadSplit, fine: np.ndarray, masks: bool
) -> tuple[np.ndarray, np.ndarray, Table]:
    """`CocoSplit`'s packed, spans and table, of the annotations that are `fine`, bool (A,)."""
    tables = found.tables
    order = np.argsort(tables.images, kind="stable")
    order = order[fine[order]]
    ends = np.cumsum(np.bincount(tables.images[fine], minlength=len(tables.names)))
    labels, crowds = tables.labels[order], tables.crowds[order]
    boxes, areas = tables.boxes[order], found.areas[order]
    outlines = found.outlines.written if masks else Written.nothing(len(fine))
    bounds = np.concatenate([[0], ends])
    made = pickled(bounds, labels, crowds, boxes, areas, outlines, order)
    table = Table(
        of_image=between(ends),
        labels=labels,
        crowds=crowds,
        boxes=boxes,
        areas=areas,
        run_lengths=outlines.run_lengths[order],
        first_part=made.first_part,
        parts=made.parts,
    )
    return np.frombuffer(made.block, dtype=np.uint8), between(made.ends), table


def between(ends: np.ndarray) -> np.ndarray:
    """Where each begins and ends, of things that follow each other, int64 (N, 2)."""
    return np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1).astype(np.int64)


def kept_images(found: ReadSplit, masks: bool, notes: Notes) -> np.ndarray:
    """Rows of the training images that detectron2 keeps; notes the others."""
    tables = found.tables
    things = ~tables.crowds
    if masks:
        faults = found.outlines.faults
        things &= (faults != FEW_POINTS) & (faults != NO_SEGMENTATION)
    count = len(tables.names)
    annotated = np.bincount(tables.images, minlength=count) > 0
    kept = np.bincount(tables.images[things], minlength=count) > 0
    notes.add(NO_ANNOTATION, tables.image_ids[~annotated])
    notes.add(ONLY_CROWDS, tables.image_ids[annotated & ~kept])
    return np.flatnonzero(kept)


def census(found: ReadSplit, split: CocoSplit) -> str:
    """ "train: 16 images, 8 objects, 8 crowds; class 'x' occurs nowhere"."""
    tables = found.tables
    crowds = int((tables.crowds & ~np.isin(tables.ids, split.left_out)).sum())
    seen = has_objects(found, split)
    absent = [repr(name) for name, is_seen in zip(tables.classes, seen, strict=True) if not is_seen]
    line = (
        f"{found.split}: {len(split):,} images, {split.objects.sum():,} objects, {crowds:,} crowds"
    )
    if crowds > split.objects.sum():
        line += " (most are crowds, which are neither trained nor scored)"
    if absent:
        classes = f"{len(absent)} classes occur" if len(absent) > 1 else "a class occurs"
        line += f"; {classes} nowhere: {first(absent)}"
    return line


def has_objects(found: ReadSplit, split: CocoSplit) -> np.ndarray:
    """Of each class, whether an object of it is of use, bool (C,)."""
    tables = found.tables
    used = ~np.isin(tables.ids, split.left_out) & ~tables.crowds
    return np.bincount(tables.labels[used], minlength=len(tables.classes)) > 0
