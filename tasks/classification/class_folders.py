"""Reader of ImageNet's layout: root/{train,val}/<class>/*, a class's index is its rank by name.

Also as Kaggle packs it, in ILSVRC/Data/CLS-LOC, with the images of val/ in no folders.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.classification.datasets import KAGGLE, WNID, DatasetFacts
from tasks.classification.flat_val import flat_labels, how_to_sort
from tasks.classification.keeping import keep_splits
from tasks.classification.labelled import (
    LabelledImages,
    Split,
    expected,
    identify,
    refuse_no_folder,
    refuse_one_class,
    untested,
)
from tasks.classification.one_folder import LEARN, TEST, called_as, is_one_folder, split_folder
from tasks.errors import TaskError
from tasks.images.files import FileNames, shorten
from tasks.images.fingerprint import Fingerprint
from tasks.images.turned import turned_note
from tasks.images.twins import find_twins
from tasks.images.walk import OWN_SUFFIXES, SUFFIXES, in_folder, is_image_name, listing, walk
from tasks.stores import title


def read_class_folders(facts: DatasetFacts, root: Path, own: bool = False) -> LabelledImages:
    """The data set in a folder.

    `own`: the user's own images, of more formats, which their EXIF tags turn. Raises `TaskError`
    for a folder that is missing, empty or unsorted, has one class, or a class that training lacks.
    """
    refuse_no_folder(facts, root)
    if not (root / "train").is_dir() and (root / KAGGLE / "train").is_dir():
        root = root / KAGGLE
    for split in ("train", "val"):
        if not (root / split).is_dir():
            hint = other_name(root, split)
            raise TaskError(f"data folder {root} has no {split}/; {expected(facts)}{hint}")
    suffixes = OWN_SUFFIXES if own else SUFFIXES
    classes = class_folders(facts, root, "train", suffixes)
    train, notes, deep_notes = read_split(root, "train", classes, suffixes)
    notes += [f"{split}/: {note}" for split in ("train", "val") for note in hidden(root / split)]
    refuse_empty(root, classes, train, notes)
    if len(classes) == 1:
        refuse_one_class(root / "train", classes, inner_folders(root, classes))
    flat = read_flat(facts, root, classes)
    if flat is None:
        refuse_unknown(root, classes, class_folders(facts, root, "val", suffixes))
        val, found, _ = read_split(root, "val", classes, suffixes)
    else:
        val, found = flat
    train, val = (replace(split, upright=own) for split in (train, val))
    fingerprint = Fingerprint()
    fingerprint.add(*classes)
    sizes = [identify(fingerprint, split) for split in (train, val)]
    notes += [*found, *alike(classes), *deep_notes, *untested(classes, val)]
    notes += find_twins(train, val, *sizes).line(train, val)
    if own:
        notes += other_splits(root)
        paths = [f"{root}/{name}" for split in (train, val) for name in split.names]
        notes += turned_note(paths, upright=True)
    return LabelledImages(facts, tuple(classes), train, val, fingerprint.hexdigest(), tuple(notes))


def read_own_folders(facts: DatasetFacts, root: Path) -> LabelledImages:
    """The same for one's own data, which are called as their folder is; one folder is split."""
    facts = replace(facts, name=title(root) or facts.name)
    folders, loose = visible(root, OWN_SUFFIXES) if root.is_dir() else ([], [])
    if not is_one_folder(folders):
        return read_class_folders(facts, root, own=True)
    names, counts, notes, _ = images_of(root, folders, OWN_SUFFIXES)
    notes += hidden(root) + alike(folders)
    if loose:
        notes.append(f"{len(loose)} images outside class folders are left out: {shorten(loose)}")
    return split_folder(facts, root, folders, names, counts, notes)


def class_folders(
    facts: DatasetFacts, root: Path, split: str, suffixes: frozenset[str] = SUFFIXES
) -> list[str]:
    """Sorted names of the folders in a split; hidden ones do not count."""
    folders, loose = visible(root / split, suffixes)
    if loose:
        raise TaskError(
            f"{root / split} holds {len(loose)} images outside class folders: "
            f"{shorten(loose, most=2)}; sort them into {split}/<class>/"
            + (how_to_sort(root) if split == "val" else "")
        )
    if not folders:
        raise TaskError(f"{root / split} has no class folders; {expected(facts)}")
    return folders


