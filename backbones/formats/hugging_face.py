"""Layouts of Hugging Face's transformers: ViT, ViT-MAE, BEiT with data2vec, DINOv2."""

from backbones.formats.layout import (
    CLASSIFIER,
    CLASSIFIER_NORM,
    DECODER,
    HALF,
    INDEX,
    MASK_TOKEN,
    PRETEXT,
    Format,
    Tensors,
    any_key,
    has_fixed_positions,
    stack_qkv,
)

NETWORKS = "vit|beit|data2vec_vision|dinov2|deit"
"""what models with a head keep their ViT under"""
RENAME = {
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
    r"layer_scale([12])\.lambda1$": r"ls\1.gamma",
    r"lambda_([12])$": r"ls\1.gamma",
    r"^encoder\.relative_position_bias\.|^shared_position_bias\.": "rel_pos_bias.",
    r"^(blocks\.\d+\.)(attention\.attention\.)?relative_position_bias\.": r"\1attn.",
}


def is_hugging_face(tensors: Tensors) -> bool:
    """Whether they are of one of transformers' ViTs."""
    return any_key(tensors, rf"^(({NETWORKS})\.)?embeddings\.patch_embeddings\.projection\.weight$")


def is_mae(tensors: Tensors) -> bool:
    """Whether a decoder or the positions tell a `ViTMAE...`."""
    decoder = any_key(tensors, r"^decoder\.decoder_")
    others = is_beit(tensors) or is_dinov2(tensors)
    return decoder or (has_fixed_positions(tensors) and not others)


def is_beit(tensors: Tensors) -> bool:
    """Whether queries have biases and keys have none."""
    biases = [any_key(tensors, rf"attention\.({part})\.bias$")
              for part in ("attention.query|q_proj", "attention.key|k_proj")]  # fmt: skip
    return biases == [True, False]


def is_dinov2(tensors: Tensors) -> bool:
    """Whether layer scale has DINOv2's names."""
    return any_key(tensors, r"layer_scale1\.lambda1$")


HUGGING_FACE: dict[str, Format] = {
    "hf_vit": Format(
        "huggingface/transformers, models/vit (ViTModel, ViTForImageClassification)",
        fits=is_hugging_face,
        told=lambda t: not (is_mae(t) or is_beit(t) or is_dinov2(t)),
        skip={
            r"((vit|deit)\.)?pooler\.": CLASSIFIER,
            r"classifier\.": CLASSIFIER,
            r"((vit|deit)\.)?embeddings\.mask_token$": MASK_TOKEN,
            r"decoder\.\d+\.": PRETEXT,  # ViTForMaskedImageModeling
        },
        prefix=r"(vit|deit)\.",
        rename=RENAME,
        rewrite=stack_qkv,
        mean=HALF,
        std=HALF,
        norm_eps=1e-12,
        square=False,
        assumed="pixel statistics 0.5, the default of its image processor; a "
        "preprocessor_config.json beside the file is asked first",
    ),
    "hf_mae": Format(
        "huggingface/transformers, models/vit_mae (ViTMAEModel, ViTMAEForPreTraining)",
        fits=is_hugging_face,
        told=is_mae,
        skip={r"decoder\.": DECODER},
        prefix=r"vit\.",
        rename=RENAME,
        rewrite=stack_qkv,
        pooling="patches",
        norm_eps=1e-12,
    ),
    "hf_beit": Format(
        "huggingface/transformers, models/beit, models/data2vec (BeitModel, Data2VecVisionModel, "
        "...For...)",
        fits=is_hugging_face,
        told=lambda t: is_beit(t),
        skip={
            r"((beit|data2vec_vision)\.)?pooler\.": CLASSIFIER_NORM,
            r"classifier\.": CLASSIFIER,
            r"lm_head\.": PRETEXT,
            r"((beit|data2vec_vision)\.)?embeddings\.mask_token$": PRETEXT,
            r"(.*\.)?relative_position_index$": INDEX,
        },
        prefix=r"(beit|data2vec_vision)\.",
        rename=RENAME,
        rewrite=stack_qkv,
        mean=HALF,
        std=HALF,
        pooling="patches",
        norm_eps=1e-12,
        assumed="pixel statistics 0.5, as of BEiT's files; a preprocessor_config.json beside the "
        "file is asked first",
    ),
    "hf_dinov2": Format(
        "huggingface/transformers, models/dinov2 (Dinov2Model, Dinov2ForImageClassification)",
        fits=is_hugging_face,
        told=is_dinov2,
        skip={
            r"classifier\.": CLASSIFIER,
            r"(dinov2\.)?embeddings\.mask_token$": MASK_TOKEN,
        },
        prefix=r"dinov2\.",
        rename=RENAME,
        rewrite=stack_qkv,
    ),
}
