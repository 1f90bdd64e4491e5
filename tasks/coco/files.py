"""Where a COCO data set lies: annotation files and image folders."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.coco.datasets import LAYOUT, OBTAIN, OWN, SPLITS
from tasks.coco.notes import Notes
from tasks.columns import first
from tasks.errors import TaskError
from tasks.images.files import entries, missing
from tasks.stores import SUFFIXES, StoredPath, opened

ROBOFLOW = "_annotations.coco.json"
"""lies among the images of each split"""
ROBOFLOW_TEST = ("valid", "val", "test")
"""folders of the test split, the first that is there"""
NAMED = 6
"""files that a message lists"""


@dataclass(frozen=True)
class Place:
    """Where one split lies."""

    json_file: Path
    root: Path | None
    """folder of the images; None: to be found from the first file name in `json_file`"""
    name: str
    """of the data set"""


def locate(source: str | Path) -> dict[str, Place]:
    """Split -> place, for a folder in the official layout or for "TRAIN.json,VAL.json".

    A folder may also be laid out by Roboflow. Raises TaskError if there is no such folder or file.
    """
    given = str(source)
    folder = opened(given)
    if folder.is_dir():
        return roboflow(folder) or {split: official_place(folder, split) for split in SPLITS}
    if "," not in given:
        reason = "is one file" if folder.exists() else "does not exist"
        raise TaskError(f"{given} {reason}; expected a folder with {LAYOUT}: {OBTAIN}, or {OWN}")
    files = pair_of_files(given)
    for file in files:
        if not file.is_file():
            reason = "is a folder" if file.is_dir() else "does not exist"
            if file.exists() and not file.is_dir():
                reason = "is no regular file"
            raise TaskError(f"{file} {reason}; expected an annotation file: check {given!r}")
    name = files[0].stem
    if files[0].name == ROBOFLOW:  # as its folder is called, if that is given
        name = files[0].resolve().parent.parent.name
    return {split: Place(file, None, name) for split, file in zip(SPLITS, files, strict=True)}


def pair_of_files(given: str) -> tuple[Path, Path]:
    """The two files that "TRAIN.json,VAL.json" names; a comma may be part of a path.

    It is parted at the comma that leaves a file that is there on both sides, or the only one.
    """
    parts = given.split(",")
    pairs = [
        (
            Path(",".join(parts[:at]).strip()).expanduser(),
            Path(",".join(parts[at:]).strip()).expanduser(),
        )
        for at in range(1, len(parts))
    ]
    there = [pair for pair in pairs if all(file.is_file() for file in pair)]
    if len(there) > 1:
        raise TaskError(f"{given!r} can be parted into two files in several ways; rename one")
    if there or len(pairs) == 1:
        train, val = (there or pairs)[0]
        if all(part.strip() for part in parts):
            return train, val
    raise TaskError(
        f"{given!r} names {len(parts)} files, and no comma in it parts two that are there; "
        "expected TRAIN.json,VAL.json"
    )


def roboflow(folder: Path) -> dict[str, Place] | None:
    """The splits of a folder as Roboflow exports it; None if it is none."""
    tests = [name for name in ROBOFLOW_TEST if (folder / name / ROBOFLOW).is_file()]
    if not (folder / "train" / ROBOFLOW).is_file() or not tests:
        return None
    pairs = zip(SPLITS, ("train", tests[0]), strict=True)
    name = folder.resolve().name
    return {split: Place(folder / own / ROBOFLOW, folder / own, name) for split, own in pairs}


def official_place(folder: Path, split: str) -> Place:
    """A split below a folder in the official layout."""
    file, root = folder / f"annotations/instances_{split}2017.json", folder / f"{split}2017"
    for path in (file, root):
        if not path.exists():
            found = json_files(folder)
            own = f"; it holds {', '.join(found)}: {OWN}" if found else ""
            name = path.relative_to(folder)
            raise TaskError(f"{folder} has no {name}; expected {LAYOUT}: {OBTAIN}{own}")
    return Place(file, root, "coco2017")


def json_files(folder: Path) -> list[str]:
    """A few annotation files in a folder or just below it."""
    below = sorted(entries(folder))
    names = [name for name in below if name.endswith(".json")]
    for name in below[:100]:
        inside = sorted(entries(folder / name))
        names += [f"{name}/{each}" for each in inside if each.endswith(".json")][:NAMED]
    return names[:NAMED]


def image_folder(json_file: Path, first_name: str, split: str, notes: Notes) -> Path:
    """The folder near an annotation file that holds its first image.

    The first of: the json's folder, its NAME/ and images/, ../NAME, ../images/NAME, ../images, ..
    (NAME is the json's without .json and instances_). Notes it where there are others, unless
    the name is a full path. If none has it, archives in their places are looked into: official
    ones, and those called like one of these folders. Raises TaskError that lists them.
    """
    here = json_file.parent.resolve()  # or a relative path would have no parent's parent
    above = here.parent
    stem = json_file.stem.removeprefix("instances_")
    folders = [here, here / stem, here / "images", above / stem, above / "images" / stem]
    folders += [above / "images", above]
    if Path(first_name).is_absolute():  # in whichever folder one looks, it is the same file
        folders = [here]
    there = list(dict.fromkeys(each for each in folders if (each / first_name).exists()))
    if there:
        what = f"{split} folders that hold its first image, {first_name} (assumed: the first)"
        notes.add(what, [str(each) for each in there] if there[1:] else [])
        return there[0]
    for each in [] if Path(first_name).is_absolute() else archived(folders):
        if (each / first_name).exists():
            return each
    looked = ", ".join(str(folder) for folder in folders)
    hints = [hint for folder in folders for hint in case_hints(folder, [first_name])]
    raise TaskError(
        f"{json_file}: its first image {first_name} is in none of {looked}"
        f"{hints[0] if hints else ''}; move the images into one of them"
    )


def archived(folders: Sequence[Path]) -> Iterator[Path]:
    """The same folders, as archives in or in place of them unpack, and the archives' own folders.

    An archive called images.zip may hold the files themselves, or a folder images/ with them.
    """
    for folder in folders:
        if folder.is_dir():
            yield opened(folder)
            continue
        for suffix in SUFFIXES:
            archive = folder.with_name(folder.name + suffix)
            if archive.is_file():
                yield opened(archive)
                yield StoredPath(archive)


def refuse_missing(root: Path, json_file: Path, names: Sequence[str]) -> None:
    """Raise TaskError if images are not there."""
    absent = missing(root, names)
    if absent:
        hint = "".join(case_hints(root, absent)[:1])
        raise TaskError(
            f"{root}: {len(absent)} of {len(names)} images named in {json_file} are "
            f"missing ({first(absent)}){hint}; unpack or copy the rest"
        )


def case_hints(root: Path, absent: Sequence[str], most: int = 100) -> list[str]:
    """What to say of files that are there in other case of letters, or with another suffix."""
    hints = []
    for name in absent[:most]:
        folder, _, file = name.rpartition("/")
        others = entries(root / folder)
        alike = [other for other in others if other.lower() == file.lower()]
        if alike:
            hints.append(f", but there is {alike[0]}: upper and lower case differ")
            continue
        stem = file.rpartition(".")[0]
        same = [other for other in others if stem and other.rpartition(".")[0] == stem]
        if same:
            hints.append(f", but there is {same[0]}: the suffix differs")
    return hints
