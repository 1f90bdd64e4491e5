"""Reader of COCO's instances files: what is in the images, checked and packed tightly."""

import hashlib
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from tasks import TaskError
from tasks.coco.datasets import CATEGORY_IDS, NUM_IMAGES, NUM_TRAIN_USED, SPLITS
from tasks.coco.files import Place, image_folder, locate
from tasks.coco.segmentation import FAULTS, FEW_POINTS, NO_SEGMENTATION, pack, unpack
from tasks.coco.tables import Tables, read_tables
from tasks.columns import first
from tasks.images.files import FileNames, missing

NO_BOX = "no box of four numbers"
EMPTY_BOX = "a box of no width or height"
OUTSIDE = "a box outside the image"
NO_ANNOTATION = "train images without annotation"
ONLY_CROWDS = "train images with nothing usable but crowds"
EXAMPLES = 5
"""ids that are kept of everything left out"""


@dataclass(frozen=True, eq=False)
class CocoSplit:
    """Images of one split with their annotations, in the order of image ids."""

    root: Path
    """folder of the images"""
    names: FileNames
    """paths relative to `root`"""
    image_ids: np.ndarray
    """int64 (N,)"""
    sizes: np.ndarray
    """int32 (N, 2): height, width in pixels"""
    json_file: Path
    """what the split was read from, and what its score is computed with"""
    num_annotations: int
    """in `json_file`"""
    left_out: np.ndarray
    """ids of the annotations that are in `json_file` but not here, int64"""
    packed: np.ndarray
    """annotations of all images, pickled, uint8"""
    spans: np.ndarray
    """where those of each image begin and end in `packed`, int64 (N, 2)"""

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        return self.root / self.names[index]

    def annotations(self, index: int) -> list[dict[str, Any]]:
        """The annotations of an image in the file's order.

        Each is {"label": class index; "bbox": float64 (4,), x, y, width, height in pixels, not
        clipped; "iscrowd": 0 or 1; "segmentation": polygons as a list of float64 (k, 2), x, y,
        or run lengths that pycocotools decodes}.
        """
        start, stop = self.spans[index]
        labels, crowds, boxes, masks = pickle.loads(self.packed[start:stop].data)
        size = self.sizes[index].tolist()
        rows = zip(labels, crowds, np.frombuffer(boxes).reshape(-1, 4), masks, strict=True)
        return [
            {"label": label, "bbox": box, "iscrowd": crowd, "segmentation": unpack(mask, *size)}
            for label, crowd, box, mask in rows
        ]

    def limited(self, limit: int | None) -> Self:
        """`limit` images at even distances; None: all. The annotations stay where they are."""
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise TaskError(f"limit is {limit}; expected at least 1 image")
        return self.take(np.arange(limit) * len(self) // limit)

    def take(self, rows: np.ndarray) -> Self:
        """The images at `rows`."""
        return replace(
            self,
            names=self.names.take(rows),
            image_ids=self.image_ids[rows],
            sizes=self.sizes[rows],
            spans=self.spans[rows],
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and a model's averaged copy must not double it


@dataclass(frozen=True, eq=False)
class CocoData:
    """A data set on disk."""

    name: str
    """coco2017 for a folder in the official layout, else the name of the training json"""
    train: CocoSplit
    val: CocoSplit
    classes: tuple[str, ...]
    """names by class index, in the order of category ids"""
    category_ids: tuple[int, ...]
    """class index -> id in the annotation files"""
    fingerprint: str
    """16 hex digits over file names, ids, sizes, classes and annotations"""
    standard: bool
    """whether images, classes and category ids are those of COCO 2017"""
    counts: dict[str, int]
    """what was left out, or merely looks odd -> how often; empty if nothing"""
    examples: dict[str, tuple[int, ...]]
    """the same -> a few ids of annotations or images"""

    def limited(self, limit: int | None) -> Self:
        """`limit` images of each split; the fingerprint stays that of the whole."""
        train, val = self.train.limited(limit), self.val.limited(limit)
        whole = len(train) == len(self.train) and len(val) == len(self.val)
        return replace(self, train=train, val=val, standard=self.standard and whole)

    def report_lines(self) -> list[str]:
        """A line for each entry of `counts`."""
        return [
            f"{reason}: {count} ({first(self.examples[reason])})"
            for reason, count in self.counts.items()
        ]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and a model's averaged copy must not double it


@dataclass
class Notes:
    """What was left out, with examples."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def add(self, reason: str, ids: np.ndarray, count: int | None = None) -> None:
        """Note `ids`; `count` of them if it is not one for each."""
        if len(ids):
            self.counts[reason] = len(ids) if count is None else count
            self.examples[reason] = tuple(ids[:EXAMPLES].tolist())


def read(source: str | Path) -> CocoData:
    """Read a folder in the official layout, or "TRAIN.json,VAL.json" of one's own data.

    Images of a json lie in the first of these that holds its first image: the json's folder, its
    images/, ../NAME, ../images/NAME (the json's name without .json and instances_), ../images.

    Training images without an annotation, or with nothing but crowds, are left out as by
    detectron2's filter_images_with_only_crowd_annotations (data/build.py). Annotations that
    cannot be trained on are left out and counted too, but do not change which images stay: what
    stays is detectron2's selection (datasets/coco.py). TaskError for a file that is broken or
    contradicts itself, and for missing images.
    """
    notes = Notes()
    places = locate(source)
    digest = hashlib.sha256()
    splits: dict[str, CocoSplit] = {}
    categories: list[tuple[tuple[int, ...], tuple[str, ...]]] = []
    total = {}
    for split, place in places.items():
        tables = read_tables(place.json_file)
        total[split] = len(tables.names)
        categories.append((tables.category_ids, tables.classes))
        splits[split] = read_split(split, place, tables, notes)
        del tables  # gigabytes
        feed(digest, splits[split])
    if categories[0] != categories[1]:
        refuse_different(categories, places)
    category_ids, classes = categories[0]
    digest.update(repr(categories[0]).encode())
    standard = (
        total == NUM_IMAGES
        and len(splits["train"]) == NUM_TRAIN_USED
        and category_ids == CATEGORY_IDS
    )
    official = places["train"].root is not None
    return CocoData(
        name="coco2017" if official else places["train"].json_file.stem,
        **splits,
        # A lone surrogate, which JSON can spell, is no text that a file or a picture takes.
        classes=tuple(name.encode("utf-8", "replace").decode() for name in classes),
        category_ids=category_ids,
        fingerprint=digest.hexdigest()[:16],
        standard=standard,
        counts=notes.counts,
        examples=notes.examples,
    )


def read_split(split: str, place: Place, tables: Tables, notes: Notes) -> CocoSplit:
    """One split, with training images selected. Empties `tables.annotations` of its outlines."""
    root = place.root or image_folder(place.json_file, tables.names[0])
    absent = missing(root, tables.names)
    if absent:
        raise TaskError(
            f"{root}: {len(absent)} of {len(tables.names)} images named in {place.json_file} are "
            f"missing ({first(absent)}); unpack or copy the rest"
        )
    faults = box_faults(split, tables, notes)
    chunks = list(pack_images(split, tables, faults, notes))
    for fault in (NO_BOX, EMPTY_BOX, OUTSIDE, *FAULTS):
        notes.add(f"{split} annotations with {fault}", tables.ids[faults == fault])
    ends = np.cumsum([len(chunk) for chunk in chunks])
    found = CocoSplit(
        root=root,
        names=FileNames(tables.names),
        image_ids=tables.image_ids,
        sizes=tables.sizes,
        json_file=place.json_file,
        num_annotations=len(tables.ids),
        left_out=tables.ids[faults != ""],
        packed=np.frombuffer(b"".join(chunks), dtype=np.uint8),
        spans=np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1),
    )
    if split == "val":
        return found
    kept = kept_images(tables, faults, notes)
    if not len(kept):
        raise TaskError(f"{place.json_file} outlines nothing in any image; expected some objects")
    return found.take(kept)


def kept_images(tables: Tables, faults: np.ndarray, notes: Notes) -> np.ndarray:
    """Rows of the training images that detectron2 keeps; notes the others."""
    things = ~tables.crowds & (faults != FEW_POINTS) & (faults != NO_SEGMENTATION)
    count = len(tables.names)
    annotated = np.bincount(tables.images, minlength=count) > 0
    kept = np.bincount(tables.images[things], minlength=count) > 0
    notes.add(NO_ANNOTATION, tables.image_ids[~annotated])
    notes.add(ONLY_CROWDS, tables.image_ids[annotated & ~kept])
    return np.flatnonzero(kept)


def box_faults(split: str, tables: Tables, notes: Notes) -> np.ndarray:
    """What is wrong with each annotation's box, as text (A,); "" if nothing."""
    x, y, w, h = tables.boxes.T
    height, width = tables.sizes[tables.images].T
    faults = np.full(len(x), "", dtype=object)
    faults[(x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0)] = OUTSIDE
    faults[(w <= 0) | (h <= 0)] = EMPTY_BOX
    faults[~np.isfinite(tables.boxes).all(axis=1)] = NO_BOX
    # The official boxes overlap the border by rounding.
    over = (x < -1) | (y < -1) | (x + w > width + 1) | (y + h > height + 1)
    notes.add(f"{split} boxes partly outside the image (kept)", tables.ids[over & (faults == "")])
    return faults


def pack_images(split: str, tables: Tables, faults: np.ndarray, notes: Notes) -> Iterator[bytes]:
    """The pickled annotations of each image; adds to `faults`, and takes outlines out of memory."""
    order = np.argsort(tables.images, kind="stable")
    ends = np.cumsum(np.bincount(tables.images, minlength=len(tables.names)))
    dropped: dict[int, int] = {}
    start = 0
    for size, end in zip(tables.sizes.tolist(), ends.tolist(), strict=True):
        rows, masks = [], []
        for row in order[start:end].tolist():
            outline = tables.annotations[row].pop("segmentation", None)
            mask, fault, fewer = pack(outline, *size)
            if fewer and mask is not None:
                dropped[row] = fewer
            faults[row] = faults[row] or fault
            if not faults[row]:
                rows.append(row)
                masks.append(mask)
        labels, crowds = tables.labels[rows].tolist(), tables.crowds[rows].astype(int).tolist()
        yield pickle.dumps((labels, crowds, tables.boxes[rows].tobytes(), masks), protocol=5)
        start = end
    reason = f"{split} polygons with fewer than three points"
    notes.add(reason, tables.ids[list(dropped)], sum(dropped.values()))


def feed(digest: Any, split: CocoSplit) -> None:
    """What identifies a split goes into a hash."""
    digest.update(os.fsencode("\n".join([*split.names, ""])))
    for part in (split.image_ids, split.sizes, split.packed):
        digest.update(part)


def refuse_different(
    categories: list[tuple[tuple[int, ...], tuple[str, ...]]], places: dict[str, Place]
) -> None:
    """Raise TaskError that names a category which one of the files lacks."""
    train, val = (dict(zip(*each, strict=True)) for each in categories)
    differing = sorted(
        number for number in train.keys() | val.keys() if train.get(number) != val.get(number)
    )
    number = differing[0]
    files = " and ".join(str(places[split].json_file) for split in SPLITS)
    raise TaskError(
        f"{files} differ in {len(differing)} categories: id {number} is {train.get(number)!r} in "
        f"the first and {val.get(number)!r} in the second; expected the same in both"
    )
