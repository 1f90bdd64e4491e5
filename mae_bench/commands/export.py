"""`mae-bench export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

import mae_bench
from mae_bench.commands.shared import go_on


@dataclass
class Export:
    """Write the network of a run, with its head and pre-processing, for other programs.

    Classifiers in every layout, segmentation as torch or onnx, detection as torch. What is written
    is read back, and must say what the run's network says.
    """

    source: Annotated[Positional[Path], arg(metavar="RUN")]
    """folder of a run that trains, finished or interrupted"""
    to: Literal["torch", "onnx", "timm", "hf"]
    """torch: a program that needs torch alone, for detection torchvision too; onnx: needs
    mae-bench[onnx]; timm: for its create_model; hf: for transformers"""
    output: Path | None = None
    """new folder (default: the run's name and the layout)"""

    def run(self) -> None:
        mae_bench.export(self.source, self.to, self.output)
        go_on("predict", self.source, "IMAGES")
