"""Flags that pretrain and transfer share."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from mae_bench.execution import Execution


@dataclass
class RunFlags:
    """What pretrain and transfer share."""

    backbone: str = "vit_mini"
    """vit_mini, vit_t, vit_s, vit_b, vit_l or vit_h; timm:<model> for any plain ViT of timm;
    <module>:<name> for your own, see backbones/plugin.py"""
    data: str = "mini"
    """folder of the data set, or mini for the built-in miniature world; for coco also
    TRAIN.json,VAL.json, your own annotations"""
    out: Path = Path("runs")
    """folder of all runs"""
    name: str | None = None
    """folder of this run inside it (default: made of task, protocol, backbone, init and seed)"""
    seed: int = 0
    """fixes initial weights, image order, augmentation and masks"""
    execution: Annotated[Execution, arg(name="")] = field(default_factory=Execution)

    def arguments(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "recipe"}
