"""`mae-bench predict`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

import mae_bench
from mae_bench.commands.shared import go_on
from mae_bench.execution import Execution


@dataclass
class Predict:
    """Let the network of a run say what is in images: classes, objects or the class of each pixel.

    A picture for each image and predictions.json go into a new folder.
    """

    source: Annotated[Positional[Path], arg(metavar="RUN")]
    """folder of a run that trains, finished or interrupted"""
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGES")]
    """images, or folders of them"""
    out: Path | None = None
    """new folder for the pictures and predictions.json (default: predictions/<run>)"""
    device: Literal["auto", "cpu"] = "auto"
    """auto: a GPU if there is one"""

    def run(self) -> None:
        how = Execution(device=self.device)
        mae_bench.predict(self.source, self.images, self.out, how)
        go_on("evaluate", self.source)
