"""COCO as everybody else sees it. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.check import Check, Progress
from tasks.coco import datasets as facts
from tasks.face import DatasetRow, Face, Hints, Metric, require
from tasks.recipe import Recipe

if TYPE_CHECKING:
    from tasks.miniature.twin import Twin

PREDICTIONS_FILE = "predictions.json"


class CocoFace(Face):
    """Object detection and instance segmentation."""

    tasks: ClassVar = {"coco": "object detection and instance segmentation, box and mask AP"}
    metrics: ClassVar = {"ap_box": Metric("box AP"), "ap_mask": Metric("mask AP")}
    titles: ClassVar = {"coco": "COCO"}
    protocol_titles: ClassVar = {
        "mask_rcnn-vitdet": "Mask R-CNN (ViTDet)",
        "mask_rcnn-fpn": "Mask R-CNN (four-stage FPN)",
    }
    hints = Hints(
        sources={"coco": "TRAIN.json,VAL.json, your own annotations"}, tests={"coco": "VAL.json"}
    )
    pictures = "Detections"
    layouts = ("torch",)

    @property
    def recipes(self) -> Any:
        from tasks.coco import recipes

        return recipes

    def datasets(self) -> list[DatasetRow]:
        size = sum(archive.size for archive in facts.ARCHIVES.values()) / 1e9
        train, val = facts.NUM_IMAGES["train"], facts.NUM_IMAGES["val"]
        names = {each.name: ((folder,),) for folder, each in facts.ARCHIVES.items()}
        return [DatasetRow("coco", facts.NUM_CLASSES, train, val, size, facts.LAYOUT, names)]

    def takes(self, source: str | Path) -> bool:
        """TRAIN.json,VAL.json, one's own annotations."""
        return ".json" in str(source).lower()

    def twins(self) -> Sequence[Twin]:
        from tasks.miniature.coco import COCO

        return (COCO,)

    def read(self, task: str, source: str | Path) -> Any:
        from tasks.coco import layout

        return layout.read(source)

    def check(
        self, name: str, source: str | Path, on_progress: Progress | None, max_bad_images: int
    ) -> Check:
        from tasks.coco.check import check

        return check(source, on_progress, max_bad_images=max_bad_images)

    def images_alone(
        self, root: Path, names: Sequence[str], classes: Sequence[str], weights: Collection[str]
    ) -> Any:
        from tasks.coco.alone import images_alone

        return images_alone(root, names, classes, weights)

    def check_test(
        self,
        name: str,
        source: str | Path,
        classes: Sequence[str],
        on_progress: Progress | None,
        max_bad_images: int,
    ) -> Check | None:
        """VAL.json alone."""
        from tasks.coco.alone import check, is_alone

        return check(source, classes, on_progress, max_bad_images) if is_alone(source) else None

    def as_trained(self, data: Any, names: Collection[str]) -> Any:
        from tasks.coco.alone import as_trained

        return as_trained(data, names)

    def build(
        self, task: str, recipe: Recipe, backbone: Any, data: Any, seed: int, limit: int | None
    ) -> Any:
        from tasks.coco.recipes import CocoRecipe
        from tasks.coco.task import Coco

        assert isinstance(recipe, CocoRecipe)
        return Coco(recipe, backbone, data, seed, limit)

    def rescore(self, task: str, folder: Path, data: Any) -> Any:
        from tasks.coco.evaluation import rescore

        require(folder / PREDICTIONS_FILE)
        return rescore(folder / PREDICTIONS_FILE, data)

    def export(self, task: Any, classes: Sequence[str], to: str, folder: Path) -> str:
        from tasks.coco.exporting import export

        return export(task, classes, to, folder)

    def scratch_note(self, protocol: str, backbone: str) -> str | None:
        from tasks.coco import recipes

        return recipes.scratch_note(protocol, backbone)


FACE = CocoFace()
