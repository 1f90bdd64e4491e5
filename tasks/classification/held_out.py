"""Test images that lie in the folders of the training images: a list alone tells which they are."""

from collections.abc import Sequence
from pathlib import Path

from tasks.classification.datasets import (
    DATASETS,
    PLACES205_IMAGES,
    PLACES205_LISTS,
    DatasetFacts,
)
from tasks.classification.inaturalist import read_split
from tasks.classification.places import read_list
from tasks.errors import TaskError

YEARS = (2017, 2018, 2019)


def held_out(root: Path) -> dict[str, list[Path]]:
    """Words -> test images of iNaturalist and Places205, if `root` holds one of them.

    Raises `TaskError` without the list.
    """
    found = {}
    for year in YEARS:
        facts = DATASETS[f"inat{year}"]
        images = facts.archives[0].holds[0][0]
        if (root / images).is_dir():
            file = listed(facts, root, images, f"val{year}.json", ("", f"train_val{year}"))
            found[words(facts, file)] = [root / name for name in read_split(file)[0]]
    if (root / PLACES205_IMAGES).is_dir():
        facts = DATASETS["places205"]
        file = listed(facts, root, PLACES205_IMAGES, "val_places205.csv", PLACES205_LISTS)
        names, _, _ = read_list(file, facts.num_classes)
        found[words(facts, file)] = [root / PLACES205_IMAGES / name for name in names]
    return found


def words(facts: DatasetFacts, file: Path) -> str:
    return f"test images of {facts.title}, by {file.name}"


def listed(facts: DatasetFacts, root: Path, images: str, name: str, folders: Sequence[str]) -> Path:
    """The list of test images in one of `folders` below `root`."""
    for folder in folders:
        if (root / folder / name).is_file():
            return root / folder / name
    raise TaskError(
        f"{root / images} holds training and test images of {facts.title}, and no {name} in {root} "
        "tells which; put it there, or give a folder of training images alone"
    )
