"""Facts about the classification data sets. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetFacts:
    """What the official release of a data set holds and how it lies on disk."""

    name: str
    """the task's name on the command line"""
    title: str
    num_classes: int
    num_train: int
    """images"""
    num_val: int
    """images"""
    layout: str
    """the files expected below the data folder, in one line"""
    obtain: str
    """where to get it, in one line"""


IMAGENET_1K = DatasetFacts(
    name="imagenet1k",
    title="ImageNet-1K (ILSVRC 2012)",
    num_classes=1000,
    num_train=1_281_167,
    num_val=50_000,
    layout="train/<wnid>/*.JPEG and val/<wnid>/*.JPEG",
    obtain=(
        "get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from image-net.org (free account)"
        " and sort both into one folder per class"
    ),
)
"""Counts, layout and the two archives: torchvision datasets/imagenet.py.

md5 of the archives: train 1d675b47d978889d74fa0da5fadfb00e, val
29b22e2961454d5413ddabcf34fc5622.
"""

DATASETS = {facts.name: facts for facts in (IMAGENET_1K,)}
"""task name -> data set"""
