"""Where a COCO data set lies: annotation files and image folders."""

from dataclasses import dataclass
from pathlib import Path

from tasks import TaskError
from tasks.coco.datasets import LAYOUT, OBTAIN, OWN, SPLITS


@dataclass(frozen=True)
class Place:
    """Where one split lies."""

    json_file: Path
    root: Path | None
    """folder of the images; None: to be found from the first file name in `json_file`"""


def locate(source: str | Path) -> dict[str, Place]:
    """Split -> place, for a folder in the official layout or for "TRAIN.json,VAL.json".

    Raises TaskError if there is no such folder or file.
    """
    given = str(source)
    folder = Path(given).expanduser()
    if folder.is_dir():
        return {split: official_place(folder, split) for split in SPLITS}
    files = [Path(name.strip()).expanduser() for name in given.split(",")]
    if len(files) == 1:
        reason = "is one file" if folder.exists() else "does not exist"
        raise TaskError(f"{given} {reason}; expected a folder with {LAYOUT}: {OBTAIN}, or {OWN}")
    if len(files) != len(SPLITS) or not all(file.name for file in files):
        raise TaskError(f"{given!r} names {len(files)} files; expected TRAIN.json,VAL.json")
    for file in files:
        if not file.is_file():
            reason = "is a folder" if file.is_dir() else "does not exist"
            raise TaskError(f"{file} {reason}; expected an annotation file: check {given!r}")
    return {split: Place(file, None) for split, file in zip(SPLITS, files, strict=True)}


def official_place(folder: Path, split: str) -> Place:
    """A split below a folder in the official layout."""
    place = Place(folder / f"annotations/instances_{split}2017.json", folder / f"{split}2017")
    for path in (place.json_file, place.root):
        if path is None or not path.exists():
            name = path.relative_to(folder) if path else split
            raise TaskError(f"{folder} has no {name}; expected {LAYOUT}: {OBTAIN}")
    return place


def image_folder(json_file: Path, first_name: str) -> Path:
    """The folder next to an annotation file that holds its first image.

    Raises TaskError that lists where it looked.
    """
    here = json_file.parent.resolve()  # or a relative path would have no parent's parent
    above = here.parent
    stem = json_file.stem.removeprefix("instances_")
    folders = [here, here / "images", above / stem, above / "images" / stem, above / "images"]
    for folder in folders:
        if (folder / first_name).is_file():
            return folder
    looked = ", ".join(str(folder) for folder in folders)
    raise TaskError(
        f"{json_file}: its first image {first_name} is in none of {looked}; move the images into "
        "one of them"
    )
