"""ADE20K semantic segmentation as a task: UperNet on a plain ViT.

Shapes: B images, K classes, S side of a crop.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from backbones.checkpoint import BIAS_TABLE
from backbones.dense import DenseViT
from tasks.ade20k import layout
from tasks.ade20k.data import EvalImages, TrainImages
from tasks.ade20k.evaluation import Predict, Views, score
from tasks.ade20k.judgement import judge
from tasks.ade20k.pictures import labelled
from tasks.ade20k.recipes import Ade20kRecipe
from tasks.ade20k.slide import classes, slide
from tasks.ade20k.upernet import UperNet, resize
from tasks.dense import DenseTask
from tasks.errors import TaskError
from tasks.images import Unreadable, decode
from tasks.prediction import Prediction
from tasks.processes import num_processes
from tasks.task import SCORING, Batch, Scored, Scoring


class Ade20k(DenseTask):
    """UperNet with its data, losses and mIoU.

    Raises `TaskError` if the data or mmsegmentation is missing or not as expected. New weights
    are drawn from torch's global generator.
    """

    recipe: Ade20kRecipe
    train_data: TrainImages

    def __init__(
        self,
        recipe: Ade20kRecipe,
        backbone: DenseViT,
        data: str | Path | layout.SegmentationData,
        seed: int,
        limit: int | None = None,
    ) -> None:
        """`data`: where it lies, or as it was read; `limit`: so many images of each split only."""
        super().__init__(backbone)
        processes = num_processes()
        if processes * recipe.device_batch < 2:  # the coarsest pooled map is a single pixel
            raise TaskError(
                "device_batch is 1; batch norm needs 2 images or more in a forward pass over all "
                "processes: raise --device-batch"
            )
        self.recipe = recipe
        judged = isinstance(data, layout.SegmentationData)
        read = data if isinstance(data, layout.SegmentationData) else layout.read(data)
        if limit is not None or not judged:
            judgement = judge(read, limit)
            judgement.refuse()
            read = judgement.data
        self.data = read.limited(limit)
        self.train_data = TrainImages(
            self.data,
            recipe.image_size,
            recipe.scale,
            recipe.ratio_range,
            recipe.max_class_share,
            recipe.flip_prob,
            recipe.photometric,
            seed,
        )
        if self.data.standard:
            self.epoch_images = recipe.epoch_images
        self.segmenter = UperNet(recipe, backbone.embed_dim, len(self.data.classes))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The two losses and their sum, of the batch that `TrainImages` makes."""
        maps = self.maps(self.normalise(batch["images"], batch["sizes"]))
        losses = self.segmenter.losses(maps, batch["labels"])
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def maps(self, images: Tensor) -> list[Tensor]:
        """The backbone's maps of normalised images (B, 3, S, S)."""
        return self.backbone.feature_maps(images, self.recipe.taps)

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, K, S, S) of normalised images (B, 3, S, S), in the recipe's precision."""
        bf16 = self.recipe.precision == "bf16"
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bf16):
            found = self.segmenter(self.maps(images))
        return resize(found, images.shape[-2:])

    def predict(self, views: list[Tensor], size: tuple[int, ...], batch_size: int) -> Tensor:
        """Classes (H, W), which is `size`, of an image from its views, uint8 (3, h, w)."""
        recipe = self.recipe

        def logits_of_views() -> Iterator[tuple[Tensor, bool]]:
            for view in views:
                image = self.normalise(view)
                for mirrored in (False, True)[: 1 + recipe.test_flip]:
                    seen = image.flip(-1) if mirrored else image
                    found = slide(self.logits, seen, recipe.image_size, recipe.stride, batch_size)
                    yield found, mirrored

        return classes(logits_of_views(), size)

    def test_scales(self) -> list[tuple[int, int]]:
        """Longest and shortest side that the test's images fit in, for each of its scales.

        Below the recipe's own scale the shortest side is a crop's at least, as in BEiT's
        multi-scale test, whose backbone takes nothing smaller either; the longest side stays.
        """
        longest, shortest = self.recipe.scale
        scales = []
        for factor in self.recipe.test_scales:
            if factor < 1:
                least = max(round(factor * shortest), min(self.recipe.image_size, shortest))
                scales.append((longest, least))
            else:
                scales.append((round(factor * longest), round(factor * shortest)))
        return scales

    def is_decayed(self, name: str, parameter: Tensor) -> bool:
        """Whether weight decay applies: to everything but the recipe's `no_decay`."""
        return not self.kinds(name, parameter) & set(self.recipe.no_decay)

    def kinds(self, name: str, parameter: Tensor) -> set[str]:
        """What a parameter is, in the words of the recipe's `no_decay`."""
        last = name.rpartition(".")[2]
        found = {last} & {"bias", "pos_embed", "cls_token"}
        if parameter.ndim == 1:
            found.add("one_dimensional")
        if name.endswith(BIAS_TABLE):
            found.add("relative_position")
        return found

    @torch.no_grad()
    def evaluate(self, how: Scoring = SCORING) -> Scored:
        """Score on the val set as mmsegmentation does: "miou", "macc" and "aacc", 0 to 100.

        Each image is resized to fit the recipe's `scale`, predicted in overlapping windows,
        `batch_size` at a time, and compared at its own size. Images that cannot be read are left
        out.

        The folder gets per_class.csv, predictions.png, and predictions/ with an image for each in
        the form that ADE20K's benchmark takes.
        """
        was_training = self.training
        self.eval()
        device, predict = self.predictor(how)
        views = Views([EvalImages(self.data, scale) for scale in self.test_scales()])
        try:
            return score(predict, views, self.data, device, how)
        finally:
            self.train(was_training)

    def predictor(self, how: Scoring) -> tuple[torch.device, Predict]:
        """Where images are predicted, and how an image's views become its classes."""
        device = torch.device(how.device or self.mean.device)

        def predict(views: list[Tensor], size: tuple[int, ...]) -> Tensor:
            there = [view.to(device, non_blocking=True) for view in views]
            return self.predict(there, size, how.batch_size)

        return device, predict

    @torch.no_grad()
    def predictions(self, how: Scoring = SCORING) -> Iterator[Prediction | Unreadable]:
        """The class of each pixel, as `evaluate` finds it, and the classes' shares."""
        _, predict = self.predictor(how)
        views = Views([EvalImages(self.data, scale) for scale in self.test_scales()])
        split, classes = self.data.val, self.data.classes
        self.eval()
        for index in range(len(views)):
            item = views[index]
            if item["skipped"]:
                yield from item["skipped"]
                continue
            found = predict(item["images"], tuple(item["label"].shape)).cpu().numpy()
            counts = np.bincount(found.ravel(), minlength=len(classes))
            rows = [
                {"value": label, "class": classes[label], "share": counts[label] / found.size}
                for label in np.argsort(-counts, kind="stable").tolist()
                if counts[label]
            ]
            pixels = decode(split.path(index), upright=split.upright)
            picture = labelled(pixels, found, self.data)
            yield Prediction(index, {"classes": rows}, picture, {"labels": Image.fromarray(found)})
