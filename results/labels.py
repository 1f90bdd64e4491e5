"""How tables call metrics, data sets and protocols."""

import re

METRICS = {
    "top1": ("top-1", "%"),
    "miou": ("mIoU", "%"),
    "ap_box": ("box AP", ""),
    "ap_mask": ("mask AP", ""),
    "mce": ("mCE", "%"),
}
"""Scores with title and unit. A table shows these; where runs have none of them, all they have."""

LOWER_IS_BETTER = {"mce", "loss"}

DATA_TITLES = {
    "imagenet1k": "ImageNet-1k",
    "inat2017": "iNaturalist 2017",
    "inat2018": "iNaturalist 2018",
    "inat2019": "iNaturalist 2019",
    "places205": "Places205",
    "places365": "Places365",
    "coco": "COCO",
    "ade20k": "ADE20K",
    "imagenet_a": "ImageNet-A",
    "imagenet_c": "ImageNet-C",
    "imagenet_r": "ImageNet-R",
    "imagenet_sketch": "ImageNet-Sketch",
    "folder": "images in class folders",
    "pretrain": "",
}
"""task -> title, in the order of a report"""
PROTOCOL_TITLES = {
    "finetune": "fine-tuning",
    "finetune-448": "fine-tuning at 448 pixels",
    "linear": "linear probing",
    "knn": "k-nearest neighbours",
    "logistic": "logistic regression",
    "scratch": "training from scratch",
    "released": "classifiers as released",
    "upernet-512-160k": "UperNet",
    "upernet-512-100ep": "UperNet (100 epochs)",
    "mask_rcnn-vitdet": "Mask R-CNN (ViTDet)",
    "mask_rcnn-fpn": "Mask R-CNN (four-stage FPN)",
    "mae": "masked autoencoder pre-training",
}
"""protocol without task and version -> title, in the order of a report; partial fine-tuning and
unknown ones follow"""
PARTIAL = re.compile(r"partial-([0-9]+(?:\.[0-9]+)?)")
"""protocols of partial fine-tuning, by the number of trained blocks"""


def task_of(protocol: str) -> str:
    """The task of a protocol id: imagenet1k of imagenet1k/partial-2@1."""
    return protocol.partition("/")[0]


def trained_blocks(protocol: str) -> str | None:
    """2 of imagenet1k/partial-2@1; None for a protocol that is no partial fine-tuning."""
    match = PARTIAL.fullmatch(protocol.partition("/")[2].partition("@")[0])
    return match and match[1]


def family_of(protocol: str) -> str:
    """imagenet1k/partial-K@1 of all partial fine-tuning; every other protocol is its own."""
    blocks = trained_blocks(protocol)
    return protocol if blocks is None else protocol.replace(f"/partial-{blocks}@", "/partial-K@")


def task_order(task: str) -> tuple[int, str]:
    """Sorts tasks as a report shows them: unknown ones last, by name."""
    return (list(DATA_TITLES).index(task) if task in DATA_TITLES else len(DATA_TITLES), task)


def protocol_order(protocol: str) -> tuple[tuple[int, str], int, float, str]:
    """The same for protocol ids, by task first."""
    name, known = protocol.partition("/")[2].partition("@")[0], list(PROTOCOL_TITLES)
    place = known.index(name) if name in known else len(known)
    blocks = trained_blocks(protocol) or "0"
    return task_order(task_of(protocol)), place, float(blocks), protocol


def protocol_title(protocol: str) -> str:
    """What a protocol does, without its data set."""
    name = protocol.partition("/")[2].partition("@")[0]
    blocks = trained_blocks(protocol)
    if blocks is not None:
        return f"fine-tuning of the last {blocks} block{'' if blocks in ('0.5', '1') else 's'}"
    if name == "partial-K":
        return "partial fine-tuning"
    return PROTOCOL_TITLES.get(name, protocol.partition("/")[2])


def table_title(protocol: str) -> str:
    """Of the table of a protocol, or of a family of them."""
    doing, data = protocol_title(protocol), DATA_TITLES.get(task_of(protocol), task_of(protocol))
    title = f"{data}: {doing}" if data else doing.capitalize()
    return f"{title} (protocol {protocol})"


def plain(label: str) -> str:
    """So that the label mocov3 of a run meets the method "MoCo v3" of a paper."""
    return "".join(character for character in label.lower() if character.isalnum())
