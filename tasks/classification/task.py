"""Classification as a task: a classifier with its data, loss and metrics.

Shapes: B images, K classes, S image side.
"""

import math
from collections.abc import Iterator
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.vit import ViT
from tasks.classification.accuracy import Report, answers, score
from tasks.classification.augment import BatchAugment
from tasks.classification.classifier import Classifier, check_size
from tasks.classification.data import EvalImages, TrainImages
from tasks.classification.labelled import LabelledImages
from tasks.classification.pictures import tile
from tasks.classification.recipe import ClassificationRecipe
from tasks.classification.scores import MOST_KEPT
from tasks.errors import TaskError
from tasks.images import Unreadable, decode
from tasks.prediction import Prediction
from tasks.task import SCORING, Batch, Scored, Scoring, Task


class Classification(Classifier, Task):
    """A classifier on a backbone, with its data, loss and metrics.

    Raises `TaskError` if the data is not as expected or the backbone takes another image size.
    The classifier is initialised from torch's global generator.
    """

    recipe: ClassificationRecipe
    train_data: TrainImages
    has_logits = True

    def __init__(
        self,
        recipe: ClassificationRecipe,
        backbone: ViT,
        data: LabelledImages,
        seed: int,
        limit: int | None = None,
    ) -> None:
        """`limit`: that many images of each split only, taken evenly from the classes."""
        check_size(recipe, backbone)
        data = data.limited(limit)
        super().__init__(recipe, backbone, len(data.classes))
        self.data = data
        self.train_data = TrainImages(data.train, recipe, backbone.pixel_mean, seed)
        self.augment = BatchAugment(recipe, self.num_classes)
        freeze(backbone, recipe.trained_blocks)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of a batch with "images" uint8 (B, 3, S, S) and "targets" int64 (B,).

        Soft-target cross-entropy on mixed images, label-smoothed cross-entropy on others; those
        also give "top1" in percent.
        """
        images, targets = self.normalise(batch["images"]), batch["targets"]
        if self.training:
            images, targets = self.augment(images, targets)
        logits = self.logits(images)
        if targets.ndim == 2:  # mixing has smoothed them already
            return {"loss": F.cross_entropy(logits, targets)}
        loss = F.cross_entropy(logits, targets, label_smoothing=self.recipe.label_smoothing)
        hits = logits.detach().argmax(dim=1) == targets
        return {"loss": loss, "top1": 100 * hits.float().mean()}

    def train(self, mode: bool = True) -> Self:
        """Blocks without a parameter that trains stay as in evaluation: no stochastic depth."""
        super().train(mode)
        for block in self.backbone.blocks:
            block.train(mode and any(p.requires_grad for p in block.parameters()))
        return self

    @property
    def num_layers(self) -> int:
        return self.backbone.depth + 1

    def layer_index(self, name: str) -> int:
        """Layer of a parameter: the backbone's own for `backbone.*`, the last for the rest."""
        part, _, rest = name.partition(".")
        return self.backbone.layer_index(rest) if part == "backbone" else self.num_layers

    def no_decay(self) -> set[str]:
        return {f"backbone.{name}" for name in self.backbone.no_decay()}

    def notes(self) -> list[str]:
        return list(self.data.notes)

    @torch.no_grad()
    def evaluate(self, how: Scoring = SCORING) -> Scored:
        """Score on the val set: "top1", "top5" and "per_class" in percent, with intervals.

        "top5" needs six classes; "per_class" is the mean of the classes' accuracies. The test
        transform is the MAE release's (util/datasets.py): the shorter side resized to
        image_size / crop_ratio, bicubic, then the centre. Images that do not decode are left out
        of the percentages and named in a warning. The folder gets the files of `accuracy.finish`.
        """
        recipe, split = self.recipe, self.data.val
        was_training = self.training
        self.eval()
        try:
            return score(
                self.predict,
                EvalImages(split, recipe.image_size, recipe.crop_ratio),
                Report(split.names, self.data.classes, images=split),
                torch.device(how.device or self.mean.device),
                how,
            )
        finally:
            self.train(was_training)

    @torch.no_grad()
    def predictions(self, how: Scoring = SCORING) -> Iterator[Prediction | Unreadable]:
        """The best classes of each image, as `evaluate` finds them, with probabilities."""
        split, classes = self.data.val, self.data.classes
        device = torch.device(how.device or self.mean.device)
        images = EvalImages(split, self.recipe.image_size, self.recipe.crop_ratio)
        self.eval()
        for index in range(len(images)):
            batch = images[[index]]
            if batch["skipped"]:
                yield from batch["skipped"]
                continue
            logits = self.predict(batch["images"].to(device))
            every = min(MOST_KEPT, len(classes))
            found = answers(logits, batch["targets"], batch["index"], kept=every)
            best, shares = found.best[0], found.probabilities[0]
            pairs = zip(best.tolist(), shares.tolist(), strict=True)
            rows = [{"class": classes[label], "probability": share} for label, share in pairs]
            pixels = decode(split.path(index), split.upright)
            yield Prediction(index, {"classes": rows}, tile(pixels, None, best, shares, classes))


HALF_BLOCK = ("norm2.", "mlp.", "ls2.")
"""what "0.5 blocks" trains of the last one: its MLP, with its norm and layer scale"""


def freeze(backbone: ViT, trained_blocks: float | None) -> None:
    """Let the last blocks alone train, and the final norm with them; None or all: everything.

    With all blocks the stem trains too, so that a curve over blocks ends in fine-tuning. Raises
    `TaskError` for more blocks than there are.
    """
    depth = backbone.depth
    if trained_blocks is not None and trained_blocks > depth:
        raise TaskError(
            f"trained_blocks is {trained_blocks:g}; {backbone.name} has {depth} blocks: expected "
            f"at most {depth}"
        )
    if trained_blocks is None or trained_blocks == depth:
        backbone.requires_grad_(True)
        return
    for name, parameter in backbone.named_parameters():
        layer = backbone.layer_index(name)  # of block i: i + 1
        trains = trained_blocks > 0 and layer > depth - math.ceil(trained_blocks)
        if trained_blocks == 0.5 and layer == depth:
            trains = name.split(".", 2)[2].startswith(HALF_BLOCK)
        parameter.requires_grad_(trains)
