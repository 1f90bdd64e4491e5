"""BEiT wearing the face of a task."""

from pathlib import Path

from torch import Tensor

from backbones.reading import Reading
from backbones.report import LoadReport
from backbones.vit import ViT
from mae_bench.errors import RunError
from mae_bench.pretraining.beit import MaskedImageModel
from mae_bench.pretraining.methods.beit import BeitRecipe
from mae_bench.pretraining.task import PretrainingTask
from mae_bench.pretraining.token_views import BeitViews
from tasks.task import Batch


class BeitPretraining(PretrainingTask):
    """Images, their tokens, and the network that predicts these."""

    method = "beit"
    recipe: BeitRecipe

    def __init__(self, recipe: BeitRecipe, folders: list[Path], seed: int) -> None:
        super().__init__(recipe, folders, seed)
        self.beit = MaskedImageModel(
            recipe.backbone,
            recipe.image_size,
            recipe.codebook,
            recipe.drop_path,
            recipe.layer_scale,
        )
        self.train_data = BeitViews(
            self.images,
            recipe.token_size,
            recipe.colour_jitter,
            self.beit.encoder.grid_size,
            recipe.num_masked,
            (recipe.min_block, recipe.max_block),
        )

    @property
    def encoder(self) -> ViT:
        return self.beit.encoder

    def start_from(self, checkpoint: str | Path, reading: Reading) -> LoadReport:
        raise RunError("--checkpoint: --method beit starts from random weights; leave it out")

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        images = self.normalise(batch["images"])
        where = batch["places"], batch["filled"]
        tokens = self.tokens(batch["token_images"])
        return {"loss": self.beit(images, batch["mask"], tokens, where)}

    def no_decay(self) -> set[str]:
        """All but 1-D parameters and the class token decay: beit/modeling_pretrain.py."""
        return {"beit.encoder.cls_token"}
