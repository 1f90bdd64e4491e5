"""Layouts of public ViT checkpoints, and how each becomes our names.

A `Format` is one layout, as its project writes it: what tells it, what is left out on purpose,
which names change, and what belongs to the weights without being in the file. Our names are timm's
`VisionTransformer`'s and so those of the MAE release, with BEiT's tables
`blocks.N.attn.relative_position_bias_table`.

Some layouts share all their names. The fixed position tables of MAE and MoCo v3 tell those two;
the rest of the plain ViTs are "timm", whose report says what was assumed. DINO's, DeiT's and
AugReg's names narrow that when they are asked for.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from backbones.colour import IMAGENET_MEAN, IMAGENET_STD, Colour
from backbones.posembed import is_square, sincos_2d
from backbones.report import Pooling

Tensors = dict[str, Tensor]

BIAS_TABLE = "attn.relative_position_bias_table"
"""end of the name of BEiT's tables of relative position"""
SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"
"""the table that all blocks of a pre-training BEiT share"""
PATCHES = "patch_embed.proj.weight"
HALF: Colour = (0.5, 0.5, 0.5)

CLASSIFIER = "classifier"
CLASSIFIER_NORM = "classifier's norm, which follows pooling"
INDEX = "index, computed from the grid"
DECODER = "MAE decoder"
PRETEXT = "head of the pre-training"


@dataclass(frozen=True)
class Format:
    """One layout of checkpoints, and what its weights were made with."""

    source: str
    """repository and file that write it"""
    fits: Callable[[Tensors], bool]
    """whether the file can have this layout"""
    told: Callable[[Tensors], bool] = lambda _: True
    """whether a file that can, has; of all formats this is true of one at most"""
    skip: Mapping[str, str] = field(default_factory=dict)
    """pattern that a key begins with -> the rule that leaves it out"""
    prefix: str = ""
    """pattern that comes off the beginning of keys"""
    rename: Mapping[str, str] = field(default_factory=dict)
    """pattern anywhere in a key -> what replaces it, in this order"""
    rewrite: Callable[[Tensors], Tensors] = lambda tensors: tensors
    """what renaming alone cannot do, afterwards"""
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD
    pooling: Pooling = "cls"
    """what its own classifier reads: the class token or the mean of the patches"""
    norm_eps: float = 1e-6
    heads: Mapping[int, int] = field(default_factory=dict)
    """width -> heads, where they are not those of our sizes"""
    assumed: str = ""
    """what other weights of the same layout have otherwise"""


# --- What tells a layout ----------------------------------------------------------------------


def any_key(tensors: Tensors, pattern: str) -> bool:
    """Whether the pattern is found in a key."""
    return any(re.search(pattern, key) for key in tensors)


def is_plain(tensors: Tensors) -> bool:
    """Whether the names are timm's `VisionTransformer`'s."""
    return PATCHES in tensors and not is_beit(tensors)


def is_beit(tensors: Tensors) -> bool:
    """Whether they are BEiT's, whose keys have no bias."""
    return PATCHES in tensors and any_key(tensors, r"attn\.q_bias$")


def is_hugging_face(tensors: Tensors) -> bool:
    """Whether they are of one of transformers' ViTs."""
    return any_key(tensors, r"(^|\.)embeddings\.patch_embeddings\.projection\.weight$")


def has_classifier_norm(tensors: Tensors) -> bool:
    """Whether the last norm follows a mean over patches."""
    return "fc_norm.weight" in tensors and "norm.weight" not in tensors


