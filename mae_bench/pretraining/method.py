"""What everybody else asks about a method of pre-training. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mae_bench.pretraining.recipes import PRETRAIN, PretrainRecipe
from tasks.recipe import Sourced, complete, said_by

if TYPE_CHECKING:
    from mae_bench.pretraining.task import PretrainingTask


class Method(ABC):
    """A method of pre-training: `mae-bench pretrain --method NAME`."""

    name: ClassVar[str]
    """also that in protocol ids, `pretrain/NAME@1`, and in the metadata of its weights"""
    title: ClassVar[str]
    """in reports"""
    recipe_type: ClassVar[type[PretrainRecipe]]

    @abstractmethod
    def rows(self, backbone: str) -> Sourced:
        """Every field of the recipe but protocol and backbone, with its value and its source."""

    def sourced(self, backbone: str) -> Sourced:
        """Every field of the recipe with its value and where that comes from."""
        asked = said_by(
            "what was asked for", protocol=f"{PRETRAIN}/{self.name}@1", backbone=backbone
        )
        return complete(self.recipe_type, self.rows(backbone) | asked)

    def read(self, source: str | Path) -> Any:
        """The data that `--data` means, for `build`; `RunError` where there are none.

        By default a list of folders of images without labels.
        """
        from mae_bench.data import pretraining_folders

        return pretraining_folders(source)

    @abstractmethod
    def build(self, recipe: Any, data: Any, seed: int) -> PretrainingTask:
        """The task, of what `read` returned."""
