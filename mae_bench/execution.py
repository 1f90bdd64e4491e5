"""How a run is carried out. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from mae_bench.errors import RunError


@dataclass(frozen=True)
class Execution:
    """How a run is carried out. Nothing here changes what is computed.

    Raises `RunError` for a value out of range.
    """

    workers: int = 2
    """loader processes per training process; 0 loads in the training process"""
    save_minutes: float = 10.0
    """time between saved states; a run that is killed loses no more than this"""
    compile: bool = False
    """compile the transformer blocks with torch.compile"""
    checkpoint_activations: bool = False
    """keep no activations inside the blocks, but compute them again in the backward pass: less
    memory for one more forward pass"""
    max_bad_images: int = 50
    """unreadable images that are skipped before the run stops"""
    device: Literal["auto", "cpu"] = "auto"
    """auto takes a GPU if there is one"""
    save_logits: bool = False
    """classification: keep the logits of the test images too"""

    def __post_init__(self) -> None:
        for name, kind in (("workers", int), ("save_minutes", float), ("max_bad_images", int)):
            value = getattr(self, name)
            if not isinstance(value, int | kind) or not value >= 0:
                what = "a whole number, " if kind is int else ""
                raise RunError(f"{name} is {value!r}; expected {what}0 or more")
        if self.device not in ("auto", "cpu"):
            raise RunError(f"device is {self.device!r}; expected auto or cpu")
