"""What everybody else asks about a task: one face for each folder of tasks. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tasks.check import Check, Progress
from tasks.errors import TaskError
from tasks.recipe import Recipe

if TYPE_CHECKING:
    from tasks.miniature.twin import Twin
    from tasks.task import Measurement, Scored, Task


PARTIAL = "partial:K"
"""protocol of fine-tuning the last K blocks alone, where a task has it"""
CURVE = "partial:all"
"""no protocol: a run for each point of that one's curve"""


@dataclass(frozen=True)
class Metric:
    """A score as tables show it."""

    title: str
    unit: str = ""
    better: Literal["higher", "lower"] = "higher"


@dataclass(frozen=True)
class DatasetRow:
    """The official release of a data set, as `mae-bench data list` shows it."""

    name: str
    classes: int
    """0 here and below: any number, the data being the user's"""
    train_images: int | None
    """None: it only tests"""
    test_images: int
    gigabytes: float | None
    """on disk, about; None: not known"""
    layout: str
    """the files below the data folder"""
    archives: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    """those of the official release that are needed -> what each unpacks to, relative to the data
    folder, one of each tuple"""


@dataclass(frozen=True)
class Hints:
    """What --help says of tasks and protocols besides their names, by name."""

    tasks: Mapping[str, str] = field(default_factory=dict)
    protocols: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    """task -> what it takes in place of the official folder"""
    tests: Mapping[str, str] = field(default_factory=dict)
    """task -> a test set alone"""


class Face(ABC):
    """A task, or several that differ in their data alone."""

    tasks: ClassVar[Mapping[str, str]]
    """task -> what it measures"""
    metrics: ClassVar[Mapping[str, Metric]]
    """those of its scores that tables show; the first that a run has is the headline"""
    titles: ClassVar[Mapping[str, str]]
    """task, or data set that only tests -> its title in reports, in their order"""
    protocol_titles: ClassVar[Mapping[str, str]]
    """protocol -> its title in reports, in their order"""
    group: str = ""
    """what several tasks are called together"""
    hints: Hints = Hints()
    pictures: str = "Predictions"
    """heading of the pictures of its runs"""
    only_test: Sequence[str] = ()
    """data sets that are no task: they test what another one has trained"""
    layouts: Sequence[str] = ()
    """for other programs, that `export` writes its networks in"""
    truth_with_data: bool = True
    """whether predictions alone do not tell the score: the truth lies with the data set"""

    @property
    @abstractmethod
    def recipes(self) -> Any:
        """The module with PROTOCOLS, `recipe_type` and `sourced`; some have OF_ONE_TASK.

        Where PARTIAL is among the protocols, `curve(backbone)` is its points, the fewest blocks
        first.
        """

    @abstractmethod
    def datasets(self) -> list[DatasetRow]:
        """Its data sets, also those that only test."""

    @abstractmethod
    def read(self, task: str, source: str | Path) -> Any:
        """A data set with train, val, classes, fingerprint, standard, `limited` and `divided`.

        `divided(share, seed)` is one of the training images alone: `share` of them in place of the
        test images, the rest to train on.

        Raises `TaskError` if it is not as expected.
        """

    @abstractmethod
    def check(
        self, name: str, source: str | Path, on_progress: Progress | None, max_bad_images: int
    ) -> Check:
        """All that can be said of a data set before it is used; see `tasks.check_data`."""

    @abstractmethod
    def build(
        self, task: str, recipe: Recipe, backbone: Any, data: Any, seed: int, limit: int | None
    ) -> Measurement:
        """The task around a backbone. `data` is a source, or what `read` has made of it."""

    @abstractmethod
    def rescore(self, task: str, folder: Path, data: Any) -> Scored:
        """The scores of the predictions in a run's folder; `data` is what `read` returns.

        Without `truth_with_data` it may be None: then the truth that lies with the predictions is
        taken as it is, and else compared. Raises `TaskError` without predictions.
        """

    def twins(self) -> Sequence[Twin]:
        """What the miniature world draws for it: data sets of the same names, if any."""
        return ()

    def held_out(self, root: Path) -> dict[str, list[Path]]:
        """What in `root`, if it is an official data set, pre-training is to leave out.

        Words -> files; none of folders whose names say it. Raises `TaskError` if there is nothing
        that tells them.
        """
        return {}

    def check_test(
        self,
        name: str,
        source: str | Path,
        classes: Sequence[str],
        on_progress: Progress | None,
        max_bad_images: int,
    ) -> Check | None:
        """All that can be said of a test set alone, for a model that has learnt `classes`.

        Its data have no training images. None: `source` is a whole data set, for `check`.
        """
        return None

    def images_alone(
        self, root: Path, names: Sequence[str], classes: Sequence[str], weights: Collection[str]
    ) -> Any:
        """A data set without training images whose test images, below `root`, have no truth.

        For a network that has learnt `classes` and has weights of these names. Raises `TaskError`
        where images alone cannot be its data.
        """
        raise TaskError(f"{', '.join(self.tasks)}: predicts nothing for images alone")

    def export(self, task: Task, classes: Sequence[str], to: str, folder: Path) -> str:
        """Write a trained network into `folder` in one of `layouts`, and compare; how to read it.

        Raises `TaskError` where that cannot be.
        """
        raise TaskError(f"{', '.join(self.tasks)}: there is no layout {to}")

    def as_trained(self, data: Any, names: Collection[str]) -> Any:
        """`data` for a network with weights of these names, which may have learnt less, or more.

        Raises `TaskError` where the two do not fit each other.
        """
        return data

    def takes(self, source: str | Path) -> bool:
        """Whether a source that is no folder is a form of its own."""
        return False

    def splits(self, source: str | Path) -> bool:
        """Whether a source has no test set of its own, and is split here."""
        return False

    def scratch_note(self, protocol: str, backbone: str) -> str | None:
        """What a protocol's source does otherwise with random weights, for the user, if so."""
        return None


def require(predictions: Path) -> None:
    """Raise `TaskError` unless a run has kept these."""
    if not predictions.exists():
        raise TaskError(f"holds no {predictions.name}; a run that kept none cannot be re-scored")
