"""Reader of COCO's instances files: what is in the images, checked and packed tightly."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from tasks.coco.datasets import CATEGORY_IDS, NUM_IMAGES, NUM_TRAIN_USED, OFFICIAL_NAME
from tasks.coco.files import locate
from tasks.coco.keeping import read_or_keep
from tasks.coco.looked import Looked, look
from tasks.coco.notes import Example, Notes
from tasks.coco.packing import NO_ANNOTATION, ONLY_CROWDS
from tasks.coco.pair import Pair
from tasks.coco.split import CocoSplit
from tasks.columns import first
from tasks.errors import TaskError
from tasks.holding_out import divided_fingerprint, hold_out_images
from tasks.images.fingerprint import Fingerprint
from tasks.images.twins import find_twins
from tasks.stores import unread_members

SHARED = "test images that are training images too"
LITTLE = " (kept; their scores say little)"
KEPT = " (trained on as background)"
HINTS = {NO_ANNOTATION: "; --background-images trains on them too"}
BOXES_ALONE = "boxes alone: the data lack outlines, so no masks are trained or scored"


@dataclass(frozen=True, eq=False)
class CocoData:
    """A data set on disk."""

    name: str
    """coco2017 for a folder in the official layout, else the name of the training json"""
    train: CocoSplit
    """the images with objects"""
    val: CocoSplit
    all_train: CocoSplit
    """the training images without objects too"""
    classes: tuple[str, ...]
    """names by class index, in the order of category ids"""
    category_ids: tuple[int, ...]
    """class index -> id in the annotation files"""
    fingerprint: str
    """hex digits over names and contents of files, ids, sizes, classes and annotations"""
    standard: bool
    """whether images, classes and category ids are those of COCO 2017"""
    census: tuple[str, ...]
    """a line for each split: images, objects, crowds, classes that are not there"""
    counts: dict[str, int]
    """what was left out, or merely looks odd -> how often; empty if nothing"""
    examples: dict[str, tuple[Example, ...]]
    """the same -> a few ids of annotations or images"""
    passed_over: tuple[str, ...] = ()
    """a line for each kind of member of its archives that is not read"""
    mask_head: bool | None = None
    """whether the network has masks, where it was trained on other data; None: as these have"""

    @property
    def masks(self) -> bool:
        """Whether there are outlines to train and to score; else boxes alone."""
        return self.train.masks

    @property
    def own(self) -> bool:
        """Whether classes or images are the user's: the official files are named by their ids."""
        names = [each.names[0] for each in (self.train, self.val) if len(each)]
        official = all(OFFICIAL_NAME.search(name) for name in names)
        return self.category_ids != CATEGORY_IDS or not official

    def limited(self, limit: int | None) -> Self:
        """`limit` images of each split; the fingerprint stays that of the whole."""
        train, val = self.train.limited(limit), self.val.limited(limit)
        whole = len(train) == len(self.train) and len(val) == len(self.val)
        return replace(self, train=train, val=val, standard=self.standard and whole)

    def divided(self, share: float, seed: int) -> Self:
        """The training images alone: `share` of all of them in place of the test images.

        As in a test set, images without objects are among those.
        """
        held = hold_out_images(len(self.all_train), share, seed)
        rest = ~np.isin(self.train.image_ids, self.all_train.image_ids[held])
        train, val = (
            self.train.take(np.flatnonzero(rest)),
            self.all_train.take(np.flatnonzero(held)),
        )
        for what, split in (("are left", train), ("are held out", val)):
            if not split.objects.any():
                raise TaskError(
                    f"the {len(split)} of {len(held)} training images that {what} show no object; "
                    "expected some on both sides: use more images"
                )
        return replace(
            self,
            train=train,
            all_train=self.all_train.take(np.flatnonzero(~held)),
            val=val,
            fingerprint=divided_fingerprint(self.fingerprint, len(held), share, seed),
            standard=False,
        )

    def with_background(self) -> Self:
        """Training images without objects among the others (filter_empty_annotations=False)."""
        empty = (NO_ANNOTATION, ONLY_CROWDS)
        renamed = {name: name + KEPT * (name in empty) for name in self.counts}
        return replace(
            self,
            train=self.all_train,
            standard=False,
            census=(
                f"train: {len(self.all_train):,} images, those without objects among them; before: "
                + self.census[0].removeprefix("train: "),
                *self.census[1:],
            ),
            counts={renamed[name]: count for name, count in self.counts.items()},
            examples={renamed[name]: some for name, some in self.examples.items()},
        )

    def report_lines(self) -> list[str]:
        """A line for each split, and for each entry of `counts`."""
        lines = [] if self.masks else [BOXES_ALONE]
        return [
            *lines,
            *self.census,
            *(
                f"{reason}: {count} ({first(self.examples[reason])}){HINTS.get(reason, '')}"
                for reason, count in self.counts.items()
            ),
            *self.passed_over,
        ]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and a model's averaged copy must not double it


