"""`mae-bench push`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

import mae_bench
from mae_bench.commands.shared import go_on


@dataclass
class Push:
    """Upload a finished run's classifier to Hugging Face, with a model card made of its record."""

    source: Annotated[Positional[Path], arg(metavar="RUN")]
    """folder of a classifier's finished run"""
    repo: Annotated[Positional[str], arg(metavar="OWNER/NAME")]
    """the repository, which is made if it is not there"""
    to: Literal["timm", "hf"] = "timm"
    """the layout: for timm's create_model, or for transformers"""
    private: bool = False
    """make the repository private"""

    def run(self) -> None:
        mae_bench.push(self.source, self.repo, self.to, self.private)
        go_on("predict", self.source, "IMAGES")
