"""Semantic segmentation as everybody else sees it. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.ade20k import datasets as facts
from tasks.check import Check, Progress
from tasks.face import DatasetRow, Face, Metric, require
from tasks.recipe import Recipe

if TYPE_CHECKING:
    from tasks.miniature.twin import Twin

PREDICTIONS_FOLDER = "predictions"
GIGABYTES = 1
"""disk that ADE20K takes, unconfirmed"""


class Ade20kFace(Face):
    """Semantic segmentation."""

    tasks: ClassVar = {"ade20k": "semantic segmentation, mIoU in %"}
    metrics: ClassVar = {"miou": Metric("mIoU", "%")}
    titles: ClassVar = {"ade20k": "ADE20K"}
    protocol_titles: ClassVar = {
        "upernet-512-160k": "UperNet",
        "upernet-512-100ep": "UperNet (100 epochs)",
    }
    pictures = "Segmentations"
    layouts = ("torch", "onnx")

    @property
    def recipes(self) -> Any:
        from tasks.ade20k import recipes

        return recipes

    def datasets(self) -> list[DatasetRow]:
        train, val = facts.NUM_IMAGES["train"], facts.NUM_IMAGES["val"]
        known = ("ade20k", facts.NUM_CLASSES, train, val, GIGABYTES, facts.LAYOUT)
        return [DatasetRow(*known, {f"{facts.FOLDER}.zip": ((facts.FOLDER,),)})]

    def twins(self) -> Sequence[Twin]:
        from tasks.miniature.ade20k import ADE20K

        return (ADE20K,)

    def read(self, task: str, source: str | Path) -> Any:
        from tasks.ade20k import layout

        return layout.read(source)

    def check(
        self, name: str, source: str | Path, on_progress: Progress | None, max_bad_images: int
    ) -> Check:
        from tasks.ade20k.check import check

        return check(source, on_progress, max_bad_images=max_bad_images)

    def held_out(self, root: Path) -> dict[str, list[Path]]:
        """The label images, which are images too."""
        from tasks.stores import listing

        place = root / facts.FOLDER / "annotations"
        splits = [each for each in listing(place) if each.is_folder] if place.is_dir() else []
        names = [f"{split.name}/{file.name}" for split in splits for file in listing(split.path)]
        files = sorted(place / name for name in names if name.endswith(".png"))
        return {"label images of ADE20K": files} if files else {}

    def check_test(
        self,
        name: str,
        source: str | Path,
        classes: Sequence[str],
        on_progress: Progress | None,
        max_bad_images: int,
    ) -> Check | None:
        """Test images without label images."""
        from tasks.ade20k.alone import check, locate

        root = locate(source)
        return check(root, classes, on_progress, max_bad_images) if root else None

    def images_alone(
        self, root: Path, names: Sequence[str], classes: Sequence[str], weights: Collection[str]
    ) -> Any:
        from tasks.ade20k.alone import images_alone

        return images_alone(root, names, classes)

    def build(
        self, task: str, recipe: Recipe, backbone: Any, data: Any, seed: int, limit: int | None
    ) -> Any:
        from tasks.ade20k.recipes import Ade20kRecipe
        from tasks.ade20k.task import Ade20k

        assert isinstance(recipe, Ade20kRecipe)
        return Ade20k(recipe, backbone, data, seed, limit)

    def rescore(self, task: str, folder: Path, data: Any) -> Any:
        from tasks.ade20k.evaluation import rescore

        require(folder / PREDICTIONS_FOLDER)
        return rescore(folder / PREDICTIONS_FOLDER, data)

    def export(self, task: Any, classes: Sequence[str], to: str, folder: Path) -> str:
        from tasks.ade20k.exporting import export

        return export(task, classes, to, folder)


FACE = Ade20kFace()
