"""How a run is carried out. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from mae_bench.errors import RunError

BOUNDS = (
    ("workers", int, 1024),
    ("save_minutes", float, 1_000_000),
    ("max_bad_images", int, 1_000_000_000),
    ("eval_every", int, 1_000_000),
)
"""field, its type, the most that it may be"""


@dataclass(frozen=True)
class TrainingExecution:
    """How a training is carried out. Nothing here changes what is computed.

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
    shard: bool = False
    """split the network, its gradients and the optimiser's moments among the processes, for what
    does not fit one device"""
    max_bad_images: int = 50
    """unreadable images that are skipped before the run stops"""
    device: Literal["auto", "cpu"] = "auto"
    """auto takes a GPU if there is one"""

    log: Literal["tensorboard", "wandb"] = "tensorboard"
    """wandb: write each step's loss and rate to Weights & Biases too; its variables hold, as
    WANDB_PROJECT, and WANDB_MODE=offline"""

    def __post_init__(self) -> None:
        for name, kind, most in BOUNDS:
            value = getattr(self, name, 0)
            number = isinstance(value, int | kind) and not isinstance(value, bool)
            if not number or not 0 <= value <= most:
                what = "a whole number, " if kind is int else ""
                raise RunError(f"{name} is {value!r}; expected {what}0 or more, at most {most:,}")
        for name in ("compile", "checkpoint_activations", "shard", "save_logits"):
            if not isinstance(getattr(self, name, False), bool):
                raise RunError(f"{name} is {getattr(self, name)!r}; expected True or False")
        if self.device not in ("auto", "cpu"):
            raise RunError(f"device is {self.device!r}; expected auto or cpu")
        if self.log not in ("tensorboard", "wandb"):
            raise RunError(f"log is {self.log!r}; expected tensorboard or wandb")


@dataclass(frozen=True)
class Execution(TrainingExecution):
    """How a run is carried out whose scores come from test images. Nothing here changes them."""

    save_logits: bool = False
    """classification: keep the logits of the test images too"""
    eval_every: int = 0
    """score the test images every so many epochs while training, to be looked at; 0: only at the
    end"""
