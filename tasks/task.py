"""What the training loop asks of a task."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from tasks.recipe import TrainingRecipe

Batch = dict[str, Any]
"""One micro-batch. Tensors move to the device; `index` (B,) and `skipped` (file names) stay."""

Progress = Callable[[int], None]
"""called with the number of images done, over all processes that keep pace with this one"""


@dataclass
class Scored:
    """What an evaluation found."""

    metrics: dict[str, float]
    """percentages and average precisions are 0 to 100"""
    unreadable: list[str] = field(default_factory=list)
    """test images that were left out"""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """metric -> ends of its 95 % confidence interval over images, where there is one"""

    def warn(self) -> "Scored":
        """Itself, after a warning that names images left out."""
        if self.unreadable:
            count, named = len(self.unreadable), ", ".join(self.unreadable[:4])
            warnings.warn(f"{count} test images unreadable: {named}", stacklevel=3)
        return self


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
    """whether `evaluate` takes `save_logits`, to keep the logits of the test images in `folder`"""

    @abstractmethod
    def evaluate(self, *args: Any, **how: Any) -> Scored:
        """Score, on all processes together.

        Given a `folder`, what the scores come from (predictions, pictures) is kept in it.
        """

    def data_facts(self) -> dict[str, Any]:
        """The data behind a score: name, fingerprint, train_images, val_images, classes, and
        `standard`, whether these are the official counts."""
        data = self.data
        return {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "train_images": len(data.train),
            "val_images": len(data.val),
            "classes": len(data.classes),
            "standard": data.standard,
        }

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

    def no_decay(self) -> set[str]:
        """Names of parameters exempt from weight decay besides the 1-D ones."""
        return set()

    def is_decayed(self, name: str, parameter: Tensor) -> bool:
        """Whether weight decay applies to a parameter of this module.

        To all but 1-D ones, biases and `no_decay`: facebookresearch/mae, util/lr_decay.py.
        """
        return parameter.ndim > 1 and not name.endswith(".bias") and name not in self.no_decay()
