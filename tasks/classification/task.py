"""Classification as a task: a backbone, pooling, a linear classifier, and ImageFolder-like data.

Shapes: B images, N patches, C channels of a token, K classes, S image side.
"""

import math
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.vit import ViT
from tasks import TaskError
from tasks.classification import layouts
from tasks.classification.accuracy import count_hits
from tasks.classification.augment import BatchAugment
from tasks.classification.data import EvalImages, TrainImages
from tasks.classification.recipe import ClassificationRecipe
from tasks.task import Batch, Progress, Scored, Task


class Classification(Task):
    """A classifier on a backbone, with its data, loss and metrics.

    With pooling "patches" the classifier sees the mean of the patch tokens before the backbone's
    final norm, through a new layer norm `fc_norm`; the backbone's own norm is taken out of it
    (facebookresearch/mae, models_vit.py). With "cls" it sees the class token after that norm.

    Raises `TaskError` if the data is not as expected or the backbone takes another image size.
    The classifier is initialised from torch's global generator.
    """

    recipe: ClassificationRecipe
    train_data: TrainImages
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        recipe: ClassificationRecipe,
        backbone: ViT,
        data_root: Path,
        seed: int,
        limit: int | None = None,
    ) -> None:
        """`limit`: that many images of each split only, taken evenly from the classes."""
        super().__init__()
        if backbone.image_size != recipe.image_size:
            raise TaskError(
                f"backbone takes {backbone.image_size}-pixel images; the recipe's image_size is "
                f"{recipe.image_size}; make both equal"
            )
        name = recipe.protocol.partition("/")[0]
        self.recipe = recipe
        self.data = layouts.read(name, data_root).limited(limit)
        self.num_classes = len(self.data.classes)
        self.train_data = TrainImages(self.data.train, recipe, backbone.pixel_mean, seed)
        self.augment = BatchAugment(recipe, self.num_classes)
        for part, colour in (("mean", backbone.pixel_mean), ("std", backbone.pixel_std)):
            self.register_buffer(part, 255 * torch.tensor(colour).view(3, 1, 1), persistent=False)

        self.backbone = backbone
        freeze(backbone, recipe.trained_blocks)
        if recipe.pooling == "patches":
            backbone.add_module("norm", nn.Identity())
            self.fc_norm = nn.LayerNorm(backbone.embed_dim, eps=1e-6)
        self.head = classifier(backbone.embed_dim, self.num_classes, recipe)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of a batch with "images" uint8 (B, 3, S, S) and "targets" int64 (B,).

        Soft-target cross-entropy on mixed images, label-smoothed cross-entropy on others; those
        also give "top1" in percent.
        """
        images, targets = self.normalize(batch["images"]), batch["targets"]
        if self.training:
            images, targets = self.augment(images, targets)
        logits = self.logits(images)
        if targets.ndim == 2:  # mixing has smoothed them already
            return {"loss": F.cross_entropy(logits, targets)}
        loss = F.cross_entropy(logits, targets, label_smoothing=self.recipe.label_smoothing)
        hits = logits.detach().argmax(dim=1) == targets
        return {"loss": loss, "top1": 100 * hits.float().mean()}

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) to float with the data set's mean and deviation taken out."""
        return (images.float() - self.mean) / self.std

    def logits(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) to float32 logits (B, K)."""
        tokens = self.backbone(images, norm=self.recipe.pooling == "cls")  # (B, 1 + N, C)
        # In bf16 the best of a thousand logits are often equal, which makes top-k arbitrary.
        with torch.autocast(images.device.type, enabled=False):
            tokens = tokens.float()
            if self.recipe.pooling == "patches":
                return self.head(self.fc_norm(tokens[:, 1:].mean(dim=1)))
            return self.head(tokens[:, 0])

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

    def data_facts(self) -> dict[str, Any]:
        data = self.data
        return {
            "name": data.facts.name,
            "fingerprint": data.fingerprint,
            "train_images": len(data.train),
            "val_images": len(data.val),
            "classes": len(data.classes),
            "standard": data.standard,
        }

    @torch.no_grad()
    def evaluate(
        self,
        *,
        limit: int | None = None,
        batch_size: int = 128,
        workers: int = 2,
        device: torch.device | str | None = None,
        on_progress: Progress | None = None,
        folder: Path | None = None,
    ) -> Scored:
        """Score on the val set: "top1" and "top5" in percent; no "top5" below six classes.

        The test transform is the MAE release's (util/datasets.py): the shorter side resized to
        image_size / crop_ratio, bicubic, then the centre. Images that do not decode are left out
        of the percentages and named in a warning.

        `limit`: that many images only, taken evenly from the classes; `device`: where the images
        go, the model's by default. Under torch.distributed each process scores its share, each
        image once, and all return the same numbers.
        """
        recipe = self.recipe
        val = EvalImages(self.data.val.limited(limit), recipe.image_size, recipe.crop_ratio)
        was_training = self.training
        self.eval()
        try:
            hits = count_hits(
                self.predict,
                val,
                torch.device(device or self.mean.device),
                batch_size=batch_size,
                workers=workers,
                on_progress=on_progress,
            )
        finally:
            self.train(was_training)
        if not hits.images:
            raise TaskError(f"no image below {self.data.val.root / 'val'} decodes; check the files")
        scores = {"top1": 100 * hits.top1 / hits.images}
        if self.num_classes > 5:
            scores["top5"] = 100 * hits.top5 / hits.images
        return Scored(scores, hits.unreadable).warn()

    def predict(self, images: Tensor) -> Tensor:
        """uint8 images (B, 3, S, S) to float32 logits (B, K), in the recipe's precision."""
        bf16 = self.recipe.precision == "bf16"
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bf16):
            return self.logits(self.normalize(images))


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


def classifier(dim: int, num_classes: int, recipe: ClassificationRecipe) -> nn.Sequential:
    """(B, C) to (B, K): a linear layer, behind a batch norm without weights if the recipe says so.

    Source: facebookresearch/mae, main_finetune.py and main_linprobe.py.
    """
    linear = nn.Linear(dim, num_classes)
    nn.init.trunc_normal_(linear.weight, std=recipe.head_init_std)
    nn.init.zeros_(linear.bias)
    if recipe.head_batch_norm:
        return nn.Sequential(nn.BatchNorm1d(dim, affine=False, eps=1e-6), linear)
    return nn.Sequential(linear)
