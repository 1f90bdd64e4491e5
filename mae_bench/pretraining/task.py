"""A method of pre-training wearing the face of a task: what all methods share."""

import os
from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tasks
from backbones.colour import IMAGENET_MEAN, IMAGENET_STD
from backbones.reading import Reading
from backbones.report import LoadReport
from backbones.vit import ViT
from mae_bench.pretraining.recipes import PretrainRecipe
from mae_bench.pretraining.tokenizer import Tokenizer
from tasks.classification.class_folders import named_by_wnids
from tasks.classification.datasets import IMAGENET_1K
from tasks.images import UnlabelledImages
from tasks.task import SCORING, Scored, Scoring, Task, TrainData


class Pretraining(Task):
    """What `pretrain` asks of a task: data, a network with an encoder, and a loss.

    See `tasks.task.Task` for `after_step`, which momentum encoders need. What `evaluate` finds is
    recorded beside the loss.
    """

    method: str
    """its name, in the metadata of the weights"""
    folders: list[Path]
    """of the images"""
    tokenizer: Tokenizer | None = None
    """of the tokens to be predicted; its weights are in no state, and not trained"""

    @property
    @abstractmethod
    def encoder(self) -> ViT | None:
        """What downstream tasks take; None: there is none."""

    @abstractmethod
    def continue_from(self, checkpoint: str | Path, reading: Reading) -> LoadReport:
        """Start from a checkpoint's weights and its pixel statistics."""

    def encoder_state(self) -> dict[str, Tensor]:
        """The tensors that downstream tasks load, in a layout that `backbones.load` takes."""
        assert self.encoder is not None
        return self.encoder.state_dict()

    def tokens(self, images: Tensor) -> Tensor:
        """Tokens int64 (B, N), row by row, of a view uint8 (B, 3, T, T)."""
        assert self.tokenizer is not None  # `pretrain` gives one where `Method.codebook` asks
        return self.tokenizer.encoder.to(images.device).tokens(images)

    def whole(self) -> tuple[str, dict[str, Tensor]] | None:
        """Name and tensors of a file of more than the encoder, in the method's own layout."""
        return None

    def facts(self) -> dict[str, Any]:
        """What the weights' metadata say besides method, recipe and origin."""
        return {"image_size": self.recipe.image_size}

    def picture(self, folder: Path) -> tuple[str, Path] | None:
        """Write a picture into the run's folder: what it shows, and its file; None: there is none.

        With `Task.train_data` as it is after training, in the first process alone.
        """
        return None


class PretrainingTask(Pretraining):
    """Images without labels, a network and its loss.

    A subclass makes the network, sets `train_data` if its batches hold more than a crop of each of
    `images`, and computes the loss in `forward`.
    """

    recipe: PretrainRecipe
    train_data: TrainData
    mean: Tensor
    std: Tensor

    def __init__(self, recipe: PretrainRecipe, folders: list[Path], seed: int) -> None:
        super().__init__()
        self.recipe, self.folders = recipe, folders
        size, area = recipe.image_size, recipe.min_crop_area
        upright = not all(named_by_wnids(folder) for folder in folders)
        what = {what: files for each in folders for what, files in tasks.held_out(each).items()}
        self.images = images = UnlabelledImages(
            folders, size, area, seed, upright, leave_out=what, **self.cuts()
        )
        self.train_data = images
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def cuts(self) -> dict[str, Any]:
        """What `UnlabelledImages` is to know besides the recipe's size and area."""
        return {}

    @abstractmethod
    def start_from(self, checkpoint: str | Path, reading: Reading) -> LoadReport:
        """Load weights to begin with; the pixel statistics are taken from the report."""

    def continue_from(self, checkpoint: str | Path, reading: Reading) -> LoadReport:
        report = self.start_from(checkpoint, reading)
        self.mean.copy_(torch.tensor(report.pixel_mean).view(3, 1, 1))
        self.std.copy_(torch.tensor(report.pixel_std).view(3, 1, 1))
        return report

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) to float, ImageNet's mean and deviation taken out, or the weights'."""
        return images.float().sub_(255 * self.mean).div_(255 * self.std)

    def layer_index(self, name: str) -> int:
        return 0  # layer decay is a fine-tuning device

    @property
    def num_layers(self) -> int:
        return 0

    def data_facts(self) -> dict[str, Any]:
        """See `Task`."""
        images, root = self.images, Path(os.path.commonpath(self.folders))
        return {
            "name": root.resolve().name,
            "fingerprint": images.fingerprint,
            "train_images": len(images),
            "val_images": 0,
            "classes": 0,
            "standard": len(images) == IMAGENET_1K.num_train,
            "upright": images.upright,
        }

    def notes(self) -> list[str]:
        return self.images.notes()

    def evaluate(self, how: Scoring = SCORING) -> Scored:
        return Scored({})
