"""A trained classifier, its head and its pre-processing included, for other programs.

Each layout is read back and compared with the classifier itself before it counts as written.
Shapes: B images, C channels of a token, K classes, S image side.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from backbones.exporting import hugging_face_config, to_hugging_face
from backbones.vit import MAE_ANATOMY, ViT
from tasks.classification.classifier import Classifier
from tasks.errors import TaskError
from tasks.learnt import CLASSES_FILE, write_classes
from tasks.programs import PREPROCESSING_FILE, refuse_other, write_json, write_program

Predict = Callable[[Tensor], Tensor]
"""uint8 images (B, 3, S, S) to logits (B, K)"""

TOLERANCE = 1e-4
"""of logits, by their largest magnitude, at least 1"""
TIMM = "vit_base_patch16_224"
"""the architecture whose arguments are given anew"""


def export(model: Classifier, classes: Sequence[str], to: str, folder: Path) -> str:
    """Write a classifier of `classes` into `folder` in one of `WRITERS`; how to read it.

    Raises `TaskError` for a layout that cannot hold it, for a library that is missing, and if what
    was written does not give the same logits.
    """
    model = model.eval().float().cpu()
    how, predict = WRITERS[to](model, classes, folder)
    generator = torch.Generator().manual_seed(0)
    side = model.recipe.image_size
    images = torch.randint(0, 256, (2, 3, side, side), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        ours, theirs = model.logits(model.normalise(images)), predict(images)
    refuse_other(to, ours, theirs, TOLERANCE)
    write_classes(folder / CLASSES_FILE, classes)
    return how


def head_of(model: Classifier) -> tuple[Tensor, Tensor]:
    """Weight (K, C) and bias (K,) of one linear layer; a batch norm before it goes into both."""
    *before, linear = (cast(Any, part) for part in model.head)
    weight, bias = linear.weight.detach(), linear.bias.detach()
    for norm in before:
        weight = weight * torch.rsqrt(norm.running_var + norm.eps)
        bias = bias - weight @ norm.running_mean
    return weight, bias


def plain(model: Classifier, to: str) -> ViT:
    """The classifier's ViT; `TaskError` unless it has MAE's anatomy but for heads and eps."""
    vit = model.backbone
    anatomy = getattr(vit, "anatomy", None)
    if (
        anatomy is None
        or not anatomy.absolute_position
        or anatomy.relative_position
        or anatomy.layer_scale is not None
    ):
        raise TaskError(
            f"--to {to}: {vit.name} with {anatomy} has no place in it; expected a plain ViT with "
            "absolute positions and without layer scale: use --to torch or onnx"
        )
    return vit


def shorter_side(model: Classifier) -> int:
    """Pixels to which a test image's shorter side is resized before its centre is cut."""
    return int(model.recipe.image_size / model.recipe.crop_ratio)


def colours(model: Classifier) -> tuple[list[float], list[float]]:
    """Mean and deviation of the pixels, 0 to 1."""
    return list(model.backbone.pixel_mean), list(model.backbone.pixel_std)


def normalised(model: Classifier, network: Callable[[Tensor], Tensor]) -> Predict:
    return lambda images: network(model.normalise(images))


