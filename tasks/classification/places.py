"""Readers of Places205 and Places365-Standard: lists of images, a line "path label" for each.

    trainvalsplit_places205/{train,val}_places205.csv
    data/vision/torralba/deeplearning/images256/<letter>/<category>/*.jpg

    categories_places365.txt, places365_train_standard.txt, places365_val.txt
                                             in the data folder or in filelist_places365-standard/
    data_256_standard/<letter>/<category>/<8 digits>.jpg, or data_large_standard/...
    val_256/Places365_val_<8 digits>.jpg, or val_large/...

A class's index is the label in the lists. Places365's paths start with a slash, except those of
test images. The archives unpack to data_256/ and data_large/, which are read as well.
"""

from pathlib import Path

from tasks.classification.datasets import (
    PLACES205_IMAGES,
    PLACES205_LISTS,
    PLACES365_IMAGES,
    PLACES365_LISTS,
    DatasetFacts,
)
from tasks.classification.keeping import keep_lists
from tasks.classification.labelled import (
    LabelledImages,
    Lists,
    expected,
    find_file,
    refuse_missing,
    refuse_no_folder,
    refuse_outside,
    repeated,
)
from tasks.errors import TaskError
from tasks.images.files import shorten
from tasks.stores import read

SPLITS = ("train", "val")
MOST_BYTES = 2**30
"""of a list; the longest has 120 MB"""


def read_places205(facts: DatasetFacts, root: Path) -> LabelledImages:
    """Places205. A class is called by the folder of its first training image.

    Raises `TaskError` for lists that are missing or broken, or name images that are not there.
    """
    refuse_no_folder(facts, root)
    images = root / PLACES205_IMAGES
    if not images.is_dir():
        raise TaskError(f"data folder {root} has no {PLACES205_IMAGES}/; {expected(facts)}")
    files = {s: find_file(facts, root, f"{s}_places205.csv", PLACES205_LISTS) for s in SPLITS}

    def read() -> Lists:
        rows, notes = {}, []
        classes: list[str] = []
        for split, file in files.items():
            names, labels, found = read_list(file, len(classes) or facts.num_classes)
            if split == "train":
                classes = named_by_folder(names, labels)
            refuse_missing(file, images, names)
            rows[split] = (images, names, labels)
            notes += found
        return Lists(classes, rows, notes)

    return keep_lists(facts, root, list(files.values()), {}, read)


def read_places365(facts: DatasetFacts, root: Path) -> LabelledImages:
    """Places365-Standard, of 256-pixel images or of large ones. `TaskError` as above."""
    refuse_no_folder(facts, root)
    folders, notes = image_folders(facts, root)
    named = find_file(facts, root, "categories_places365.txt", PLACES365_LISTS)
    files = {
        split: find_file(facts, root, f"places365_{suffix}.txt", PLACES365_LISTS)
        for split, suffix in (("train", "train_standard"), ("val", "val"))
    }

    def read() -> Lists:
        classes, rows, found = read_categories(named, facts.num_classes), {}, [*notes]
        for split, file in files.items():
            names, labels, more = read_list(file, len(classes), slash=True)
            refuse_missing(file, folders[split], names)
            rows[split] = (folders[split], names, labels)
            found += more
        return Lists(classes, rows, found)

    identity = {"folders": {split: str(folder) for split, folder in folders.items()}}
    return keep_lists(facts, root, [named, *files.values()], identity | {"notes": notes}, read)


def image_folders(facts: DatasetFacts, root: Path) -> tuple[dict[str, Path], list[str]]:
    """Split -> folder of its images, and notes: large images for want of 256-pixel ones only."""
    complete = {}
    for version, options in PLACES365_IMAGES.items():
        found = [next((name for name in names if (root / name).is_dir()), "") for names in options]
        if all(found):
            train, val = found
            complete[version] = {"train": root / train, "val": root / val}
    if not complete:
        raise TaskError(f"data folder {root} has no images of both splits; {expected(facts)}")
    notes = []
    if "256" not in complete:
        notes.append("the images are the large ones, not those of 256 pixels")
    elif len(complete) > 1:
        notes.append("of the 256-pixel and the large images that are there, the former are read")
    return complete.get("256") or complete["large"], notes


def read_categories(path: Path, most: int) -> list[str]:
    """Class names by index, without the slash in front, from lines "/a/airfield 0"."""
    names, labels, _ = read_list(path, most, slash=True)
    if sorted(labels) != list(range(len(labels))):
        raise TaskError(
            f"{path} does not number its {len(labels)} categories from 0 to {len(labels) - 1}, "
            "each once; get it again"
        )
    return [name for _, name in sorted(zip(labels, names, strict=True))]


def named_by_folder(names: list[str], labels: list[int]) -> list[str]:
    """A name for each class: the folder of the first of its images."""
    folders: dict[int, str] = {}
    for name, label in zip(names, labels, strict=True):
        if label not in folders:
            folders[label] = name.rpartition("/")[0]
    return [folders.get(label, f"label {label}") for label in range(max(folders) + 1)]


def read_list(
    path: Path, num_classes: int, slash: bool = False
) -> tuple[list[str], list[int], list[str]]:
    """Paths and labels in a list, and notes.

    The label, below `num_classes`, is what follows the last blank: a path may have blanks in it.
    `slash`: paths may start with one. Empty lines do not count. Raises `TaskError` that names file
    and line for anything else.
    """
    try:
        text = read(path, MOST_BYTES).decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error.strerror}; check the file") from error
    lines = text.removesuffix("\n").split("\n")
    names: list[str] = []
    labels: list[int] = []
    numbers: list[int] = []
    for number, line in enumerate(lines, start=1):
        parts = line.rsplit(maxsplit=1)
        if not parts:
            continue
        name, label = parts if len(parts) == 2 else ("", "")
        if not (is_number(label) and int(label) < num_classes):
            raise TaskError(
                f"{path}, line {number}: {line.rstrip()!r:.80}; expected a path, a blank and a "
                f"label from 0 to {num_classes - 1}: correct the file"
            )
        names.append(name.removeprefix("/") if slash else name)
        labels.append(int(label))
        numbers.append(number)
    if not names:
        raise TaskError(f"{path} names no image; expected a line for each: get it again")
    refuse_outside(path, names, lambda row: f"line {numbers[row]}")

    def lines_of(name: str) -> str:
        found = [str(numbers[row]) for row, each in enumerate(names) if each == name]
        return f"lines {shorten(found)}"

    notes = repeated(path, names, labels, lines_of)
    windows = sum(line.endswith("\r") for line in lines)
    if windows:
        notes.append(f"{path.name} has {windows} lines that end as in Windows, by CR and LF")
    blank = [name for name in names if " " in name]
    if blank:
        notes.append(f"{path.name} names {len(blank)} images with blanks: {shorten(blank)}")
    if len(names) < len(lines):
        notes.append(f"{path.name} has {len(lines) - len(names)} empty lines")
    return names, labels, notes


def is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
