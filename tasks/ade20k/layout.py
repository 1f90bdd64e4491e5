"""Reader of ADE20K's layout, and of one's own images and label images in the same one.

Official, the folder ADEChallengeData2016 or the one around it:

    images/{training,validation}/NAME.jpg, annotations/{training,validation}/NAME.png
    objectInfo150.txt                       (may be missing; then classes are called by number)

A label image holds a byte for each pixel: 0 is unlabelled, 1 to 150 are the classes.

Your own: the same folders, or images/{train,val} and annotations/{train,val}; images are .jpg or
.png, each label image is a .png of the same stem. Beside them lies classes.json:

    {"classes": ["road", "car"], "ignore_index": 255, "zero_is_unlabelled": false}

It names the classes in the order of their values, from 0 on, or from 1 on if `zero_is_unlabelled`;
pixels of the value `ignore_index` count nowhere. There may be 255 classes; only "classes" has to
be given, the others default to what is shown.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from tasks.ade20k.classes import ClassRule, has_own_classes, read_rule
from tasks.ade20k.datasets import (
    FOLDER,
    LAYOUT,
    NUM_CLASSES,
    NUM_IMAGES,
    OBTAIN,
    OWN,
    OWN_CLASSES,
    SPLIT_FOLDERS,
    SPLITS,
)
from tasks.errors import TaskError
from tasks.holding_out import divided_fingerprint, hold_out_images
from tasks.images.files import FileNames, shorten
from tasks.images.fingerprint import Fingerprint
from tasks.stores import listing, opened, title, with_archives

IMAGES, LABELS = "images", "annotations"
SUFFIXES = {IMAGES: ("jpg", "jpeg", "png"), LABELS: ("png",)}


@dataclass(frozen=True, eq=False)
class SegmentationSplit:
    """Images of one split with their label images, in the order of file names."""

    root: Path
    """the data folder"""
    names: FileNames
    """images, relative to `root`"""
    label_names: FileNames
    """label images, relative to `root`, in the same order; none: the images are not labelled"""
    upright: bool = True
    """whether images are turned by their EXIF tags where the label's size leaves it open"""

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> Path:
        return self.root / self.names[index]

    def label_path(self, index: int) -> Path:
        return self.root / self.label_names[index]

    def limited(self, limit: int | None) -> Self:
        """`limit` images at even distances; None: all."""
        if limit is None or limit >= len(self):
            return self
        return self.take(limited_rows(len(self), limit))

    def take(self, rows: np.ndarray) -> Self:
        """The images at `rows`."""
        names, label_names = self.names.take(rows), self.label_names.take(rows)
        return replace(self, names=names, label_names=label_names)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and a model's averaged copy must not double it


