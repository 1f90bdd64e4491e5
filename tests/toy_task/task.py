"""The network, its loss, and its score."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from backbones.dense import DenseViT
from tasks import scoring
from tasks.dense import DenseTask
from tasks.images import Unreadable, UnreadableImage, load_batch
from tasks.task import SCORING, Batch, Scored, Scoring
from toy_task.reader import Pairs, ToyData
from toy_task.recipes import ToyRecipe

FOLDER = "predictions"


class Images:
    """Of a split, with the truth."""

    def __init__(self, split: Pairs) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def names(self, indices: list[int]) -> list[str]:
        return [self.split.names[index] for index in indices]

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        def load(epoch: int, index: int) -> Tensor:
            return torch.tensor(self.split.image(index)).permute(2, 0, 1)

        batch = load_batch(keys, load, self.split.names)
        dark = [torch.tensor(self.split.truth(index)) for index in batch["index"].tolist()]
        return batch | {"dark": torch.stack(dark).float()}

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        skipped, images, index = [], [], []
        for row in rows:
            try:
                images.append(torch.tensor(self.split.image(row)).permute(2, 0, 1))
                index.append(row)
            except UnreadableImage as error:
                skipped.append(Unreadable(self.split.names[row], error.reason))
        stacked = torch.stack(images) if images else torch.empty(0)
        return {"images": stacked, "index": torch.tensor(index), "skipped": skipped}


class Toy(DenseTask):
    def __init__(
        self, recipe: ToyRecipe, backbone: DenseViT, data: ToyData, limit: int | None
    ) -> None:
        super().__init__(backbone)
        self.recipe, self.data = recipe, data.limited(limit)
        self.train_data = Images(self.data.train)
        self.head = nn.Conv2d(backbone.embed_dim, 1, 1)

    def predict(self, images: Tensor) -> Tensor:
        """(B, S, S)."""
        (last,) = self.backbone.feature_maps(self.normalise(images), [self.backbone.depth - 1])
        return nn.functional.interpolate(self.head(last), images.shape[-2:])[:, 0]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        gap = self.predict(batch["images"]) - batch["dark"] / 255
        return {"loss": gap.abs().mean()}

    @torch.no_grad()
    def evaluate(self, how: Scoring = SCORING) -> Scored:
        device = torch.device(how.device or self.mean.device)

        def step(batch: Batch) -> dict[int, np.ndarray]:
            found = (255 * self.predict(batch["images"].to(device))).round().clamp(0, 255).cpu()
            return dict(zip(batch["index"].tolist(), found.byte().numpy(), strict=True))

        def finish(parts: list[dict[int, np.ndarray]]) -> Scored:
            found = {row: image for part in parts for row, image in part.items()}
            if how.folder is not None:
                (how.folder / FOLDER).mkdir(exist_ok=True)
                for row, image in found.items():
                    name = Path(self.data.val.names[row]).name
                    Image.fromarray(image).save(how.folder / FOLDER / name)
            return score(found, self.data)

        return scoring.score(Images(self.data.val), step, finish, how, device)


def score(found: dict[int, np.ndarray], data: ToyData) -> Scored:
    """The mean distance from the truth, over all pixels."""
    gaps = [np.abs(data.val.truth(row) - image.astype(float)) for row, image in found.items()]
    return Scored({"gap": float(np.mean(gaps))})


def rescore(folder: Path, data: ToyData) -> Scored:
    files = [folder / FOLDER / Path(name).name for name in data.val.names]
    return score({row: np.asarray(Image.open(file)) for row, file in enumerate(files)}, data)
