"""`mae-bench transfer`."""

from dataclasses import dataclass

import mae_bench
from mae_bench.commands.shared import RunFlags
from mae_bench.flags import changed, default_protocol
from tasks.classification.recipes import CURVE


@dataclass
class Transfer(RunFlags):
    """Measure a backbone on a downstream task.

    The recipe flags show the recipe of the given --task, --protocol and --backbone, and in
    brackets where each value comes from.
    """

    task: str = "imagenet1k"
    """imagenet1k, inat2017, inat2018, inat2019, places205, places365, folder (your own images in
    train/<class>/ and val/<class>/), coco or ade20k"""
    protocol: str | None = None
    """classification: finetune (default), finetune-448, linear, partial:K (the last K blocks
    train), partial:all (the whole curve), knn, logistic, scratch; coco: mask_rcnn-vitdet (default),
    mask_rcnn-fpn; ade20k: upernet-512-160k (default), upernet-512-100ep"""
    checkpoint: str | None = None
    """weights: a file of MAE, MoCo v3, BEiT, DINO, DeiT, AugReg, timm, Hugging Face or our own;
    timm:<model> or hf:<repository>, with a network; or the folder of --init's released file"""
    format: str | None = None
    """the checkpoint's format, where its keys do not tell it, or to have it confirmed; mae-bench
    weights inspect says what they tell"""
    allow_pickle: bool = False
    """read torch files that hold more than data; this runs code that is in the file"""
    init: str | None = None
    """short name of what the weights came from, for the tables (default: from the checkpoint);
    mae, moco_v3, beit, dino or supervised without a file: the released weights of that name, see
    mae-bench weights list; scratch: random weights (for imagenet1k and its like a protocol)"""
    limit: int | None = None
    """use so many images only; the result is marked as shortened"""

    def run(self) -> None:
        protocol = self.protocol or default_protocol(self.task)
        given = self.arguments() | changed(self, self.task, protocol)
        if protocol == CURVE:
            del given["protocol"]
            mae_bench.partial_curve(**given)
        else:
            mae_bench.transfer(**given)
