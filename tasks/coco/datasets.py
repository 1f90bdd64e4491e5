"""Facts about COCO 2017. Imports no torch."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """A file of the official release, at images.cocodataset.org."""

    name: str
    size: int
    """bytes"""
    md5: str
    holds: str
    """what it unpacks to, relative to the data folder"""

    @property
    def url(self) -> str:
        folder = "annotations" if self.name.startswith("annotations") else "zips"
        return f"http://images.cocodataset.org/{folder}/{self.name}"


ARCHIVES = {
    "train2017": Archive(
        "train2017.zip", 19_336_861_798, "cced6f7f71b7629ddf16f17bbcfab6b2", "train2017/*.jpg"
    ),
    "val2017": Archive(
        "val2017.zip", 815_585_330, "442b8da7639aecaf257c1dceb8ba8c80", "val2017/*.jpg"
    ),
    "annotations": Archive(
        "annotations_trainval2017.zip",
        252_907_541,
        "f4bbac642086de4f52a3fdda2de5fa2c",
        "annotations/instances_{train,val}2017.json",
    ),
}
"""folder below the data folder -> archive; sizes and md5 as several public downloaders pin them"""

SPLITS = ("train", "val")
NUM_IMAGES = {"train": 118_287, "val": 5_000}
"""cocodataset.org"""
NUM_ANNOTATIONS = {"train": 860_001, "val": 36_781}
"""in the instances files, crowds included"""
NUM_TRAIN_USED = 117_266
"""training images with an annotation that is no crowd; the 1,021 others are left out, as by
detectron2's filter_images_with_only_crowd_annotations (data/build.py)"""

NUM_CLASSES = 80
CATEGORY_IDS = tuple(
    number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
)
"""of the official files; ten ids were given up (detectron2, data/datasets/builtin_meta.py)"""

OFFICIAL_NAME = re.compile(r"(^|/)\d{12}\.jpg$")

LAYOUT = "train2017/*.jpg, val2017/*.jpg and annotations/instances_{train,val}2017.json"
OBTAIN = (
    "get "
    + ", ".join(archive.name for archive in ARCHIVES.values())
    + " from images.cocodataset.org and unpack all of them into one folder"
)
OWN = "for your own data give TRAIN.json,VAL.json"
"""the other form of the data flag"""