@dataclass(frozen=True, eq=False)
class SegmentationData:
    """A data set on disk."""

    name: str
    """ade20k, or with a classes.json of one's own the name of the folder"""
    train: SegmentationSplit
    val: SegmentationSplit
    rule: ClassRule
    """which values of a label image stand for which class"""
    fingerprint: str
    """over classes, names and sizes of all files, and contents of a sample of them"""
    official: bool
    """whether the labels follow ADE20K's rule, there being no classes.json"""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by class index."""
        return self.rule.classes

    @property
    def ignore_index(self) -> int:
        """The value of pixels that count nowhere, in the files; read, they are 255."""
        return self.rule.ignore_index

    @property
    def zero_is_unlabelled(self) -> bool:
        """Whether 0 counts nowhere either, in the files, and the classes begin at 1."""
        return self.rule.zero_is_unlabelled

    @property
    def own(self) -> bool:
        """Whether the classes are the user's, be they 150 or not."""
        return not self.official

    @property
    def standard(self) -> bool:
        """Whether classes and images are as many as in the official release."""
        counts = {"train": len(self.train), "val": len(self.val)}
        return self.official and len(self.classes) == NUM_CLASSES and counts == NUM_IMAGES

    def limited(self, limit: int | None) -> Self:
        """`limit` images of each split; the fingerprint stays that of the whole."""
        return replace(self, train=self.train.limited(limit), val=self.val.limited(limit))

    def divided(self, share: float, seed: int) -> Self:
        """The training images alone: `share` of them in place of the test images."""
        held = hold_out_images(len(self.train), share, seed)
        return replace(
            self,
            train=self.train.take(np.flatnonzero(~held)),
            val=self.train.take(np.flatnonzero(held)),
            fingerprint=divided_fingerprint(self.fingerprint, len(held), share, seed),
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # never changes, and a model's averaged copy must not double it


def read(source: str | Path) -> SegmentationData:
    """Read a folder in one of the layouts above.

    Raises TaskError for a folder that is missing or empty, a broken list of classes, and images
    without label image or label images without image.
    """
    with with_archives(source):
        return read_folder(locate(source))


def read_folder(root: Path) -> SegmentationData:
    """`read` of a data folder that is known."""
    rule = read_rule(root)
    fingerprint = Fingerprint()
    fingerprint.add(repr(rule))
    splits = {}
    for split in SPLITS:
        splits[split] = read_split(root, split)
        for names in (splits[split].names, splits[split].label_names):
            fingerprint.add_files(root, names)
    official = not has_own_classes(root)
    name = "ade20k" if official else title(root)
    return SegmentationData(
        name, **splits, rule=rule, fingerprint=fingerprint.hexdigest(), official=official
    )


def limited_rows(count: int, limit: int) -> np.ndarray:
    """`limit` of `count` rows at even distances; all if they are fewer."""
    if limit < 1:
        raise TaskError(f"limit is {limit}; expected at least 1 image")
    limit = min(limit, count)
    return np.arange(limit) * count // limit


def locate(source: str | Path) -> Path:
    """The data folder: `source`, or ADEChallengeData2016 in it."""
    root = opened(source)
    if not root.is_dir():
        reason = "is a file" if root.exists() else "does not exist"
        raise TaskError(f"data folder {root} {reason}; expected {LAYOUT}: {OBTAIN}; {OWN}")
    below = root / FOLDER
    return below if below.is_dir() and not (root / IMAGES).exists() else root


def read_split(root: Path, split: str) -> SegmentationSplit:
    """One split; every image has its label image and the other way round."""
    images, labels = (listed(root, kind, split) for kind in (IMAGES, LABELS))
    unlabelled = sorted(name for stem, name in images.items() if stem not in labels)
    if unlabelled:
        raise TaskError(
            f"{root}: {len(unlabelled)} of {len(images)} {split} images have no label image "
            f"({shorten(unlabelled, 3)}); expected {LABELS}/.../NAME.png for each: add the labels "
            "or remove the images"
        )
    extra = sorted(name for stem, name in labels.items() if stem not in images)
    if extra:
        raise TaskError(
            f"{root}: {len(extra)} of {len(labels)} {split} label images have no image "
            f"({shorten(extra, 3)}); expected {IMAGES}/.../NAME.jpg or .png for each: add the "
            "images or remove the labels"
        )
    stems = sorted(images)
    names, label_names = ([files[stem] for stem in stems] for files in (images, labels))
    return SegmentationSplit(root, FileNames(names), FileNames(label_names))


def listed(root: Path, kind: str, split: str) -> dict[str, str]:
    """Stem -> path relative to `root` of the files of a split; one listing, no look at each."""
    folder = split_folder(root, kind, split)
    files: dict[str, str] = {}
    names = [entry.name for entry in listing(root / folder) if not entry.name.startswith(".")]
    for name in names:
        stem, _, suffix = name.rpartition(".")
        if not stem or suffix.lower() not in SUFFIXES[kind]:
            continue
        if stem in files:
            raise TaskError(
                f"{root / folder} has both {Path(files[stem]).name} and {name}; expected one file"
                " for each stem: remove or rename one"
            )
        files[stem] = f"{folder}/{name}"
    if not files:
        suffixes = " or ".join(f".{suffix}" for suffix in SUFFIXES[kind])
        raise TaskError(
            f"{root / folder} holds no {suffixes} file; expected {expected(root)} (and no folders"
            " below these)"
        )
    return files


def passed_over(root: Path) -> list[str]:
    """What lies in the folders of all splits and is not taken, relative to `root`, sorted."""
    found = []
    for split in SPLITS:
        for kind in (IMAGES, LABELS):
            folder = split_folder(root, kind, split)
            for file in (root / folder).iterdir():
                stem, _, suffix = file.name.rpartition(".")
                if file.name.startswith(".") or not stem or suffix.lower() not in SUFFIXES[kind]:
                    found.append(f"{folder}/{file.name}")
    return sorted(found)


def split_folder(root: Path, kind: str, split: str) -> str:
    """The folder of a split, relative to `root`."""
    options = [f"{kind}/{name}" for name in SPLIT_FOLDERS[split]]
    found = [folder for folder in options if (root / folder).is_dir()]
    if not found:
        raise TaskError(
            f"data folder {root} has no {' or '.join(options)}; expected {expected(root)}"
        )
    if len(found) > 1:
        raise TaskError(f"data folder {root} has both {' and '.join(found)}; keep one of them")
    return found[0]


def expected(root: Path) -> str:
    """The layout, and for the official data how to get them."""
    if (root / OWN_CLASSES).exists():
        return f"{LAYOUT}, or train and val for these names"
    return f"{LAYOUT}: {OBTAIN}; {OWN}"
