"""Images with a second view of the same crop, of which a tokenizer makes the tokens."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as pillow

from mae_bench.pretraining import masks
from mae_bench.pretraining.beit import masked_places
from tasks.images import UnlabelledImages, decode, random_resized_crop_box, sample_rng
from tasks.images.crops import Crop
from tasks.images.decoding import cut
from tasks.images.jitter import Jitter
from tasks.task import Batch


class TokenViews:
    """Training data (`tasks.task.TrainData`) whose batches have "token_images" more.

    These are uint8 (B, 3, T, T), T = `token_size`: the crop of "images", resized with Lanczos'
    filter as BEiT does for its tokenizer (microsoft/unilm, beit/transforms.py). With
    `colour_jitter` the image is jittered before it is cut, so both views are, in BEiT's order
    (beit/datasets.py). All is drawn from (seed, epoch, index).
    """

    def __init__(
        self, images: UnlabelledImages, token_size: int, colour_jitter: float = 0.0
    ) -> None:
        self.images, self.token_size, self.colour_jitter = images, token_size, colour_jitter

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        """The images' batch with "token_images"."""
        views: list[Tensor] = []

        def finish(crop: Crop) -> Tensor:
            views.append(lanczos(crop, self.token_size))
            return self.images.resize(crop)

        batch = self.images.batch(keys, self.load, finish)
        return batch | {"token_images": torch.stack(views)}

    def load(self, epoch: int, index: int) -> Crop:
        """One sample before it is resized. Raises UnreadableImage."""
        if not self.colour_jitter:
            return self.images.load(epoch, index)
        rng = sample_rng(self.images.seed, epoch, index)
        (path,) = self.images.names([index])
        jitter = Jitter.draw(rng, self.colour_jitter, self.colour_jitter, 0)
        image = Image.fromarray(decode(path, self.images.upright))
        whole = np.asarray(jitter.apply(image))
        box = random_resized_crop_box(rng, image.height, image.width, self.images.area)
        return Crop(np.ascontiguousarray(cut(whole, box)), flip=rng.random() < 0.5)

    def names(self, indices: list[int]) -> list[str]:
        return self.images.names(indices)


class BeitViews(TokenViews):
    """The same with BEiT's masks: "mask" bool (B, N), see `masks.beit`, and where they are."""

    def __init__(
        self,
        images: UnlabelledImages,
        token_size: int,
        colour_jitter: float,
        side: int,
        num_masked: int,
        blocks: tuple[int, int | None],
    ) -> None:
        super().__init__(images, token_size, colour_jitter)
        self.side, self.num_masked, self.blocks = side, num_masked, blocks

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        mask = torch.from_numpy(np.stack([self.mask(*key) for key in keys]))
        places, filled = masked_places(mask)
        masked = {"mask": mask, "places": places, "filled": filled}
        return super().__getitems__(keys) | masked

    def mask(self, epoch: int, index: int) -> np.ndarray:
        # The crop's seed has three numbers.
        rng = np.random.default_rng([self.images.seed, epoch, index, 1])
        return masks.beit(rng, self.side, self.num_masked, *self.blocks)


def lanczos(crop: Crop, size: int) -> Tensor:
    """A crop as uint8 (3, size, size)."""
    image = Image.fromarray(crop.pixels).resize((size, size), Image.Resampling.LANCZOS)
    image = crop.jitter.apply(image) if crop.jitter else image
    if crop.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return pillow.pil_to_tensor(image)
