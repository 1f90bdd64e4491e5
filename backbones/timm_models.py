"""Shapes of timm's plain ViTs, for backbones by the name "timm:<model>". Downloads nothing.

`timm.create_model` builds the model without memory for its weights; what our `ViT` cannot be is
refused with the reason.
"""

import difflib
from functools import lru_cache
from typing import Any

import timm
import torch
from timm.layers import LayerNorm, Mlp, PatchEmbed
from timm.models import beit, vision_transformer
from torch import nn

from backbones.sizes import TIMM, Anatomy, BackboneError, Size


@lru_cache
def timm_shape(name: str) -> tuple[Size, Anatomy]:
    """Size and anatomy of the timm model behind "timm:<model>".

    Raises `BackboneError` for a name that timm does not have, and for a network that is no plain
    ViT with one class token, naming the difference.
    """
    model_name = name.removeprefix(TIMM)
    plain = model_name.partition(".")[0]
    if not timm.is_model(plain):
        near = difflib.get_close_matches(plain, timm.list_models(), n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise BackboneError(
            f"backbone {name!r}: timm {timm.__version__} has no model {model_name!r}; {hint}"
            "expected a name of timm.list_models()"
        )
    try:
        with torch.device("meta"):
            model: Any = timm.create_model(model_name, pretrained=False, num_classes=0)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BackboneError(f"backbone {name!r}: timm cannot build it ({reason})") from None
    difference = what_differs(model)
    if difference is not None:
        raise BackboneError(
            f"backbone {name!r}: {difference}; only plain ViTs with one class token are supported"
        )
    block = model.blocks[0]
    size = Size(
        embed_dim=model.embed_dim,
        depth=len(model.blocks),
        num_heads=block.attn.num_heads,
        patch_size=model.patch_embed.patch_size[0],
        pretrain_image=model.patch_embed.img_size[0],
    )
    is_beit = type(model) is beit.Beit
    tables = (model.rel_pos_bias, block.attn.relative_position_bias_table) if is_beit else ()
    return size, Anatomy(
        norm_eps=block.norm1.eps,
        layer_scale=getattr(block if is_beit else block.ls1, "init_values", None) or None,
        absolute_position=model.pos_embed is not None,
        relative_position=any(table is not None for table in tables),
        final_norm=isinstance(model.norm, nn.LayerNorm),
    )


def what_differs(model: Any) -> str | None:
    """What our `ViT` cannot be like, in words; None: nothing."""
    if type(model) not in (vision_transformer.VisionTransformer, beit.Beit):
        return f"is a {type(model).__name__}"
    if type(model.patch_embed) is not PatchEmbed or not isinstance(
        model.patch_embed.proj, nn.Conv2d
    ):
        return f"embeds patches by a {type(model.patch_embed).__name__}"
    if model.patch_embed.proj.bias is None or not isinstance(model.patch_embed.norm, nn.Identity):
        return "embeds patches without a bias, or normalises them"
    patch, image = model.patch_embed.patch_size, model.patch_embed.img_size
    if patch[0] != patch[1] or image[0] != image[1]:
        return f"takes {image[0]} x {image[1]} pixels in patches of {patch[0]} x {patch[1]}"
    if getattr(model, "num_reg_tokens", 0):
        return f"has {model.num_reg_tokens} register tokens"
    if model.cls_token is None:
        return "has no class token"
    if not isinstance(getattr(model, "norm_pre", nn.Identity()), nn.Identity):
        return "normalises tokens before the first block"
    if getattr(model, "attn_pool", None) is not None:
        return "pools by attention"
    if model.pos_embed is None and type(model) is not beit.Beit:
        return "adds no positions"
    return block_differs(model.blocks[0], 4 * model.embed_dim)


def block_differs(block: Any, hidden: int) -> str | None:
    """The same for a transformer block, whose MLP is to be `hidden` wide."""
    if type(block) not in (vision_transformer.Block, beit.Block):
        return f"is made of {type(block).__name__}s"
    if type(block.mlp) is not Mlp:
        return f"has a {type(block.mlp).__name__} in its blocks"
    act = block.mlp.act
    if not isinstance(act, nn.GELU) or getattr(act, "approximate", "none") != "none":
        return f"has {act} in its MLP, not an exact GELU"
    if block.mlp.fc1.out_features != hidden:
        return f"has an MLP {block.mlp.fc1.out_features} wide, not 4 times its tokens"
    extra = (block.mlp.norm, *(getattr(block.attn, n, None) for n in ("q_norm", "k_norm", "norm")))
    if not all(module is None or isinstance(module, nn.Identity) for module in extra):
        return "normalises inside attention or MLP"
    has_bias = block.attn.qkv.bias is not None or getattr(block.attn, "q_bias", None) is not None
    if not has_bias or block.attn.proj.bias is None:
        return "has attention without biases"
    if type(block.norm1) not in (LayerNorm, nn.LayerNorm) or block.norm1.bias is None:
        return f"normalises by {type(block.norm1).__name__}, not a layer norm with bias"
    return None
