"""The task as everybody else sees it."""

from pathlib import Path
from typing import Any, ClassVar

from tasks import TaskError
from tasks.check import Check, Finding, Progress, images
from tasks.face import DatasetRow, Face, Metric, require
from tasks.miniature.twin import Twin
from tasks.recipe import Recipe


class ToyFace(Face):
    tasks: ClassVar = {"toy": "the darkness of each pixel"}
    metrics: ClassVar = {"gap": Metric("distance", "grey levels", "lower")}
    titles: ClassVar = {"toy": "Toy pictures"}
    protocol_titles: ClassVar = {"regression": "pixel regression"}

    @property
    def recipes(self) -> Any:
        from toy_task import recipes

        return recipes

    def datasets(self) -> list[DatasetRow]:
        return [DatasetRow("toy", 0, 4, 2, None, "{train,val}/*.png {train,val}_dark/*.png")]

    def twins(self) -> list[Twin]:
        from toy_task.twin import TOY

        return [TOY]

    def read(self, task: str, source: str | Path) -> Any:
        from toy_task.reader import read

        return read(source)

    def check(
        self, name: str, source: str | Path, on_progress: Progress | None, max_bad_images: int
    ) -> Check:
        try:
            data = self.read(name, source)
        except TaskError as error:
            return Check((Finding("problem", str(error)),), None)
        splits = {"training": data.train, "test": data.val}
        found = images(splits, lambda split, row: split.image(row), on_progress)
        return Check(tuple(found), data)

    def build(
        self, task: str, recipe: Recipe, backbone: Any, data: Any, seed: int, limit: int | None
    ) -> Any:
        from toy_task.recipes import ToyRecipe
        from toy_task.task import Toy

        assert isinstance(recipe, ToyRecipe)
        return Toy(recipe, backbone, data, limit)

    def rescore(self, task: str, folder: Path, data: Any) -> Any:
        from toy_task.task import FOLDER, rescore

        require(folder / FOLDER)
        return rescore(folder, data)


FACE = ToyFace()
