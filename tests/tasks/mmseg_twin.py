"""mmsegmentation's EncoderDecoder around parts of ours."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from tasks.ade20k.recipes import Ade20kRecipe
from tasks.ade20k.upernet import UperNet


class Given(nn.Module):
    """A backbone that gives the maps it is told."""

    maps: tuple[Tensor, ...]

    def forward(self, _: Tensor) -> tuple[Tensor, ...]:
        return self.maps


def encoder_decoder(recipe: Ade20kRecipe, dim: int, num_classes: int, **test: Any) -> nn.Module:
    """UperNet as mmsegmentation builds it from its configuration, on a `Given` backbone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmengine.registry import DefaultScope
        from mmseg.models import EncoderDecoder
        from mmseg.registry import MODELS
    if "Given" not in MODELS.module_dict:
        MODELS.register_module(name="Given", module=Given)
    norm = {"type": "BN"}
    common = {"num_classes": num_classes, "dropout_ratio": recipe.dropout, "norm_cfg": norm}
    with warnings.catch_warnings(), DefaultScope.overwrite_default_scope("mmseg"):
        warnings.simplefilter("ignore")
        return EncoderDecoder(
            backbone={"type": "Given"},
            neck={
                "type": "Feature2Pyramid", "embed_dim": dim, "rescales": [4, 2, 1, 0.5],
                "norm_cfg": norm,
            },
            decode_head={
                "type": "UPerHead", "in_channels": [dim] * 4, "in_index": [0, 1, 2, 3],
                "pool_scales": recipe.pool_scales, "channels": recipe.head_channels,
                "loss_decode": {"type": "CrossEntropyLoss", "loss_weight": 1.0}, **common,
            },
            auxiliary_head={
                "type": "FCNHead", "in_channels": dim, "in_index": 2,
                "channels": recipe.aux_channels, "num_convs": 1, "concat_input": False,
                "loss_decode": {"type": "CrossEntropyLoss", "loss_weight": 0.4}, **common,
            },
            test_cfg=test or {"mode": "whole"},
        )  # fmt: skip


def copy_weights(ours: UperNet, theirs: nn.Module) -> None:
    """Strictly, every one of them."""
    names = {"neck": "neck", "head": "decode_head", "aux": "auxiliary_head"}
    state = {}
    for key, value in ours.state_dict().items():
        part, _, rest = key.partition(".")
        state[f"{names[part]}.{rest}"] = value
    theirs.load_state_dict(state, strict=True)


def randomise(module: nn.Module) -> None:
    """Weights, and running statistics, that nothing is special about."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