def has_fixed_positions(tensors: Tensors, rows_first: bool = False) -> bool:
    """Whether the positions are the sin-cos table, columns first as MAE's, or as MoCo v3's.

    MoCo v3's (vits.py) is MAE's with the halves of the channels exchanged.
    """
    table = next((t for k, t in tensors.items() if re.search("(pos|position)_embed(dings)?$", k)
                  and "decoder" not in k), None)  # fmt: skip
    if table is None or table.ndim != 3 or table.shape[2] % 4 or not is_square(table.shape[1] - 1):
        return False
    fixed = sincos_2d(table.shape[2], int((table.shape[1] - 1) ** 0.5))
    fixed = fixed.roll(table.shape[2] // 2, dims=2) if rows_first else fixed
    # bfloat16 rounds by up to 0.002.
    return torch.allclose(table.float(), fixed, rtol=0, atol=3e-3)


def is_fixed_plain(tensors: Tensors) -> bool:
    """A plain ViT whose positions tell MAE or MoCo v3."""
    return has_fixed_positions(tensors) or has_fixed_positions(tensors, rows_first=True)


def never(_: Tensors) -> bool:
    """For formats that other layouts hide, so that only a user can tell them."""
    return False


# --- What renaming cannot do ------------------------------------------------------------------


def stack_qkv(tensors: Tensors) -> Tensors:
    """Separate queries, keys and values to one projection; a bias that keys lack is zero."""
    out = {key: value for key, value in tensors.items() if not re.search(r"attn\.[qkv]\.", key)}
    for key, value in tensors.items():
        if not key.endswith(("attn.q.weight", "attn.q.bias")):
            continue
        start, _, kind = key.rpartition("q.")
        rest = [tensors.get(f"{start}{part}.{kind}") for part in "kv"]
        if kind == "bias" and rest[0] is None:
            rest[0] = torch.zeros_like(value)
        if any(part is None for part in rest):  # strict loading names what is missing
            continue
        out[f"{start}qkv.{kind}"] = torch.cat([value, *(part for part in rest if part is not None)])
    return out


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


# --- The formats ------------------------------------------------------------------------------

HEAD = {r"head\.": CLASSIFIER}
FINE_TUNED = {r"fc_norm\.": CLASSIFIER_NORM, **HEAD}
LAYER_SCALE = {r"gamma_([12])$": r"ls\1.gamma"}
BEIT_SKIP = {
    r"mask_token$": PRETEXT,
    r"lm_head\.": PRETEXT,
    r"cls_pt_layers\.": PRETEXT,
    r"(.*\.)?relative_position_index$": INDEX,
}
HUGGING_FACE = {
    r"^embeddings\.patch_embeddings\.projection": "patch_embed.proj",
    r"^embeddings\.cls_token": "cls_token",
    r"^embeddings\.position_embeddings": "pos_embed",
    r"^(encoder\.layer|layers)\.": "blocks.",
    r"^layernorm\.": "norm.",
    r"layernorm_before\.": "norm1.",
    r"layernorm_after\.": "norm2.",
    # In files, and in the models of transformers 5.
    r"attention\.attention\.(q|k|v)[a-z]+\.": r"attn.\1.",
    r"attention\.(q|k|v|o)_proj\.": r"attn.\1.",
    r"attention\.output\.dense\.": "attn.o.",
    r"attn\.o\.": "attn.proj.",
    r"intermediate\.dense\.": "mlp.fc1.",
    r"output\.dense\.": "mlp.fc2.",
    r"lambda_([12])$": r"ls\1.gamma",
    r"^encoder\.relative_position_bias\.|^shared_position_bias\.": "rel_pos_bias.",
    r"^(blocks\.\d+\.)(attention\.attention\.)?relative_position_bias\.": r"\1attn.",
}
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

FORMATS: dict[str, Format] = {
    "mae": Format(
        "facebookresearch/mae, models_mae.py (mae_pretrain_vit_*.pth)",
        fits=lambda t: is_plain(t) and "decoder_embed.weight" not in t,
        told=lambda t: has_fixed_positions(t) and not has_classifier_norm(t),
        skip=HEAD,
        pooling="patches",
    ),
    "mae_full": Format(
        "facebookresearch/mae, models_mae.py (mae_pretrain_vit_*_full.pth)",
        fits=lambda t: is_plain(t) and "decoder_embed.weight" in t,
        skip={r"mask_token$": DECODER, "decoder_": DECODER},
        pooling="patches",
    ),
    "mae_finetuned": Format(
        "facebookresearch/mae, models_vit.py with global pooling (mae_finetuned_vit_*.pth)",
        fits=lambda t: is_plain(t) and has_classifier_norm(t),
        skip=FINE_TUNED,
        pooling="patches",
        assumed="ImageNet's pixel statistics, as of MAE's; timm's models that pool patches have "
        "this layout too, and what a config.json beside the file says",
    ),
    "moco_v3": Format(
        "facebookresearch/moco-v3, moco/builder.py, vits.py; convert_to_deit.py",
        fits=lambda t: is_plain(t) or any_key(t, r"^base_encoder\.patch_embed\.proj\.weight$"),
        told=lambda t: (
            not is_plain(t)
            or (has_fixed_positions(t, rows_first=True) and not has_classifier_norm(t))
        ),
        skip={
            r"momentum_encoder\.": "momentum encoder; the base encoder is evaluated",
            r"predictor\.": PRETEXT,
            r"(base_encoder\.)?head\.": PRETEXT,
        },
        prefix=r"base_encoder\.",
        heads={384: 12},  # vits.py, vit_small
    ),
    "timm": Format(
        "huggingface/pytorch-image-models, timm/models/vision_transformer.py",
        fits=is_plain,
        told=lambda t: (
            not (is_fixed_plain(t) or has_classifier_norm(t) or "decoder_embed.weight" in t)
        ),
        skip=HEAD,
        rename=LAYER_SCALE,
        assumed="ImageNet's pixel statistics, as of DINO's and DeiT's files of this layout; "
        'AugReg\'s have 0.5: name the format "augreg" for those',
    ),
    "dino": Format(
        "facebookresearch/dino, vision_transformer.py (dino_*_pretrain.pth)",
        fits=is_plain,
        told=never,
    ),
    "dino_full": Format(
        "facebookresearch/dino, main_dino.py (dino_*_pretrain_full_checkpoint.pth), its teacher",
        fits=lambda t: f"backbone.{PATCHES}" in t,
        told=lambda t: any_key(t, r"^head\.(mlp|last_layer)\."),
        skip={r"head\.": PRETEXT},
        prefix=r"backbone\.",
    ),
    "deit": Format(
        "facebookresearch/deit, models.py, models_v2.py (deit_*_patch16_*.pth, deit_3_*.pth)",
        fits=is_plain,
        told=never,
        skip=HEAD,
        rename=LAYER_SCALE,
    ),
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
    "hf_vit": Format(
        "huggingface/transformers, models/vit (ViTModel, ViTForImageClassification)",
        fits=is_hugging_face,
        told=lambda t: not (is_hugging_face_mae(t) or is_hugging_face_beit(t)),
        skip={
            r"(vit\.)?pooler\.": CLASSIFIER,
            r"classifier\.": CLASSIFIER,
            r"(vit\.)?embeddings\.mask_token$": PRETEXT,
        },
        prefix=r"vit\.",
        rename=HUGGING_FACE,
        rewrite=stack_qkv,
        mean=HALF,
        std=HALF,
        norm_eps=1e-12,
        assumed="pixel statistics 0.5, the default of its image processor; a "
        "preprocessor_config.json beside the file is asked first",
    ),
    "hf_mae": Format(
        "huggingface/transformers, models/vit_mae (ViTMAEModel, ViTMAEForPreTraining)",
        fits=is_hugging_face,
        told=lambda t: is_hugging_face_mae(t),
        skip={r"decoder\.": DECODER},
        prefix=r"vit\.",
        rename=HUGGING_FACE,
        rewrite=stack_qkv,
        pooling="patches",
        norm_eps=1e-12,
    ),
    "hf_beit": Format(
        "huggingface/transformers, models/beit (BeitModel, BeitFor...)",
        fits=is_hugging_face,
        told=lambda t: is_hugging_face_beit(t),
        skip={
            r"(beit\.)?pooler\.": CLASSIFIER_NORM,
            r"classifier\.": CLASSIFIER,
            r"lm_head\.": PRETEXT,
            r"(beit\.)?embeddings\.mask_token$": PRETEXT,
            r"(.*\.)?relative_position_index$": INDEX,
        },
        prefix=r"beit\.",
        rename=HUGGING_FACE,
        rewrite=stack_qkv,
        mean=HALF,
        std=HALF,
        pooling="patches",
        norm_eps=1e-12,
        assumed="pixel statistics 0.5, as of BEiT's files; a preprocessor_config.json beside the "
        "file is asked first",
    ),
    "mae_bench": Format(
        "mae-bench transfer (model.safetensors), its backbone",
        fits=lambda t: f"backbone.{PATCHES}" in t,
        told=lambda t: not any_key(t, r"^head\.(mlp|last_layer)\."),
        skip={r"fc_norm\.": CLASSIFIER_NORM, r"(?!backbone\.)": "the task's own part"},
        prefix=r"backbone\.",
        assumed="ImageNet's pixel statistics; a file of mae-bench would say which",
    ),
}
"""name -> layout, as `--format` takes it"""


def is_hugging_face_mae(tensors: Tensors) -> bool:
    """Whether a decoder or the positions tell a `ViTMAE...`."""
    decoder = any_key(tensors, r"^decoder\.")
    return decoder or (has_fixed_positions(tensors) and not is_hugging_face_beit(tensors))


def is_hugging_face_beit(tensors: Tensors) -> bool:
    """Whether queries have biases and keys have none."""
    biases = [any_key(tensors, rf"attention\.({part})\.bias$")
              for part in ("attention.query|q_proj", "attention.key|k_proj")]  # fmt: skip
    return biases == [True, False]
