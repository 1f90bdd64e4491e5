"""Layouts under names of their own: Google's arrays, torchvision's ViT, OpenMMLab's ViT."""

import re

from backbones.formats.layout import (
    CLASSIFIER,
    CLASSIFIER_NORM,
    DECODER,
    HALF,
    HEAD,
    PRETEXT,
    Format,
    Tensors,
    any_key,
    is_plain,
    stack_qkv,
)

JAX = {
    "/": ".",
    r"^(opt\.target|params)\.": "",
    r"^embedding\.": "patch_embed.proj.",
    r"^cls$": "cls_token",
    r"^Transformer\.posembed_input\.pos_embedding$": "pos_embed",
    r"^Transformer\.encoder_norm\.": "norm.",
    r"^Transformer\.encoderblock_(\d+)\.": r"blocks.\1.",
    r"LayerNorm_0\.": "norm1.",
    r"LayerNorm_2\.": "norm2.",
    r"MlpBlock_3\.Dense_0\.": "mlp.fc1.",
    r"MlpBlock_3\.Dense_1\.": "mlp.fc2.",
    r"MultiHeadDotProductAttention_1\.(q|k|v)[a-z]+\.": r"attn.\1.",
    r"MultiHeadDotProductAttention_1\.out\.": "attn.proj.",
}
TORCHVISION = {
    r"^conv_proj\.": "patch_embed.proj.",
    r"^class_token$": "cls_token",
    r"^encoder\.pos_embedding$": "pos_embed",
    r"^encoder\.layers\.encoder_layer_(\d+)\.": r"blocks.\1.",
    r"^encoder\.ln\.": "norm.",
    r"ln_([12])\.": r"norm\1.",
    r"self_attention\.in_proj_(weight|bias)$": r"attn.qkv.\1",
    r"self_attention\.out_proj\.": "attn.proj.",
    # The second kind of name is of torchvision 0.12 and older.
    r"mlp\.(0|linear_1)\.": "mlp.fc1.",
    r"mlp\.(3|linear_2)\.": "mlp.fc2.",
}
OPENMMLAB = {
    r"^patch_embed\.projection\.": "patch_embed.proj.",
    r"^layers\.": "blocks.",
    r"^ln1\.": "norm.",
    r"^(blocks\.\d+\.)ln([12])\.": r"\1norm\2.",
    # The second kind of name is mmsegmentation's, around torch's own attention.
    r"attn\.attn\.in_proj_(weight|bias)$": r"attn.qkv.\1",
    r"attn\.attn\.out_proj\.": "attn.proj.",
    r"ffn\.layers\.0\.0\.": "mlp.fc1.",
    r"ffn\.layers\.1\.": "mlp.fc2.",
    r"attn\.gamma1\.(weight|gamma)$": "ls1.gamma",
    r"ffn\.gamma2\.(weight|gamma)$": "ls2.gamma",
}


def from_jax(tensors: Tensors) -> Tensors:
    """Google's .npz arrays, (in, out) and with heads apart, to ours; of timm's layout: as it is.

    Source: google-research/vision_transformer, vit_jax/models_vit.py.
    """
    if "patch_embed.proj.kernel" not in tensors:
        return tensors
    out = {}
    for key, value in tensors.items():
        name, _, kind = key.rpartition(".")
        if kind == "scale":
            out[f"{name}.weight"] = value
        elif kind == "bias":
            out[key] = value.flatten()
        elif kind != "kernel":
            out[key] = value
        elif name.endswith("patch_embed.proj"):
            out[f"{name}.weight"] = value.permute(3, 2, 0, 1)
        elif re.search(r"attn\.[qkv]$", name):
            out[f"{name}.weight"] = value.flatten(1).T
        else:
            out[f"{name}.weight"] = value.flatten(0, -2).T
    return stack_qkv(out)


OTHERS: dict[str, Format] = {
    "augreg": Format(
        "google-research/vision_transformer, vit_jax/checkpoint.py (.npz), or in timm's layout",
        fits=lambda t: is_plain(t) or any_key(t, r"(^|/)embedding/kernel$"),
        told=lambda t: not is_plain(t),
        skip={r"((opt/target|params)/)?(head|pre_logits)/": CLASSIFIER, **HEAD},
        rename=JAX,
        rewrite=from_jax,
        mean=HALF,
        std=HALF,
    ),
    "torchvision": Format(
        "pytorch/vision, torchvision/models/vision_transformer.py (vit_*.pth)",
        fits=lambda t: "conv_proj.weight" in t and "class_token" in t,
        skip={r"heads\.": CLASSIFIER},
        rename=TORCHVISION,
    ),
    "mmpretrain": Format(
        "open-mmlab/mmpretrain, models/backbones/vision_transformer.py; mmsegmentation's ViT",
        fits=lambda t: any_key(t, r"^(backbone\.)?patch_embed\.projection\.weight$"),
        skip={
            r"(backbone\.)?ln2\.": CLASSIFIER_NORM,  # of a mean over patches
            r"(backbone\.)?mask_token$": PRETEXT,
            r"neck\.": DECODER,
            r"(decode|auxiliary)_head\.": "head of segmentation",
            r"data_preprocessor\.": "pixel statistics",
            r"target_generator\.|backbone\.decoder": PRETEXT,
            **HEAD,
        },
        prefix=r"backbone\.",
        rename=OPENMMLAB,
        square=False,
        assumed="ImageNet's pixel statistics, as of OpenMMLab's own files",
    ),
}
