"""BEiT's layouts (microsoft/unilm), whose keys have no bias and whose blocks have tables."""

import torch

from backbones.formats.layout import (
    FINE_TUNED,
    HALF,
    INDEX,
    LAYER_SCALE,
    PRETEXT,
    Format,
    Tensors,
    is_beit,
)

BEIT_SKIP = {
    r"mask_token$": PRETEXT,
    r"lm_head\.": PRETEXT,
    r"cls_pt_layers\.": PRETEXT,
    r"(.*\.)?relative_position_index$": INDEX,
}


def join_biases(tensors: Tensors) -> Tensors:
    """BEiT's biases of queries and values to one bias, zero for keys, as it computes with."""
    out = {k: v for k, v in tensors.items() if not k.endswith(("attn.q_bias", "attn.v_bias"))}
    for key, q_bias in tensors.items():
        if key.endswith("attn.q_bias"):
            start = key.removesuffix("q_bias")
            v_bias = tensors.get(f"{start}v_bias")
            if v_bias is not None:
                out[f"{start}qkv.bias"] = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
    return out


BEIT: dict[str, Format] = {
    "beit": Format(
        "microsoft/unilm, beit/modeling_pretrain.py (beit_*_pt22k.pth)",
        fits=is_beit,
        told=lambda t: (
            "head.weight" not in t and "fc_norm.weight" not in t and ("pos_embed" not in t)
        ),
        skip=BEIT_SKIP,
        rename=LAYER_SCALE,
        rewrite=join_biases,
        mean=HALF,
        std=HALF,
        pooling="patches",
        assumed="pixel statistics 0.5, as of BEiT's ImageNet-22k files; if it was pre-trained on "
        'ImageNet-1k, name the format "beit_in1k"',
    ),
    "beit_finetuned": Format(
        "microsoft/unilm, beit/modeling_finetune.py (beit_*_ft22k.pth); timm/models/beit.py",
        fits=is_beit,
        told=lambda t: ("head.weight" in t or "fc_norm.weight" in t) and "pos_embed" not in t,
        skip=BEIT_SKIP | FINE_TUNED,
        rename=LAYER_SCALE,
        rewrite=join_biases,
        mean=HALF,
        std=HALF,
        pooling="patches",
        assumed="pixel statistics 0.5, as of BEiT's files; BEiT v2's of this layout have "
        'ImageNet\'s: name the format "beit_in1k" for those',
    ),
    "beit_in1k": Format(
        "microsoft/unilm, beit/README.md, pre-trained on ImageNet-1k (with absolute positions)",
        fits=is_beit,
        told=lambda t: "pos_embed" in t,
        skip=BEIT_SKIP | FINE_TUNED,
        rename=LAYER_SCALE,
        rewrite=join_biases,
        pooling="patches",
    ),
}
