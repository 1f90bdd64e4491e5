"""A test folder of one's own alone, for a classifier that is trained already."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tasks.check import Check, Finding, Progress, images
from tasks.classification.class_folders import read_split, visible
from tasks.classification.datasets import FOLDER
from tasks.classification.labelled import LabelledImages, Split, identify, untested
from tasks.errors import TaskError
from tasks.images import FileNames, decode
from tasks.images.files import shorten
from tasks.images.fingerprint import Fingerprint
from tasks.images.turned import turned_note
from tasks.images.walk import OWN_SUFFIXES
from tasks.stores import opened


def locate(source: str | Path) -> Path | None:
    """The folder of class folders, as it is or as val/; None where there is train/ too."""
    root = opened(source)
    if (root / "train").is_dir() or not root.is_dir():
        return None
    return root / "val" if (root / "val").is_dir() else root


def read_alone(folder: Path, learnt: Sequence[str]) -> LabelledImages:
    """The images in the class folders; there are no training images.

    TaskError for a folder of a class that was not learnt, and for images outside class folders.
    """
    folders, loose = visible(folder, OWN_SUFFIXES)
    if loose or not folders:
        what = f"{len(loose)} images outside class folders" if loose else "no class folders"
        raise TaskError(
            f"{folder} holds {what}; expected folders of the {len(learnt)} classes that were "
            f"learnt: {shorten(learnt)}"
        )
    unknown = sorted(set(folders) - set(learnt))
    if unknown:
        raise TaskError(
            f"{folder} has classes that were not learnt: {shorten(unknown)}; expected some of "
            f"{shorten(learnt)}"
        )
    place = folder.resolve()
    val, notes, _ = read_split(place.parent, place.name, learnt, OWN_SUFFIXES)
    if not len(val):
        raise TaskError(f"{folder}: its class folders hold no image; expected some")
    val = replace(val, upright=True)
    fingerprint = Fingerprint()
    fingerprint.add(*learnt)
    identify(fingerprint, val)
    notes += untested(learnt, val)
    notes += turned_note([f"{val.root}/{name}" for name in val.names], upright=True)
    none = replace(val, names=FileNames([]), targets=np.zeros(0, np.int64))
    facts = replace(FOLDER, name=place.name)
    digest = fingerprint.hexdigest()
    return LabelledImages(facts, tuple(learnt), none, val, digest, tuple(notes))


def images_alone(root: Path, names: Sequence[str], classes: Sequence[str]) -> LabelledImages:
    """Images without labels; their targets are -1."""
    targets = np.full(len(names), -1, np.int64)
    val = Split(root, FileNames(list(names)), targets, upright=True)
    none = replace(val, names=FileNames([]), targets=np.zeros(0, np.int64))
    facts = replace(FOLDER, name=root.name)
    return LabelledImages(facts, tuple(classes), none, val, "")


def check(
    folder: Path, learnt: Sequence[str], on_progress: Progress | None, max_bad_images: int
) -> Check:
    """What there is to say of them."""
    try:
        data = read_alone(folder, learnt)
    except TaskError as error:
        return Check((Finding("problem", str(error)),), None)

    def look(split: Split, row: int) -> None:
        decode(split.path(row), upright=True)

    findings = [Finding("note", line) for line in data.notes]
    findings += images({"test": data.val}, look, on_progress, max_bad_images=max_bad_images)
    return Check(tuple(findings), data)
