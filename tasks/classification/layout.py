"""From a data folder to file names and class indices: which reader reads which data set."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tasks.classification.class_folders import read_class_folders, read_own_folders
from tasks.classification.datasets import DATASETS, DatasetFacts
from tasks.classification.inaturalist import read_inaturalist
from tasks.classification.labelled import LabelledImages, Split
from tasks.classification.places import read_places205, read_places365
from tasks.classification.robustness_sets import RobustnessImages, read_robustness
from tasks.stores import unread_members, with_archives

__all__ = ["LabelledImages", "RobustnessImages", "Split", "read", "read_robustness"]

READERS: dict[str, Callable[[DatasetFacts, Path], LabelledImages]] = {
    "imagenet1k": read_class_folders,
    "inat2017": read_inaturalist,
    "inat2018": read_inaturalist,
    "inat2019": read_inaturalist,
    "places205": read_places205,
    "places365": read_places365,
    "folder": read_own_folders,
}


def read(task: str, root: Path) -> LabelledImages:
    """The data of a classification task from its folder; `TaskError` if it is not as expected."""
    with with_archives(root) as folder:
        found = READERS[task](DATASETS[task], folder)
        return replace(found, notes=(*found.notes, *unread_members(folder)))
