"""How a run is carried out. Imports no torch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Execution:
    """How a run is carried out. Nothing here changes what is computed."""

    workers: int = 2
    """loader processes per training process; 0 loads in the training process"""
    save_minutes: float = 10.0
    """time between saved states; a run that is killed loses no more than this"""
    compile: bool = False
    """compile the transformer blocks with torch.compile"""
    max_bad_images: int = 50
    """unreadable images that are skipped before the run stops"""
    device: Literal["auto", "cpu"] = "auto"
    """auto takes a GPU if there is one"""
