"""Classification as everybody else sees it: a task for each data set. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.check import Check, Progress
from tasks.classification.datasets import DATASETS, FOLDER, ROBUSTNESS
from tasks.face import DatasetRow, Face, Hints, Metric, require
from tasks.recipe import Recipe

if TYPE_CHECKING:
    from tasks.miniature.twin import Twin
    from tasks.task import Task

CORRUPTED = "imagenet_c"
PREDICTIONS_FILE = "predictions.csv"


class ClassificationFace(Face):
    """Classification of whole images."""

    tasks: ClassVar = {
        "imagenet1k": "classification, top-1 and top-5 accuracy in %",
        "inat2017": "classification of species",
        "inat2018": "classification of species",
        "inat2019": "classification of species",
        "places205": "classification of places",
        "places365": "classification of places",
        "folder": "classification of your own images, in class folders",
    }
    metrics: ClassVar = {"top1": Metric("top-1", "%"), "mce": Metric("mCE", "%", "lower")}
    titles: ClassVar = {
        "imagenet1k": "ImageNet-1k",
        "inat2017": "iNaturalist 2017",
        "inat2018": "iNaturalist 2018",
        "inat2019": "iNaturalist 2019",
        "places205": "Places205",
        "places365": "Places365",
        "imagenet_a": "ImageNet-A",
        "imagenet_c": "ImageNet-C",
        "imagenet_r": "ImageNet-R",
        "imagenet_sketch": "ImageNet-Sketch",
        "folder": "images in class folders",
    }
    protocol_titles: ClassVar = {
        "finetune": "fine-tuning",
        "finetune-448": "fine-tuning at 448 pixels",
        "linear": "linear probing",
        "knn": "k-nearest neighbours",
        "logistic": "logistic regression",
        "scratch": "training from scratch",
        "small": "fine-tuning, our recipe for few images",
        "released": "classifiers as released",
    }
    group = "classification"
    hints = Hints(
        tasks={
            FOLDER.name: "your own images in train/<class>/ and val/<class>/, or one folder of "
            "class folders, which is split"
        },
        protocols={"partial:K": "the last K blocks train; partial:all: the whole curve"},
        tests={FOLDER.name: "its class folders"},
    )
    only_test = tuple(ROBUSTNESS)
    layouts = ("torch", "onnx", "timm", "hf")
    truth_with_data = False

    @property
    def recipes(self) -> Any:
        from tasks.classification import recipes

        return recipes

    def datasets(self) -> list[DatasetRow]:
        rows = [
            DatasetRow(
                each.name,
                each.num_classes,
                each.num_train,
                each.num_val,
                each.gigabytes,
                each.layout,
                {archive.name: archive.holds for archive in each.archives if archive.needed},
            )
            for each in DATASETS.values()
        ]
        for test in ROBUSTNESS.values():
            images = test.num_sets * test.num_images
            known = (test.name, test.num_classes, None, images, test.gigabytes, test.layout)
            names = {each.name: each.holds or ((test.folder,),) for each in test.archives}
            rows.append(DatasetRow(*known, names))
        return rows

    def twins(self) -> Sequence[Twin]:
        """Also the unlabelled images, of the same scenes, that pre-training takes."""
        from tasks.miniature.imagenet import IMAGENET, UNLABELLED
        from tasks.miniature.inaturalist import INATURALIST
        from tasks.miniature.places import PLACES205, PLACES365
        from tasks.miniature.robustness import ROBUSTNESS

        return (IMAGENET, *ROBUSTNESS, UNLABELLED, *INATURALIST, PLACES205, PLACES365)

    def read(self, task: str, source: str | Path) -> Any:
        from tasks.classification import layout

        return layout.read(task, Path(source))

    def check(
        self, name: str, source: str | Path, on_progress: Progress | None, max_bad_images: int
    ) -> Check:
        from tasks.classification.check import check

        return check(name, source, on_progress, max_bad_images=max_bad_images)

    def splits(self, source: str | Path) -> bool:
        """One's own class folders without train/ and val/."""
        from tasks.classification.class_folders import visible
        from tasks.classification.one_folder import is_one_folder
        from tasks.stores import opened

        root = opened(source)
        return root.is_dir() and is_one_folder(visible(root)[0])

    def held_out(self, root: Path) -> dict[str, list[Path]]:
        from tasks.classification.held_out import held_out

        return held_out(root)

    def export(self, task: Task, classes: Sequence[str], to: str, folder: Path) -> str:
        from tasks.classification.classifier import Classifier
        from tasks.classification.exporting import export

        assert isinstance(task, Classifier)
        return export(task, classes, to, folder)

    def images_alone(
        self, root: Path, names: Sequence[str], classes: Sequence[str], weights: Collection[str]
    ) -> Any:
        from tasks.classification.alone import images_alone

        return images_alone(root, names, classes)

    def check_test(
        self,
        name: str,
        source: str | Path,
        classes: Sequence[str],
        on_progress: Progress | None,
        max_bad_images: int,
    ) -> Check | None:
        """One's own test folder, of class folders alone."""
        if name != FOLDER.name:
            return None
        from tasks.classification.alone import check, locate

        folder = locate(source)
        return check(folder, classes, on_progress, max_bad_images) if folder else None

    def build(
        self, task: str, recipe: Recipe, backbone: Any, data: Any, seed: int, limit: int | None
    ) -> Any:
        from tasks.classification.probe_recipes import KnnRecipe, LogisticRecipe
        from tasks.classification.recipe import ClassificationRecipe

        if isinstance(data, str | Path):
            data = self.read(task, data)
        if isinstance(recipe, KnnRecipe | LogisticRecipe):
            from tasks.classification.probe import Probe

            return Probe(recipe, backbone, data, seed, limit)
        from tasks.classification.task import Classification

        assert isinstance(recipe, ClassificationRecipe)
        return Classification(recipe, backbone, data, seed, limit)

    def rescore(self, task: str, folder: Path, data: Any) -> Any:
        from tasks.classification import scores
        from tasks.classification.robustness import rescore_views
        from tasks.learnt import CLASSES_FILE, read_classes

        file, names = folder / PREDICTIONS_FILE, folder / CLASSES_FILE
        require(file)
        num_classes = len(read_classes(names)) if names.is_file() else None
        if data is not None:
            scores.compare_targets(file, data.val.names, data.val.targets, num_classes)
        found = (rescore_views if task == CORRUPTED else scores.rescore)(file, num_classes)
        found.images = len(scores.read_predictions(file)[0])
        return found


FACE = ClassificationFace()
