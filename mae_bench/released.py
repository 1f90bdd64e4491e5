"""A classifier as somebody released it: a backbone with its head, in one checkpoint."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import backbones
from backbones.baselines import name_of
from backbones.checkpoint import read_tensors
from backbones.report import LoadReport
from mae_bench.arguments import refuse_label
from mae_bench.errors import RunError
from mae_bench.progress import say
from results import Checkpoint
from tasks.classification import recipes
from tasks.classification.classifier import Classifier
from tasks.classification.recipe import ClassificationRecipe
from tasks.classification.scores import read_classes

PROTOCOL = "imagenet1k/released@1"
HEAD = {"head.weight": "head.0.weight", "head.bias": "head.0.bias"}
NORM = {"fc_norm.weight": "fc_norm.weight", "fc_norm.bias": "fc_norm.bias"}
"""names in the file -> in a `Classifier`"""


@dataclass(frozen=True)
class Released:
    """A classifier that was trained elsewhere, and nothing is known of how."""

    name: str
    classifier: Classifier
    report: LoadReport
    init: str
    classes: list[str]
    """wnids in the order of their indices"""

    @property
    def recipe(self) -> ClassificationRecipe:
        """How it is tested; the rest is the fine-tuning recipe's and of no effect."""
        return self.classifier.recipe

    def model(self) -> Classifier:
        return self.classifier

    def protocol(self, on: str) -> str:
        return f"{on}/{PROTOCOL.partition('/')[2]}"

    def weights(self) -> str:
        """SHA-256 of the file."""
        return self.report.sha256

    @property
    def trained_on(self) -> None:
        """Nobody can tell."""

    def fields(self) -> dict[str, Any]:
        """What its records say of it."""
        return {
            "kind": "transfer",
            "backbone": self.recipe.backbone,
            "init": self.init,
            "checkpoint": Checkpoint(file=self.report.file, sha256=self.report.sha256),
            "recipe": self.recipe.to_dict(),
            "recipe_hash": self.recipe.digest(),
            "deviations": [],
            "seed": 0,
            "complete": True,
        }


def read_released(
    file: Path, backbone: str, init: str | None, classes: Path | None, format: str | None
) -> Released:
    """The classifier in a file that holds an encoder with `head`, and `fc_norm` where it pools
    patches: MAE's fine-tuned models, DeiT's, timm's.

    `classes`: a file of wnids in the order of the head's outputs, one per line; None: ImageNet-1k's
    1,000 in theirs. Raises `RunError` or `BackboneError` for anything else.
    """
    base = recipes.recipe("imagenet1k", backbone, "finetune")
    vit, report = backbones.load(backbone, file, image_size=base.image_size, format=format)
    tensors, _ = read_tensors(file)
    absent = [name for name in HEAD if name not in tensors]
    if absent:
        raise RunError(
            f"checkpoint {file}: has no {' and no '.join(absent)}, so it is no classifier; "
            "expected a fine-tuned model, or the folder of a finished run"
        )
    patches = all(name in tensors for name in NORM)
    recipe = replace(
        base,
        protocol=PROTOCOL,
        precision="fp32",
        drop_path=0.0,
        pooling="patches" if patches else "cls",
        head_batch_norm=False,
    )
    names = imagenet_wnids() if classes is None else read_classes(classes)
    outputs = len(tensors["head.weight"])
    if outputs != len(names):
        raise RunError(
            f"checkpoint {file}: its head has {outputs} outputs; expected {len(names)}, for the "
            + ("classes of ImageNet-1k" if classes is None else f"lines of {classes}")
        )
    model = Classifier(recipe, vit, outputs)
    wanted = HEAD | (NORM if patches else {})
    state = model.state_dict() | {ours: tensors[theirs] for theirs, ours in wanted.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunError(f"checkpoint {file}: its head does not fit {backbone}: {reason}") from None
    say(str(report))
    label = init or name_of(file)
    refuse_label(label, report.method or report.format, report.file, classifier=True)
    say(f"  and its classifier of {outputs} classes, on {recipe.pooling}")
    return Released(file.stem, model, report, label, names)


def imagenet_wnids() -> list[str]:
    """The 1,000 of ImageNet-1k in the order of class indices, as timm has them."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_label_name(index) for index in range(info.num_classes())]
