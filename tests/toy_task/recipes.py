"""The one recipe."""

from dataclasses import dataclass
from typing import Any

from backbones.sizes import Dense
from tasks import check_known
from tasks.recipe import Sourced, TransferRecipe, complete, said_by

PROTOCOLS = {"regression": "a linear map of the last block"}


@dataclass(frozen=True, kw_only=True)
class ToyRecipe(TransferRecipe):
    """As every training recipe."""

    def backbone_options(self) -> dict[str, Any]:
        return super().backbone_options() | {"dense": Dense()}


def recipe_type(protocol: str) -> type[ToyRecipe]:
    check_known("protocol", protocol, list(PROTOCOLS))
    return ToyRecipe


def sourced(task: str, backbone: str, protocol: str) -> Sourced:
    check_known("protocol", protocol, list(PROTOCOLS))
    named: dict[str, Any] = {"protocol": f"{task}/{protocol}@1", "backbone": backbone}
    size: dict[str, Any] = {"image_size": 16, "batch_size": 4, "device_batch": 4, "epochs": 1}
    step: dict[str, Any] = {"optimizer": "adamw", "base_lr": 0.1, "betas": (0.9, 0.999)}
    more: dict[str, Any] = {"warmup_epochs": 0, "min_lr": 0.0, "weight_decay": 0.05}
    more |= {"schedule": "cosine", "milestones": (), "warmup_start": 0.0, "layer_decay": 1.0}
    more |= {"clip_grad": None, "ema_decay": None, "drop_path": 0.0, "precision": "fp32"}
    return complete(ToyRecipe, said_by("ours", **named | size | step | more))
