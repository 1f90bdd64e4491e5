"""What the training loop asks of a task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tasks.errors import TaskError
from tasks.images.unreadable import Unreadable
from tasks.prediction import Prediction
from tasks.recipe import TrainingRecipe

Batch = dict[str, Any]
"""One micro-batch. Tensors move to the device but for those named in `STAYING`; `index` (B,) says
which images they are, and `skipped` is a list of `Unreadable`."""

STAYING = ("index", "sizes")
"""tensors of a batch that stay where they were loaded: what the host reads, it need not wait for"""

Progress = Callable[[int], None]
"""called with the number of images done, over all processes that keep pace with this one"""


Say = Callable[[str], None]
"""prints a line"""


@dataclass(frozen=True)
class Scoring:
    """How a test set is scored. Nothing here changes the scores."""

    device: torch.device | str | None = None
    """where the images go; None: where the model is"""
    batch_size: int = 16
    """images at a time"""
    workers: int = 2
    """processes that load images; 0: none but this one"""
    folder: Path | None = None
    """where what the scores come from (predictions, pictures) is kept; None: nowhere"""
    save_logits: bool = False
    """keep the logits of the test images too, of tasks with `has_logits`"""
    max_bad_images: int = 50
    """test images that may be unreadable"""
    on_progress: Progress | None = None
    features: Path | None = None
    """folder of the features that probes share; None: none are kept"""
    say: Say = print
    """for what is found on the way, line by line"""


SCORING = Scoring()


@dataclass
class Scored:
    """What an evaluation found."""

    metrics: dict[str, float]
    """percentages and average precisions are 0 to 100"""
    unreadable: list[Unreadable] = field(default_factory=list)
    """test images that could not be read"""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """metric -> ends of its 95 % confidence interval over images, where there is one"""

    images: int | None = None
    """of which there are predictions, where these are scored again"""


class TrainData(Protocol):
    """A training set that makes whole micro-batches.

    A key is (epoch, index). All randomness of a sample derives from (seed, epoch, index), so a
    batch does not depend on workers, processes or what was loaded before.
    """

    def __len__(self) -> int: ...

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch: ...

    def names(self, indices: list[int]) -> list[str]:
        """File names of samples, for messages."""
        ...


class Measurement(ABC):
    """What `transfer` scores: a task that trains, or a probe of frozen features."""

    data: Any
    """name, fingerprint, train, val, classes and standard"""

    has_logits: bool = False
    """whether there are logits of the test images to keep"""

    @abstractmethod
    def evaluate(self, how: Scoring = SCORING) -> Scored:
        """Score, on all processes together, each test image once; all return the same."""

    def data_facts(self) -> dict[str, Any]:
        """The data behind a score: name, fingerprint, train_images, val_images, classes,
        `standard`, whether these are the official counts, `upright`, whether images of the
        user's own are turned by their EXIF tags, and `own`, whether classes or images are the
        user's and not the data set's."""
        data = self.data
        return {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "train_images": len(data.train),
            "val_images": len(data.val),
            "classes": len(data.classes),
            "standard": data.standard,
            "upright": getattr(data, "upright", False),
            "own": getattr(data, "own", False),
        }

    def fitted(self) -> dict[str, Tensor]:
        """What `evaluate` itself has fitted on the training set; empty where the loop trains."""
        return {}

    def skipped(self) -> list[Unreadable]:
        """Training images that `evaluate` could not read, where it fits on them."""
        return []

    def notes(self) -> list[str]:
        """What a user should hear at the start: what was left out of the data, and so on."""
        return []

    def caveats(self, processes: int) -> list[str]:
        """What sets a run by so many processes apart from its protocol, besides the recipe."""
        return []


class Task(nn.Module, Measurement):
    """Data, head, loss and metrics around a backbone.

    The loop calls the module itself: `task(batch) -> {"loss": scalar, ...}`; other entries are
    logged. Anything random inside uses torch's global generator, which the loop seeds per
    micro-batch.
    """

    recipe: TrainingRecipe
    train_data: TrainData
    epoch_images: int | None = None
    """images that an epoch of the recipe counts; None: the training set's whole batches"""

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]: ...

    @abstractmethod
    def layer_index(self, name: str) -> int:
        """Layer of the parameter `name` of this module, 0 (stem) to `num_layers` (head)."""

    @property
    @abstractmethod
    def num_layers(self) -> int: ...

    def predictions(self, how: Scoring = SCORING) -> Iterator[Prediction | Unreadable]:
        """What the network says of each image of `data.val`, in this process alone.

        Raises `TaskError` where there is nothing to predict.
        """
        raise TaskError(f"{type(self).__name__} predicts nothing for single images")

    def after_step(self, step: int, num_steps: int) -> None:
        """Called after each optimiser step: `step` of the run's `num_steps` are done."""

    def no_decay(self) -> set[str]:
        """Names of parameters exempt from weight decay besides the 1-D ones."""
        return set()

    def is_decayed(self, name: str, parameter: Tensor) -> bool:
        """Whether weight decay applies to a parameter of this module.

        To all but 1-D ones, biases and `no_decay`: facebookresearch/mae, util/lr_decay.py.
        """
        return parameter.ndim > 1 and not name.endswith(".bias") and name not in self.no_decay()