def write_timm(model: Classifier, classes: Sequence[str], folder: Path) -> tuple[str, Predict]:
    """A folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` reads."""
    import timm

    vit = plain(model, "timm")
    mean, std = colours(model)
    patches = model.recipe.pooling == "patches"
    weight, bias = head_of(model)
    tensors = {**vit.state_dict(), "head.weight": weight, "head.bias": bias}
    if patches:
        tensors |= {f"fc_norm.{k}": v for k, v in model.fc_norm.state_dict().items()}
    config = {
        "architecture": TIMM,
        "num_classes": len(classes),
        "num_features": vit.embed_dim,
        "global_pool": "avg" if patches else "token",
        "model_args": {
            "img_size": vit.image_size,
            "patch_size": vit.patch_size,
            "embed_dim": vit.embed_dim,
            "depth": vit.depth,
            "num_heads": vit.num_heads,
            "global_pool": "avg" if patches else "token",
        },
        "label_names": list(classes),
        "pretrained_cfg": {
            "input_size": [3, vit.image_size, vit.image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": model.recipe.crop_ratio,
            "crop_mode": "center",
            "mean": mean,
            "std": std,
            "num_classes": len(classes),
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    if vit.anatomy.norm_eps != MAE_ANATOMY.norm_eps:
        raise TaskError(
            f"--to timm: its ViT has layer norms of eps {MAE_ANATOMY.norm_eps:g}, and these are of "
            f"{vit.anatomy.norm_eps:g}; use --to hf, torch or onnx"
        )
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    write_json(folder / "config.json", config)
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    how = f'timm.create_model("local-dir:{folder.name}", pretrained=True)'
    return how, normalised(model, network)


def write_hf(model: Classifier, classes: Sequence[str], folder: Path) -> tuple[str, Predict]:
    """A folder that transformers' `AutoModelForImageClassification` reads.

    Of pooled patches as a `BeitForImageClassification`, which pools them; else as
    `ViTForImageClassification`.
    """
    try:
        from transformers import AutoModelForImageClassification
        from transformers.utils import logging
    except ImportError:
        raise TaskError(
            "--to hf compares what it writes with transformers' own model; expected transformers: "
            "pip install transformers"
        ) from None
    vit = plain(model, "hf")
    patches = model.recipe.pooling == "patches"
    kind, root = ("Beit", "beit") if patches else ("ViT", "vit")
    state = to_hugging_face(vit.state_dict(), is_beit=patches)
    tensors = {f"{root}.{key}": value for key, value in state.items()}
    tensors["classifier.weight"], tensors["classifier.bias"] = head_of(model)
    config = hugging_face_config(vit, is_beit=patches)
    if patches:
        pooler = model.fc_norm.state_dict()
        tensors |= {f"beit.pooler.layernorm.{key}": value for key, value in pooler.items()}
        config |= {"use_mean_pooling": True}
    names = dict(enumerate(classes))
    config |= {
        "architectures": [f"{kind}ForImageClassification"],
        "id2label": {str(index): name for index, name in names.items()},
        "label2id": {name: index for index, name in names.items()},
    }
    mean, std = colours(model)
    side = model.recipe.image_size
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": shorter_side(model)},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }
    save_file(
        {k: v.contiguous() for k, v in tensors.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", processor)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # it would be of what is read back
    try:
        network = AutoModelForImageClassification.from_pretrained(folder).eval()
    finally:
        if shown:
            logging.enable_progress_bar()
    how = f'transformers.pipeline("image-classification", "{folder.name}")'
    return how, normalised(model, lambda images: network(pixel_values=images).logits)


class WithPixels(nn.Module):
    """uint8 images (B, 3, S, S) to logits (B, K), in float32."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.logits(self.model.normalise(images))


def as_program(model: Classifier, to: str, folder: Path) -> tuple[str, Predict]:
    """A program that needs torch alone, or ONNX, and preprocessing.json beside it."""
    how, predict = write_program(exported(model), to, folder)
    write_preprocessing(model, folder)
    return how, predict


def write_torch(model: Classifier, classes: Sequence[str], folder: Path) -> tuple[str, Predict]:
    return as_program(model, "torch", folder)


def write_onnx(model: Classifier, classes: Sequence[str], folder: Path) -> tuple[str, Predict]:
    return as_program(model, "onnx", folder)


def exported(model: Classifier) -> torch.export.ExportedProgram:
    """The classifier as a program for any number of images, two at least when it is traced."""
    side = model.recipe.image_size
    images = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=2**16)
    return torch.export.export(WithPixels(model), (images,), dynamic_shapes=({0: batch},))


def write_preprocessing(model: Classifier, folder: Path) -> None:
    side = model.recipe.image_size
    how = {
        "input": f"uint8 RGB images (B, 3, {side}, {side}); pixels are normalised inside",
        "resize_shorter_side": shorter_side(model),
        "interpolation": "bicubic",
        "center_crop": side,
    }
    write_json(folder / PREPROCESSING_FILE, how)


WRITERS = {"torch": write_torch, "onnx": write_onnx, "timm": write_timm, "hf": write_hf}