def visible(folder: Path, suffixes: frozenset[str] = SUFFIXES) -> tuple[list[str], list[str]]:
    """Sorted names of the folders, and of the images, that lie in a folder; no hidden ones."""
    found = list(in_folder(folder))
    images = [name for name, below in found if not below and is_image_name(name, suffixes)]
    return [name for name, below in found if below], images


def named_by_wnids(folder: Path) -> bool:
    """Whether a folder holds ImageNet's class folders, and no other."""
    names = [name for name, below in in_folder(folder) if below] if folder.is_dir() else []
    return bool(names) and all(WNID.fullmatch(name) for name in names)


def hidden(folder: Path) -> list[str]:
    """A note about hidden folders in a folder of classes, which are none."""
    names = [each.name for each in listing(str(folder)) if each.is_folder]
    found = [name for name in names if name.startswith(".")]
    return [f"hidden folders passed over: {shorten(found)}"] if found else []


class ReadSplit(NamedTuple):
    """The images of a split."""

    split: Split
    notes: list[str]
    deep: list[str]
    """a note about classes that hold folders, see `deep`"""


def read_split(
    root: Path, split: str, classes: Sequence[str], suffixes: frozenset[str]
) -> ReadSplit:
    """The images of a split; a long list of them is kept for the next process."""
    there = [
        index
        for index, name in enumerate(classes)
        if split == "train" or (root / split / name).is_dir()  # else a class without test images
    ]
    folders = [f"{split}/{classes[index]}" for index in there]

    def read() -> tuple[dict[str, Split], list[str], dict[str, Any]]:
        found = images_of(root, folders, suffixes)
        targets = np.repeat(np.array(there, dtype=np.int64), found.counts)
        images = Split(root, FileNames(found.names), targets)
        notes = {"notes": found.notes, "deep": deep(classes, images) if split == "train" else []}
        return {split: images}, found.entered, notes

    identity = {"folders": folders, "suffixes": sorted(suffixes)}
    source = str((root / split).absolute())
    splits, notes = keep_splits(source, root, identity, [], read)
    found = [f"{split}/: {note}" for note in notes["notes"]]
    return ReadSplit(splits[split], found, notes["deep"])


class FoundImages(NamedTuple):
    """Images in class folders."""

    names: list[str]
    """relative to the data folder"""
    counts: list[int]
    """in each class folder"""
    notes: list[str]
    entered: list[str]
    """folders that were looked into"""


def images_of(root: Path, folders: Sequence[str], suffixes: frozenset[str]) -> FoundImages:
    """The images in class folders below `root`.

    Raises TaskError for a folder that belongs to two classes.
    """
    starts = [f"{root}/{folder}" for folder in folders]
    found = walk(starts, suffixes)
    for second, first in found.twice:
        owners = [
            next(s for s in starts if f"{way}/".startswith(f"{s}/")) for way in (second, first)
        ]
        if owners[0] != owners[1]:
            raise TaskError(
                f"{second} is the same folder as {first}: its images would belong to two classes; "
                "remove the link"
            )
    names = [
        f"{folder}/{name}" for folder, of in zip(folders, found.names, strict=True) for name in of
    ]
    return FoundImages(names, [len(of) for of in found.names], found.notes(), found.entered)