def read(source: str | Path) -> CocoData:
    """Read a folder in the official layout, or "TRAIN.json,VAL.json" of one's own data.

    Training images without an annotation, or with nothing but crowds, are left out as by
    detectron2's filter_images_with_only_crowd_annotations (data/build.py); `with_background` keeps
    them.
    Annotations that cannot be trained on are left out and counted too, but do not change which
    images stay: what stays is detectron2's selection (datasets/coco.py). If a split has no outline
    at all, boxes alone are read from both.

    TaskError for a file that is broken, contradicts itself or holds nothing to train or score,
    and for missing images.
    """
    places = locate(source)
    looked: dict[str, Looked] = {}
    pair = read_or_keep(places, looked)
    for split, place in places.items():
        if split not in looked:
            looked[split] = look(split, place, pair.said(split))
    return put_together(places["train"].name, pair, looked)


def put_together(name: str, pair: Pair, looked: Mapping[str, Looked]) -> CocoData:
    """What two annotation files hold, with what their image files tell."""
    notes = Notes()
    whole = {s: replace(each, root=looked[s].root) for s, each in pair.splits.items()}
    for split, (before, after) in pair.notes.items():
        notes.update(before, looked[split].notes, after)
    note_shared(whole["train"], whole["val"], notes)
    notes.update(pair.both)
    splits = whole | {"train": whole["train"].take(pair.kept)}
    digest = Fingerprint()
    sizes = [feed(digest, split) for split in splits.values()]
    note_twins(splits["train"], splits["val"], sizes, notes)
    digest.add(repr((pair.category_ids, pair.classes)))
    total = {split: len(each) for split, each in whole.items()}
    standard = total == NUM_IMAGES and pair.category_ids == CATEGORY_IDS
    return CocoData(
        name=name,
        train=splits["train"],
        val=splits["val"],
        all_train=whole["train"],
        classes=pair.classes,
        category_ids=pair.category_ids,
        fingerprint=digest.hexdigest(),
        standard=standard and len(pair.kept) == NUM_TRAIN_USED and whole["train"].masks,
        census=pair.census,
        counts=notes.counts,
        examples=notes.examples,
        passed_over=tuple(
            dict.fromkeys(line for each in looked.values() for line in unread_members(each.root))
        ),
    )


def note_shared(train: CocoSplit, val: CocoSplit, notes: Notes) -> None:
    """Note images that are in both files."""
    trained = set(paths(train))
    rows = zip(val.names, paths(val), strict=True)
    notes.add(SHARED + LITTLE, [name for name, path in rows if path in trained])


def paths(split: CocoSplit) -> Iterator[str]:
    """As `str(split.path(index))` of all images; a Path for each would take a second."""
    for name in split.names:
        plain = not (name[0] in "./" or "//" in name or "/." in name or name[-1] == "/")
        yield f"{split.root}/{name}" if plain else str(split.root / name)


def note_twins(train: CocoSplit, val: CocoSplit, sizes: list[np.ndarray], notes: Notes) -> None:
    """Note images that both splits have under other names, in a sample."""
    if any(what.startswith(SHARED) for what in notes.counts):
        return
    found = find_twins(train, val, *sizes)
    what = f"{SHARED} by their bytes, of {found.looked_at:,} looked at{LITTLE}"
    notes.add(what, [val.names[row] for row, _ in found.pairs])


def feed(digest: Fingerprint, split: CocoSplit) -> np.ndarray:
    """What identifies a split goes into a fingerprint; returns the sizes of its files."""
    sizes = digest.add_files(split.root, split.names)
    digest.add(split.image_ids, split.sizes, split.packed)
    return sizes
