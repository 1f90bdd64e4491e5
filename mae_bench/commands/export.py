"""`mae-bench export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

import mae_bench
from mae_bench.commands.shared import go_on


@dataclass
class Export:
    """Write the classifier of a run, with its head and pre-processing, for other programs.

    What is written is read back, and must give the same logits.
    """

    source: Annotated[Positional[Path], arg(metavar="RUN")]
    """folder of a classifier's run, finished or interrupted"""
    to: Literal["torch", "onnx", "timm", "hf"]
    """torch: a program that needs torch alone; onnx; timm: for its create_model; hf: for
    transformers"""
    output: Path | None = None
    """new folder (default: the run's name and the layout)"""

    def run(self) -> None:
        mae_bench.export(self.source, self.to, self.output)
        go_on("predict", self.source, "IMAGES")
