"""Flags that several commands share."""

import json
import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from mae_bench.execution import Execution


def go_on(*words: object) -> None:
    """Print, as the last line of a command, the next one to type."""
    from mae_bench.progress import say

    say(f"next       {shlex.join(['mae-bench', *map(str, words)])}")


def print_json(content: Any) -> None:
    """Print what a command lists for other programs, and nothing else."""
    print(json.dumps(content, indent=2, ensure_ascii=False))


def flag(name: str, value: object, usual: object) -> list[object]:
    """--name with its value, unless that is the usual one."""
    return [] if str(value) == str(usual) else [f"--{name}", value]


@dataclass
class RunFlags:
    """What pretrain and transfer share."""

    backbone: str = "vit_mini"
    """vit_mini, vit_t, vit_s, vit_b, vit_l or vit_h; timm:<model> for any plain ViT of timm;
    FILE.py:<name> or <module>:<name> for your own, see docs/own_backbone.md"""
    data: str = "mini"
    """folder of the data set, or mini for the built-in miniature world"""
    out: Path = Path("runs")
    """folder of all runs"""
    name: str | None = None
    """folder of this run inside it (default: made of task, protocol, backbone, init and seed)"""
    seed: int = 0
    """fixes initial weights, image order, augmentation and masks"""
    execution: Annotated[Execution, arg(name="")] = field(default_factory=Execution)

    def arguments(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "recipe"}


@dataclass(kw_only=True)
class ReadingFlags:
    """How a checkpoint is read, where its file does not tell."""

    format: str | None = None
    """the checkpoint's format, where its keys do not tell it, or to have it confirmed; mae-bench
    weights inspect says what they tell"""
    allow_pickle: bool = False
    """read torch files that hold more than data; this runs code that is in the file"""
    key: str | None = None
    """where in a torch file that holds several networks the weights are: model_ema, student"""
    prefix: str | None = None
    """what the names of the network's tensors begin with, in a file that holds several:
    teacher.backbone; none for names without"""
    heads: int | None = None
    """heads of attention, where neither the file nor a config.json beside it tells them"""
    grid: str | None = None
    """rows x columns of patches that the file's positions belong to, where they are not square:
    2x8"""

    def reading(self) -> dict[str, Any]:
        """As `backbones.load` takes them."""
        return {f.name: getattr(self, f.name) for f in fields(ReadingFlags)}
