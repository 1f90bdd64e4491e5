"""Layouts under timm's names: MAE's, MoCo v3's, DINO's, DeiT's, DINOv2's, and our own."""

from backbones.formats.layout import (
    CLASSIFIER_NORM,
    DECODER,
    FINE_TUNED,
    HEAD,
    LAYER_SCALE,
    MASK_TOKEN,
    PATCHES,
    PRETEXT,
    Format,
    any_key,
    has_classifier_norm,
    has_fixed_positions,
    is_fixed_plain,
    is_plain,
    never,
)

CHUNKS = {r"^blocks\.\d+\.(\d+)\.": r"blocks.\1."}
"""DINOv2's training keeps blocks in groups, each under its number in the whole network"""

PLAIN: dict[str, Format] = {
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
        square=False,
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
            r"base_encoder\.head\.": PRETEXT,
            **HEAD,
        },
        prefix=r"base_encoder\.",
        heads={384: 12},  # vits.py, vit_small
        sure=lambda t: not is_plain(t),  # mmpretrain's MAE has this table too
    ),
    "timm": Format(
        "huggingface/pytorch-image-models, timm/models/vision_transformer.py",
        fits=is_plain,
        told=lambda t: (
            not (is_fixed_plain(t) or has_classifier_norm(t) or "decoder_embed.weight" in t)
        ),
        skip=HEAD | {r"(mask_token|masked_embed)$": MASK_TOKEN},  # DINOv2's, iBOT's
        rename=CHUNKS | LAYER_SCALE,
        square=False,
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
        skip={r"head\.": PRETEXT, r"(backbone\.)?masked_embed$": MASK_TOKEN},
        prefix=r"backbone\.",
    ),
    "dinov2": Format(
        "facebookresearch/dinov2, models/vision_transformer.py (dinov2_vit*14_pretrain.pth)",
        fits=is_plain,
        told=never,
        skip={r"mask_token$": MASK_TOKEN},
        rename=CHUNKS,
    ),
    "deit": Format(
        "facebookresearch/deit, models.py, models_v2.py (deit_*_patch16_*.pth, deit_3_*.pth)",
        fits=is_plain,
        told=never,
        skip=HEAD,
        rename=LAYER_SCALE,
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
