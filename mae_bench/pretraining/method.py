"""What everybody else asks about a method of pre-training. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mae_bench.pretraining.recipes import PRETRAIN
from tasks.check import MAX_BAD_IMAGES
from tasks.recipe import Sourced, TrainingRecipe, complete, said_by

if TYPE_CHECKING:
    from mae_bench.pretraining.task import Pretraining


class Method(ABC):
    """A method of pre-training: `mae-bench pretrain --method NAME`."""

    name: ClassVar[str]
    """also that in protocol ids, `pretrain/NAME@1`, and in the metadata of its weights"""
    title: ClassVar[str]
    """in reports"""
    recipe_type: ClassVar[type[TrainingRecipe]]
    continues: ClassVar[bool] = True
    """whether it can start from the weights of a file"""

    makes_encoder: ClassVar[bool] = True
    """whether downstream tasks can take what it makes"""

    @abstractmethod
    def rows(self, backbone: str) -> Sourced:
        """Every field of the recipe but protocol and backbone, with its value and its source."""

    def sourced(self, backbone: str) -> Sourced:
        """Every field of the recipe with its value and where that comes from."""
        asked = said_by(
            "what was asked for", protocol=f"{PRETRAIN}/{self.name}@1", backbone=backbone
        )
        return complete(self.recipe_type, self.rows(backbone) | asked)

    def codebook(self, recipe: Any) -> int | None:
        """Codes of the tokenizer whose tokens are predicted; None: none is needed."""
        return None

    def read(self, source: str | Path, max_bad_images: int = MAX_BAD_IMAGES) -> Any:
        """The data that `--data` means, for `build`; `RunError` or `TaskError` where there are
        none.

        By default a list of folders of images without labels.
        """
        return self.find(source)

    def find(self, source: str | Path) -> list[Path]:
        """The folders that `--data` means, unread; `RunError` where there are none."""
        from mae_bench.data import pretraining_folders

        return pretraining_folders(source)

    @abstractmethod
    def build(self, recipe: Any, data: Any, seed: int) -> Pretraining:
        """The task, of what `read` returned."""
