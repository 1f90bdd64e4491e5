"""Weights of a plain ViT in the layouts of timm, Hugging Face transformers and MAE."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.checkpoint import check_shapes
from backbones.formats import BIAS_TABLE, SHARED_TABLE
from backbones.inspection import Inspection, inspected
from backbones.loading import AS_IT_IS, anatomy_metadata, load_into, read
from backbones.reading import Reading
from backbones.report import LoadReport, numbers
from backbones.sizes import BackboneError, Size
from backbones.vit import MAE_ANATOMY, ViT

LAYOUTS = ("timm", "hf", "mae")


@dataclass
class Export:
    """Weights in another layout."""

    tensors: dict[str, Tensor]
    config: dict[str, Any] = field(default_factory=dict)
    """what belongs into a config.json beside the file; empty where the layout has none"""
    processor: dict[str, Any] = field(default_factory=dict)
    """what belongs into a preprocessor_config.json; empty where the layout has none"""
    metadata: dict[str, str] = field(default_factory=dict)
    """what belongs into the file itself, so that we read it as what it is"""
    said: list[str] = field(default_factory=list)
    """what whoever reads the file elsewhere has to be told"""


def export(vit: ViT, to: str) -> Export:
    """The weights of a plain ViT as "timm", "hf" or "mae" name them, without a head.

    "timm" is for `VisionTransformer` or, with BEiT's tables or without absolute positions, `Beit`;
    "hf" for `ViTModel` or, with anything that MAE's encoder has not, `BeitModel`, both without
    pooling layer and with their configuration; "mae" for the MAE release's code. Raises
    `BackboneError` for a backbone that the layout cannot hold.
    """
    if to not in LAYOUTS:
        raise BackboneError(f"unknown layout {to!r}; there are {', '.join(LAYOUTS)}")
    if not isinstance(vit, ViT):
        raise BackboneError(f"a {type(vit).__name__} cannot be exported; expected a plain ViT")
    anatomy, state = vit.anatomy, vit.state_dict()
    plain = replace(anatomy, norm_eps=MAE_ANATOMY.norm_eps, num_heads=None) == MAE_ANATOMY
    if to == "hf":
        return Export(
            to_hugging_face(state, not plain),
            hugging_face_config(vit, not plain),
            hugging_face_processor(vit),
        )
    if to == "mae" and not plain:
        raise BackboneError(
            f"{vit.name} with {anatomy} is not MAE's encoder, which has absolute positions, a "
            "final norm, no tables of relative position and no layer scale: convert to timm or hf"
        )
    # The name of our own backbone would tie the file to it; a file of timm's layout is anybody's.
    metadata = {key: value for key, value in anatomy_metadata(vit).items() if key != "backbone"}
    beit = to == "timm" and (anatomy.relative_position or not anatomy.absolute_position)
    return Export(to_beit(state) if beit else dict(state), metadata=metadata, said=untold(vit))


def untold(vit: ViT) -> list[str]:
    """What timm's and MAE's layouts have no place for, and their code takes from its caller."""
    return [
        f"{vit.num_heads} heads, layer norm eps {vit.anatomy.norm_eps:g}, pixel mean "
        f"{numbers(vit.pixel_mean)} and deviation {numbers(vit.pixel_std)}: mae-bench finds these "
        "in the file; other programs have to be told"
    ]


def to_beit(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """BEiT's names, as timm has them. Keys lose their bias, which changes no output."""
    out = {}
    for key, value in state.items():
        if key.endswith("attn.qkv.bias"):
            start = key.removesuffix("qkv.bias")
            out[f"{start}q_bias"], _, out[f"{start}v_bias"] = value.chunk(3)
        else:
            out[re.sub(r"ls([12])\.gamma$", r"gamma_\1", key)] = value
    return out


