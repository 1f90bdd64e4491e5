"""COCO detection and instance segmentation as a task: Mask R-CNN on a plain ViT.

Shapes: B images, S image side.
"""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from backbones.dense import DenseViT
from tasks.coco import layout
from tasks.coco.alone import BOXES_SCORED
from tasks.coco.data import EvalImages, TrainImages, decode_known
from tasks.coco.evaluation import ground_truth, score, to_results
from tasks.coco.layout import BOXES_ALONE, CocoData
from tasks.coco.mask_rcnn import Detections, MaskRCNN
from tasks.coco.pictures import detected
from tasks.coco.pyramid import FourStagePyramid, SimplePyramid, norm_layer
from tasks.coco.recipes import CocoRecipe
from tasks.dense import DenseTask
from tasks.errors import TaskError
from tasks.images import Unreadable
from tasks.prediction import Prediction
from tasks.task import SCORING, Batch, Scored, Scoring

PYRAMIDS = {"simple": SimplePyramid, "fpn": FourStagePyramid}


class Engine(Protocol):
    """Mask R-CNN over a feature pyramid; `mask_rcnn.MaskRCNN` says what goes in and comes out."""

    def losses(
        self, levels: dict[str, Tensor], images: Tensor, sizes: Tensor, targets: list[dict]
    ) -> dict[str, Tensor]: ...

    def detect(
        self, levels: dict[str, Tensor], images: Tensor, sizes: Tensor
    ) -> list[Detections]: ...


