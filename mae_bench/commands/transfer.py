"""`mae-bench transfer`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mae_bench
from mae_bench.arguments import check_common, transferring
from mae_bench.commands.shared import ReadingFlags, RunFlags
from mae_bench.errors import RunError
from mae_bench.flags import changed, default_protocol, one_point
from tasks.classification.recipes import CURVE


@dataclass
class Transfer(ReadingFlags, RunFlags):
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
    """weights: a file of MAE, MoCo v3, BEiT, DINO, DeiT, AugReg, timm, torchvision, OpenMMLab,
    Hugging Face or our own; an index of shards or a folder of Hugging Face's; timm:<model> or
    hf:<repository>, with a network; or the folder of --init's released file"""
    init: str | None = None
    """short name of what the weights came from, for the tables (default: from the checkpoint);
    mae, moco_v3, beit, dino or supervised without a file: the released weights of that name, see
    mae-bench weights list; scratch: random weights (for imagenet1k and its like a protocol)"""
    limit: int | None = None
    """use so many images only; the result is marked as shortened"""

    def run(self) -> None:
        protocol = default_protocol(self.task) if self.protocol is None else self.protocol
        overrides = changed(self, self.task, protocol)
        given = self.arguments() | overrides
        self.refuse_unfit(protocol, overrides)
        if protocol == CURVE:
            del given["protocol"]
            mae_bench.partial_curve(**given)
        else:
            mae_bench.transfer(**given)

    def refuse_unfit(self, protocol: str, overrides: dict[str, Any]) -> None:
        """Raise a one-line error for flags that contradict each other, before torch is imported."""
        check_common(self.out, self.name, self.seed, self.limit)
        transferring(
            self.task,
            self.backbone,
            one_point(self.task, protocol),
            self.checkpoint,
            self.init,
            overrides,
            self.execution,
            **self.reading(),
        )
        if self.data != "mini":
            from mae_bench.data import task_root

            task_root(self.task, self.data)
        file = self.checkpoint
        if file and not file.startswith(("timm:", "hf:")) and not Path(file).exists():
            raise RunError(f"checkpoint {file}: no such file")
