"""Training with labels as a method of pre-training."""

from pathlib import Path

from torch import Tensor

import backbones
from backbones.reading import Reading
from backbones.report import LoadReport
from backbones.vit import ViT
from mae_bench.errors import RunError
from mae_bench.pretraining.methods.supervised import Labelled
from mae_bench.pretraining.task import Pretraining
from mae_bench.run.files import MODEL_FILE
from tasks.classification.recipe import ClassificationRecipe
from tasks.classification.task import Classification


class SupervisedPretraining(Classification, Pretraining):
    """The classifier of `transfer`, from random weights; its backbone is the encoder."""

    method = "supervised"
    has_logits = False  # what is kept is the encoder

    def __init__(self, recipe: ClassificationRecipe, data: Labelled, seed: int) -> None:
        vit = backbones.create(recipe.backbone, **recipe.backbone_options())
        super().__init__(recipe, vit, data.check.data, seed)
        self.folders, self.said = [data.root], data.check.notes()

    @property
    def encoder(self) -> ViT:
        return self.backbone

    def encoder_state(self) -> dict[str, Tensor]:
        """With the norm that follows the mean over patches, where there is one in place of the
        backbone's own: as the MAE release keeps what it has fine-tuned."""
        norm = {k: v for k, v in self.state_dict().items() if k.startswith("fc_norm.")}
        return super().encoder_state() | norm

    def continue_from(self, checkpoint: str | Path, reading: Reading) -> LoadReport:
        raise RunError("--method supervised starts from random weights")

    def whole(self) -> tuple[str, dict[str, Tensor]]:
        return MODEL_FILE, self.state_dict()

    def notes(self) -> list[str]:
        return list(dict.fromkeys([*self.said, *super().notes()]))