class Coco(DenseTask):
    """Mask R-CNN with its data, losses and COCO metrics.

    Raises `TaskError` if the data or an engine's library is missing or not as expected. New
    weights are drawn from torch's global generator.
    """

    recipe: CocoRecipe
    train_data: TrainImages

    def __init__(
        self,
        recipe: CocoRecipe,
        backbone: DenseViT,
        data: str | Path | CocoData,
        seed: int,
        limit: int | None = None,
    ) -> None:
        """`data`: where it lies, or as it was read; `limit`: so many images of each split only."""
        super().__init__(backbone)
        self.recipe = recipe
        found = data if isinstance(data, CocoData) else layout.read(data)
        if recipe.background_images:
            found = found.with_background()
        self.data = found.limited(limit)
        refuse_empty(self.data, limit)
        self.train_data = TrainImages(
            self.data.train,
            recipe.image_size,
            (recipe.min_scale, recipe.max_scale),
            recipe.flip_prob,
            seed,
        )
        if self.data.standard:
            self.epoch_images = recipe.epoch_images
        norm = norm_layer(recipe.norm)
        pyramid = PYRAMIDS[recipe.pyramid]
        self.pyramid = pyramid(backbone.embed_dim, recipe.pyramid_channels, norm)
        masks = self.data.masks if self.data.mask_head is None else self.data.mask_head
        self.detector: Engine = build_engine(recipe, len(self.data.classes), masks)

    def notes(self) -> list[str]:
        return self.data.report_lines()

    def caveats(self, processes: int) -> list[str]:
        scored = BOXES_SCORED if self.data.mask_head else BOXES_ALONE
        return super().caveats(processes) + ([] if self.data.masks else [scored])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The five losses, four without masks, and their sum, of what `TrainImages` makes."""
        images, sizes = batch["images"], batch["sizes"]
        targets = [
            target
            | {key: target[key].to(images.device, non_blocking=True) for key in ("boxes", "labels")}
            for target in batch["targets"]
        ]
        losses = self.detector.losses(self.levels(images, sizes), images, sizes, targets)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def levels(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """The pyramid of padded uint8 images (B, 3, S, S)."""
        maps = self.backbone.feature_maps(self.normalise(images, sizes), self.recipe.taps)
        return self.pyramid(maps)

    def predict(self, images: Tensor, sizes: Tensor) -> list[Detections]:
        """Detections in uint8 images (B, 3, S, S), in the recipe's precision."""
        bf16 = self.recipe.precision == "bf16"
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bf16):
            return self.detector.detect(self.levels(images, sizes), images, sizes)

    def is_decayed(self, name: str, parameter: Tensor) -> bool:
        """Whether weight decay applies: to everything but the recipe's `no_decay`.

        Unlike in classification, biases and 1-D tensors decay. Source: detectron2,
        solver/build.py (get_default_optimizer_params).
        """
        return not self.kinds(name) & set(self.recipe.no_decay)

    def kinds(self, name: str) -> set[str]:
        """What a parameter is, in the words of the recipe's `no_decay`."""
        owner = self.get_submodule(name.rpartition(".")[0])
        last = name.rpartition(".")[2]
        found = {"bias"} if last == "bias" else set()
        if isinstance(owner, (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)):
            found |= {"norm"} | ({"backbone_norm"} if name.startswith("backbone.") else set())
        if last == "pos_embed":
            found.add("pos_embed")
        if last.startswith("rel_pos"):
            found.add("relative_position")
        return found

    @torch.no_grad()
    def evaluate(self, how: Scoring = SCORING) -> Scored:
        """Score on the val set with faster-coco-eval: COCO's AP of boxes and masks, 0 to 100.

        "ap_box" and "ap_mask", and each with "50", "75", "_small", "_medium", "_large"; a figure
        that COCO does not define, as no object has that size, is left out. Images that do not
        decode count as images without a detection.

        The folder gets predictions.json (COCO's result format), per_class.csv and predictions.png.
        """
        was_training = self.training
        self.eval()
        device = torch.device(how.device or self.mean.device)
        try:
            images = EvalImages(self.data.val, self.recipe.image_size)
            return score(self.predict, images, self.data, device, how)
        finally:
            self.train(was_training)

    @torch.no_grad()
    def predictions(self, how: Scoring = SCORING) -> Iterator[Prediction | Unreadable]:
        """The objects of each image, as `evaluate` finds them, the surest first."""
        data, classes = self.data, self.data.classes
        device = torch.device(how.device or self.mean.device)
        images, sizes = EvalImages(data.val, self.recipe.image_size), ground_truth(data)
        self.eval()
        for index in range(len(images)):
            batch = images[[index]]
            if batch["skipped"]:
                yield from batch["skipped"]
                continue
            (detections,) = self.predict(batch["images"].to(device), batch["sizes"])
            found = to_results(detections, index, batch["sizes"][0].tolist(), data)
            found.sort(key=lambda each: -each["score"])
            rows = [
                {"class": classes[data.category_ids.index(each["category_id"])], **each}
                for each in found
            ]
            for row in rows:
                del row["image_id"], row["category_id"]
            image = Image.fromarray(decode_known(data.val, index))
            picture = detected(image, found, sizes, data)
            yield Prediction(index, {"objects": rows}, picture)


def refuse_empty(data: CocoData, limit: int | None) -> None:
    """Raise `TaskError` if the images that are left show no object."""
    for kind, split in (("training", data.train), ("test", data.val)):
        if len(split) and split.num_annotations and not split.objects.any():
            raise TaskError(
                f"the {len(split)} {kind} images that are left with limit {limit} show no object; "
                "expected some: raise the limit"
            )


def build_engine(recipe: CocoRecipe, num_classes: int, masks: bool) -> Any:
    """The Mask R-CNN of the recipe's engine; `TaskError` if its library is missing."""
    if recipe.engine == "torchvision":
        return MaskRCNN(recipe, num_classes, masks)
    for message in ("`torch.jit.script` is deprecated", "torch.meshgrid: in an upcoming release"):
        warnings.filterwarnings("ignore", message)  # detectron2's, and nothing a user can do about
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    try:
        from tasks.coco.detectron2_engine import Detectron2MaskRCNN
    except ImportError as error:
        raise TaskError(
            f"--engine detectron2: {error}; expected detectron2, which installs from source only: "
            "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2, "
            "or use --engine torchvision"
        ) from None
    return Detectron2MaskRCNN(recipe, num_classes, masks)