def read_flat(
    facts: DatasetFacts, root: Path, classes: Sequence[str]
) -> tuple[Split, list[str]] | None:
    """The images of a val/ without folders by the official lists; None if it has folders, or
    there is no list."""
    folders, loose = visible(root / "val")
    if folders or not loose or facts.name != "imagenet1k":
        return None
    labels = flat_labels(root)
    if labels is None:
        return None
    source, wnid_of = labels
    index_of = {wnid: index for index, wnid in enumerate(classes)}
    rows = []
    for name in loose:
        wnid = wnid_of.get(name.rpartition(".")[0])
        if wnid not in index_of:
            what = "is not listed" if wnid is None else f"has the class {wnid}, which train/ lacks"
            raise TaskError(f"{source}: {root / 'val' / name} {what}; get the list again")
        rows.append((index_of[wnid], f"val/{name}"))
    absent = wnid_of.keys() - {name.rpartition(".")[0] for name in loose}
    if absent:
        raise TaskError(
            f"{len(absent)} of {len(wnid_of)} images named in {source} are not in {root / 'val'}: "
            f"{shorten(sorted(absent))}; unpack the rest"
        )
    rows.sort()
    targets = np.array([label for label, _ in rows], dtype=np.int64)
    split = Split(root, FileNames([name for _, name in rows]), targets)
    return split, [f"val/ has no class folders: its labels come from {source}"]


def other_splits(root: Path) -> list[str]:
    """A note about folders beside train/ and val/, of which nothing is read."""
    others = [name for name in visible(root)[0] if name not in ("train", "val")]
    if not others:
        return []
    return [f"folders beside train/ and val/ are passed over: {shorten(others)}"]


def other_name(root: Path, split: str) -> str:
    """A hint at the folders that may be a split under another name."""
    folders = [name for name, below in in_folder(root) if below]
    found = called_as(folders, LEARN if split == "train" else TEST)
    return f"; if {split}/ is called {' or '.join(found)} here, rename that" if found else ""


def refuse_empty(root: Path, classes: Sequence[str], train: Split, notes: Sequence[str]) -> None:
    counts = np.bincount(train.targets, minlength=len(classes))
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise TaskError(
            f"{root / 'train'}: {len(empty)} of {len(classes)} class folders hold no image: "
            f"{shorten(empty)}; add images, or remove the folders"
            + "".join(f" ({note})" for note in notes)
        )


def inner_folders(root: Path, classes: Sequence[str]) -> str:
    """A hint at folders inside the first class folder, which may be the classes meant."""
    inner, _ = visible(root / "train" / classes[0])
    return f"; it holds the folders {shorten(inner)}: give these as train/<class>/" if inner else ""


def refuse_unknown(root: Path, classes: Sequence[str], tested: Sequence[str]) -> None:
    unknown = sorted(set(tested) - set(classes))
    if not unknown:
        return
    known = {folded(name): name for name in classes}
    near = [f"{name!r} is {known[folded(name)]!r}" for name in unknown if folded(name) in known]
    hint = (
        f"; but for case, blanks or the encoding of accents {shorten(near)} there" if near else ""
    )
    raise TaskError(
        f"{root / 'val'} has classes that {root / 'train'} lacks: {shorten(unknown)}; expected the "
        f"same class folders in both{hint}"
    )


def folded(name: str) -> str:
    """A name without what writing systems and file systems change."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def alike(classes: Sequence[str]) -> list[str]:
    """A note about class folders whose names differ in next to nothing."""
    seen: dict[str, str] = {}
    pairs = []
    for name in classes:
        other = seen.setdefault(folded(name), name)
        if other != name:
            pairs.append(f"{other!r} and {name!r}")
    what = "class folders that differ only in case, blanks or the encoding of accents"
    return [f"{what}: {shorten(pairs)}; they count as different classes"] if pairs else []


def deep(classes: Sequence[str], train: Split) -> list[str]:
    """A note about the classes without images of their own, but with several folders of them."""
    inner: dict[int, set[str]] = {}
    for name, label in zip(train.names, train.targets.tolist(), strict=True):
        inner.setdefault(label, set()).add(name.split("/", 2)[2].rpartition("/")[0].split("/")[0])
    found = [
        f"{classes[label]} (with {shorten(sorted(folders), most=3)})"
        for label, folders in inner.items()
        if len(folders) > 1 and "" not in folders
    ]
    if not found:
        return []
    return [
        f"{len(found)} of {len(classes)} classes hold folders instead of images, which count as "
        f"one class each: {shorten(found, most=2)}"
    ]