TO_HUGGING_FACE = {
    r"^patch_embed\.proj": "embeddings.patch_embeddings.projection",
    r"^cls_token$": "embeddings.cls_token",
    r"^pos_embed$": "embeddings.position_embeddings",
    r"^norm\.": "layernorm.",
    r"^blocks\.": "encoder.layer.",
    r"\.norm1\.": ".layernorm_before.",
    r"\.norm2\.": ".layernorm_after.",
    r"\.mlp\.fc1\.": ".intermediate.dense.",
    r"\.mlp\.fc2\.": ".output.dense.",
    r"\.attn\.proj\.": ".attention.output.dense.",
    r"\.attn\.relative": ".attention.attention.relative_position_bias.relative",
    r"\.attn\.": ".attention.attention.",
    r"\.ls([12])\.gamma$": r".lambda_\1",
}


def to_hugging_face(state: dict[str, Tensor], is_beit: bool) -> dict[str, Tensor]:
    """The names in files of transformers' `ViTModel`, or of its `BeitModel`."""
    apart = {}
    for key, value in state.items():
        if ".qkv." in key:
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                apart[key.replace("qkv", part)] = piece
        else:
            apart[key] = value
    out = {}
    for key, value in apart.items():
        if is_beit and key.endswith("attn.key.bias"):
            continue  # BEiT's keys have none; it changes no output
        for pattern, new in TO_HUGGING_FACE.items():
            key = re.sub(pattern, new, key)
        out[key] = value
    return out


def hugging_face_config(vit: ViT, is_beit: bool) -> dict[str, Any]:
    """The configuration that `ViTModel` or `BeitModel` needs to compute what `vit` does."""
    config: dict[str, Any] = {
        "model_type": "beit" if is_beit else "vit",
        "architectures": ["BeitModel" if is_beit else "ViTModel"],
        "hidden_size": vit.embed_dim,
        "num_hidden_layers": vit.depth,
        "num_attention_heads": vit.num_heads,
        "intermediate_size": 4 * vit.embed_dim,
        "image_size": vit.image_size,
        "patch_size": vit.patch_size,
        "layer_norm_eps": vit.anatomy.norm_eps,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    if not is_beit:
        return config
    return config | {
        "use_absolute_position_embeddings": vit.anatomy.absolute_position,
        "use_relative_position_bias": vit.anatomy.relative_position,
        "use_mean_pooling": not vit.anatomy.final_norm,
        "layer_scale_init_value": vit.anatomy.layer_scale or 0.0,
        "drop_path_rate": 0.0,
    }


def hugging_face_processor(vit: ViT) -> dict[str, Any]:
    """The image processor that normalises as `vit`'s weights want it."""
    side = {"height": vit.image_size, "width": vit.image_size}
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": side,
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(vit.pixel_mean),
        "image_std": list(vit.pixel_std),
    }


def convert(
    checkpoint: str | Path, to: str, reading: Reading = AS_IT_IS
) -> tuple[Export, LoadReport]:
    """A checkpoint's encoder in another layout, at its own image size, and what became of its keys.

    Raises `BackboneError` for what `backbones.load` and `export` refuse, and where nothing tells
    the number of heads or the image size.
    """
    file, converted, report = read(checkpoint, reading)
    found = inspected(file, converted, report)
    arguments = shape(found)
    anatomy = replace(converted.anatomy, num_heads=found.size.num_heads)
    with torch.device("meta"):  # a file that claims a large network does not get the memory
        own = ViT(*arguments, anatomy=anatomy).state_dict()
    given = {key: value for key, value in converted.state.items() if key != SHARED_TABLE}
    if SHARED_TABLE in converted.state:
        own = {key: value for key, value in own.items() if not key.endswith(BIAS_TABLE)}
    check_shapes(file, "its own size", given, own)
    vit = ViT(*arguments, anatomy=anatomy)
    load_into(vit, file, converted, report)
    report.assumed = found.assumed
    return export(vit, to), report


def shape(found: Inspection) -> tuple[str, Size, int]:
    """Name, size and image size of the backbone that an inspected file fits."""
    if not found.size.num_heads:
        raise BackboneError(
            f"checkpoint {found.file}: nothing tells its number of heads; name it with --heads, or "
            "put the config.json of its model beside it"
        )
    if found.image_size is None:
        raise BackboneError(f"checkpoint {found.file}: its positions tell no image size")
    name = found.backbones[0] if found.backbones else found.format
    return name, found.size, found.image_size
