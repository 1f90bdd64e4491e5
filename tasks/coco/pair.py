"""The two annotation files of a data set, read, compared and packed."""

from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from tasks.coco.crosscheck import cross_check
from tasks.coco.files import Place
from tasks.coco.looked import Looked, look
from tasks.coco.notes import Notes
from tasks.coco.outlines import Outlines, read_outlines
from tasks.coco.packing import (
    EMPTY_BOX,
    NO_BOX,
    OUTSIDE,
    ReadSplit,
    census,
    has_objects,
    kept_images,
    pack_split,
)
from tasks.coco.said import Said
from tasks.coco.split import CocoSplit
from tasks.coco.tables import Tables, match_categories, match_learnt, read_tables
from tasks.columns import without_collecting
from tasks.errors import TaskError


@dataclass(frozen=True, eq=False)
class Pair:
    """All that two annotation files say, and no more: nothing of their image files."""

    splits: dict[str, CocoSplit]
    """with all images"""
    notes: dict[str, tuple[Notes, Notes]]
    """of each split, from before and after its image files were looked at"""
    both: Notes
    """of the two"""
    unsized: dict[str, np.ndarray]
    """rows of the images whose sizes the image files told"""
    kept: np.ndarray
    """rows of the training images with objects, int64"""
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    census: tuple[str, ...]

    def said(self, split: str) -> Said:
        """What a file says of its images."""
        found = self.splits[split]
        sizes = np.array(found.sizes)
        sizes[self.unsized[split]] = 0
        return Said(found.json_file, found.names, sizes)


def read_pair(places: Mapping[str, Place], looked: MutableMapping[str, Looked]) -> Pair:
    """Read both files, and find the images of both, which goes into `looked`."""
    with without_collecting():
        return compare_and_pack(places, looked)


def compare_and_pack(places: Mapping[str, Place], looked: MutableMapping[str, Looked]) -> Pair:
    train = read_file("train", places["train"], None)
    looked["train"] = train.looked
    val = read_file("val", places["val"], train.tables)
    looked["val"] = val.looked
    masks = all((each.outlines.found & ~each.tables.crowds).any() for each in (train, val))
    found = {each.split: each for each in (train, val)}
    both = Notes()
    splits = {name: pack_split(each, masks, both) for name, each in found.items()}
    note_untrained(train, val, splits, both)
    kept = kept_images(train, masks, both)
    used = splits | {"train": splits["train"].take(kept)}
    return Pair(
        splits=splits,
        notes={name: (each.before, each.after) for name, each in found.items()},
        both=both,
        unsized={name: each.unsized for name, each in found.items()},
        kept=kept,
        classes=train.tables.classes,
        category_ids=train.tables.category_ids,
        census=tuple(census(found[name], split) for name, split in used.items()),
    )


def read_file(
    split: str,
    place: Place,
    train: Tables | None,
    learnt: Sequence[str] | None = None,
) -> ReadSplit:
    """One annotation file, with class indices as in the tables `train`, and its cross-check.

    `learnt`: it is a test set alone, for these classes, and may annotate nothing.
    """
    before, after = Notes(), Notes()
    tables = read_tables(place.json_file, split, before, unlabelled=learnt is not None)
    note_twice(split, tables, before)
    if learnt is not None:
        tables = match_learnt(tables, learnt, before)
    if train is not None:
        to_train = match_categories(train, tables, before)
        tables = replace(tables, labels=to_train[tables.labels], classes=train.classes)
    refuse_nothing(tables, learnt)
    looked = look(split, place, Said(tables.path, tables.names, tables.sizes))
    unsized = np.flatnonzero(tables.sizes[:, 0] == 0)
    tables = replace(tables, sizes=looked.sizes)
    note_repeated(split, tables, after)  # before outlines are let go
    outlines = read_outlines(split, tables, after)
    tables.boxes[(tables.boxes == 0).all(axis=1)] = np.nan  # what tools write that know none
    cross_check(split, tables, outlines.measures, after)
    boxes = complete_boxes(split, tables, outlines, after)
    areas = np.full(len(tables.ids), np.nan)
    if split == "val":
        areas = complete_areas(tables, outlines, after)
    return ReadSplit(split, tables, outlines, boxes, areas, before, looked, after, unsized)


def refuse_nothing(tables: Tables, learnt: Sequence[str] | None) -> None:
    """Raise TaskError for a file of which nothing could be trained or scored."""
    if not len(tables.ids) and learnt is None:
        raise TaskError(f"{tables.path} annotates nothing in any image; expected some objects")
    if len(tables.ids) and tables.crowds.all():
        raise TaskError(
            f"{tables.path}: all {len(tables.ids):,} annotations are crowds (iscrowd 1), which are "
            "neither trained nor scored; expected iscrowd 0 for single objects: set it (some tools "
            "write 1 for every mask that is drawn with a brush)"
        )


