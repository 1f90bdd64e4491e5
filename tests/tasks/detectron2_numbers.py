"""One small detection model in closed form, and what detectron2 computes with it.

`PYTHONPATH=benchmarks python tests/tasks/detectron2_numbers.py` writes detectron2_numbers.json
beside this file, where detectron2 is installed; the tests hold the torchvision engine to it
everywhere.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import backbones
from backbones.dense import DenseViT
from tasks.coco.mask_rcnn import Detections, MaskRCNN
from tasks.coco.pyramid import SimplePyramid, norm_layer
from tasks.coco.recipes import CocoRecipe
from tasks.coco.recipes import recipe as recipe_of

FILE = Path(__file__).with_suffix(".json")
NUM_CLASSES = 6
SIDE = 64


def case() -> CocoRecipe:
    """vit_mini with windows that need padding; everything is sampled, so nothing is random."""
    return dataclasses.replace(
        recipe_of("coco", "vit_mini", "mask_rcnn-vitdet"),
        image_size=SIDE,
        window_size=3,
        global_blocks=(1, 3),
        pyramid_channels=16,
        box_head_convs=2,
        box_head_dim=24,
        mask_head_convs=2,
        rpn_batch=5_000,
        roi_batch=700,
        rpn_candidates=(300, 200),
        proposals=150,
        max_detections=50,
    )


def noise(shape: tuple[int, ...], number: int) -> Tensor:
    """Numbers in -1..1 that look random and are the same on every machine, float32."""
    index = np.arange(int(np.prod(shape)), dtype=np.float64)
    values = np.sin(12.9898 * (index + 1) + 78.233 * (number + 1)) * 43758.5453
    return torch.from_numpy(2 * (values - np.floor(values)) - 1).float().view(shape)


@torch.no_grad()
def fill(module: nn.Module, start: int) -> None:
    """Give every parameter closed-form values of a sensible size."""
    for number, (name, parameter) in enumerate(module.named_parameters(), start):
        values = noise(tuple(parameter.shape), number)
        if parameter.ndim > 1:
            # Loud predictors, so that scores and boxes differ from one another.
            gain = 3.0 if "pred" in name or "cls" in name or "logits" in name else 1.7
            parameter.copy_(values * gain * parameter[0].numel() ** -0.5)
        else:
            parameter.copy_(0.1 * values + (1.0 if name.endswith("weight") else 0.0))


def build() -> tuple[DenseViT, SimplePyramid, MaskRCNN]:
    recipe = case()
    vit = backbones.create("vit_mini", **recipe.backbone_options())
    pyramid = SimplePyramid(vit.embed_dim, recipe.pyramid_channels, norm_layer(recipe.norm))
    detector = MaskRCNN(recipe, NUM_CLASSES)
    for start, module in ((0, vit), (1000, pyramid), (2000, detector)):
        fill(module, start)
    return vit, pyramid, detector


def inputs() -> tuple[Tensor, Tensor, list[dict[str, Any]]]:
    """Two normalised images, one of them padded, their sizes, and targets of three things."""
    sizes = torch.tensor([[SIDE, SIDE], [48, 60]])
    images = 1.5 * noise((2, 3, SIDE, SIDE), 9000)
    images[1, :, 48:], images[1, :, :, 60:] = 0, 0
    house = np.array([[8.0, 30.0], [20.5, 12.25], [33.0, 30.0], [33.0, 50.0], [8.0, 50.0]])
    parts = [
        np.array([[40.0, 5.0], [60.0, 5.0], [60.0, 21.5]]),
        np.array([[41.0, 24.0], [55.5, 24.0], [55.5, 30.0], [41.0, 30.0]]),
    ]
    sliver = [np.array([[3.0, 3.0], [44.0, 4.5], [44.0, 11.0], [3.0, 9.5]])]
    targets = [
        {
            "boxes": torch.tensor([[8.0, 12.25, 33.0, 50.0], [40.0, 5.0, 60.0, 30.0]]),
            "labels": torch.tensor([1, 4]),
            "masks": [[house], parts],
        },
        {
            "boxes": torch.tensor([[3.0, 3.0, 44.0, 11.0]]),
            "labels": torch.tensor([0]),
            "masks": [sliver],
        },
    ]
    return images, sizes, targets


def compute(levels: dict[str, Tensor], engine: Any) -> dict[str, Any]:
    """Summaries of the features, the losses of training and the detections of the test."""
    images, sizes, targets = inputs()
    engine.train()
    losses = engine.losses(levels, images, sizes, targets)
    engine.eval()
    with torch.no_grad():
        found = engine.detect(levels, images, sizes)
    return {
        "features": {name: summary(level) for name, level in levels.items()},
        "losses": {name: value.item() for name, value in losses.items()},
        "detections": [detections(each) for each in found],
    }


def summary(level: Tensor) -> list[float]:
    """Mean, deviation, and a few entries of a feature map."""
    flat = level.detach().flatten()
    picked = flat[:: max(1, len(flat) // 7)][:7].tolist()
    return [flat.mean().item(), flat.std().item(), *picked]


def detections(found: Detections) -> dict[str, list]:
    return {
        "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(),
        "labels": found.labels.tolist(),
        "mask_sums": found.masks.flatten(1).sum(dim=1).tolist(),
    }


def our_levels(vit: DenseViT, pyramid: SimplePyramid) -> dict[str, Tensor]:
    images, _, _ = inputs()
    with torch.no_grad():
        return pyramid(vit.feature_maps(images, case().taps))


def detectron2_levels(vit: DenseViT, pyramid: SimplePyramid) -> dict[str, Tensor]:
    """The same from detectron2's ViT and SimpleFeaturePyramid with our weights."""
    from detectron2_peer import Detectron2Pyramid

    images, _, _ = inputs()
    with torch.no_grad():
        return Detectron2Pyramid(case(), vit, pyramid).eval()(images)


def main() -> None:
    from tasks.coco.detectron2_engine import Detectron2MaskRCNN, from_torchvision

    vit, pyramid, detector = build()
    engine = Detectron2MaskRCNN(case(), NUM_CLASSES)
    engine.load_state_dict(from_torchvision(detector.state_dict()))
    numbers = compute(detectron2_levels(vit.eval(), pyramid.eval()), engine)
    FILE.write_text(json.dumps(rounded(numbers), indent=1) + "\n")


def rounded(value: Any) -> Any:
    """Seven significant digits: what float32 holds."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