def note_twice(split: str, tables: Tables, notes: Notes) -> None:
    """Note image files that several entries name: what one annotates the other lacks."""
    times = Counter(tables.names)
    what = f"{split} files that several images name (kept; each counts with its own objects alone)"
    notes.add(what, [name for name, count in times.items() if count > 1])


def note_repeated(split: str, tables: Tables, notes: Notes) -> None:
    """Note objects with a box that the file has twice, as merged exports do; crowds are none."""
    rows = np.flatnonzero(np.isfinite(tables.boxes).all(axis=1) & ~tables.crowds)
    keys = np.column_stack((tables.images, tables.labels, tables.boxes.view(np.int64)))[rows]
    odd = np.array([3, 5, 7, 11, 13, 17], dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    hashes = (keys.view(np.uint64) * odd).sum(axis=1, dtype=np.uint64)
    order = np.argsort(hashes, kind="stable")
    near = np.flatnonzero(np.diff(hashes[order]) == 0)
    seen, again = set[tuple[bytes, str]](), list[int]()
    for row in order[np.union1d(near, near + 1)].tolist():
        outline = tables.segmentations[rows[row]]
        text = str(bytes(outline) if isinstance(outline, msgspec.Raw) else outline)
        if (key := (keys[row].tobytes(), text)) in seen:
            again.append(tables.ids[rows[row]].item())
        seen.add(key)
    why = "kept; a detection is right for one of them alone" if split == "val" else "kept"
    what = f"{split} annotations that repeat another's image, class, box and outline ({why})"
    notes.add(what, sorted(again))


def note_untrained(
    train: ReadSplit, val: ReadSplit, splits: dict[str, CocoSplit], notes: Notes
) -> None:
    """Note classes that the test has objects of, and the training none."""
    there = has_objects(val, splits["val"]) & ~has_objects(train, splits["train"])
    what = "classes of val objects that no train object has (nothing trains for them)"
    notes.add(what, [train.tables.classes[row] for row in np.flatnonzero(there)])


def complete_boxes(split: str, tables: Tables, outlines: Outlines, notes: Notes) -> np.ndarray:
    """Give boxes to annotations with an outline alone; returns `ReadSplit.boxes`."""
    extents = outlines.measures.extents
    boxed = np.isfinite(tables.boxes).all(axis=1)
    alone = ~boxed & np.isfinite(extents).all(axis=1)
    tables.boxes[alone, :2] = extents[alone, :2]
    tables.boxes[alone, 2:] = extents[alone, 2:] - extents[alone, :2]
    what = f"{split} annotations without a box of four numbers (taken from their outlines)"
    notes.add(what, tables.ids[alone])
    return box_faults(split, tables, notes)


def box_faults(split: str, tables: Tables, notes: Notes) -> np.ndarray:
    """What is wrong with each annotation's box, as text (A,); "" if nothing."""
    x, y, w, h = tables.boxes.T
    height, width = tables.sizes[tables.images].T
    faults = np.full(len(x), "", dtype=object)
    with np.errstate(over="ignore"):
        faults[(x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0)] = OUTSIDE
        # The official boxes overlap the border by rounding.
        over = (x < -1) | (y < -1) | (x + w > width + 1) | (y + h > height + 1)
    faults[(w <= 0) | (h <= 0)] = EMPTY_BOX
    faults[~np.isfinite(tables.boxes).all(axis=1)] = NO_BOX
    notes.add(f"{split} boxes partly outside the image (kept)", tables.ids[over & (faults == "")])
    return faults


def complete_areas(tables: Tables, outlines: Outlines, notes: Notes) -> np.ndarray:
    """The file's areas; where one is missing or impossible, that of the outline or the box."""
    height, width = tables.sizes[tables.images].astype(np.float64).T
    measured = outlines.measures.areas
    own = np.where(np.isfinite(measured), measured, tables.boxes[:, 2] * tables.boxes[:, 3])
    with np.errstate(invalid="ignore"):
        fine = (tables.areas > 0) & (tables.areas <= height * width)
    rows = np.flatnonzero(~fine & np.isfinite(own))
    what = "val annotations without a possible area (computed from their outlines or boxes)"
    notes.add(what, tables.ids[rows])
    areas = tables.areas.copy()
    sizes = tables.sizes[tables.images[rows]].tolist()
    for row, size in zip(rows.tolist(), sizes, strict=True):
        areas[row] = outlines.pixels(row, *size) or own[row]
    return areas
