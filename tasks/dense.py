"""What the tasks on a dense backbone share: padded images, layers, scoring over processes.

Shapes: B images, S image side.
"""

import torch
from torch import Tensor

from backbones.dense import DenseViT
from tasks.norms import SyncBatchNorm
from tasks.task import Task


class DenseTask(Task):
    """A task whose backbone is a `DenseViT`, and whose images are padded right and below."""

    backbone: DenseViT
    mean: Tensor
    std: Tensor

    def __init__(self, backbone: DenseViT) -> None:
        super().__init__()
        for name, colour in (("mean", backbone.pixel_mean), ("std", backbone.pixel_std)):
            self.register_buffer(name, 255 * torch.tensor(colour).view(3, 1, 1), persistent=False)
        self.backbone = backbone

    def normalise(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """uint8 (…, 3, h, w) to normalised float, with zeros where an image is padded.

        `sizes` (B, 2): height and width without padding; None: there is none.
        """
        normalised = (images.float() - self.mean) / self.std
        if sizes is None:
            return normalised
        there = sizes.to(images.device, non_blocking=True)
        side = torch.arange(images.shape[-1], device=images.device)
        rows, columns = (side < edge[:, None] for edge in there.unbind(1))
        return normalised * (rows[:, None, :, None] & columns[:, None, None, :])

    @property
    def num_layers(self) -> int:
        return self.backbone.depth + 1

    def layer_index(self, name: str) -> int:
        """Layer of a parameter: the backbone's own for `backbone.*`, the last for the rest.

        Sources: detectron2, modeling/backbone/vit.py (get_vit_lr_decay_rate); mmsegmentation,
        engine/optimizers/layer_decay_optimizer_constructor.py.
        """
        part, _, rest = name.partition(".")
        return self.backbone.layer_index(rest) if part == "backbone" else self.num_layers

    def caveats(self, processes: int) -> list[str]:
        """See `Task`: batch norm sees the images of one forward pass, over all processes."""
        recipe = self.recipe
        seen = processes * recipe.device_batch
        synchronised = any(isinstance(module, SyncBatchNorm) for module in self.modules())
        if not synchronised or seen == recipe.batch_size:
            return []
        return [f"batch norm over {seen} images instead of {recipe.batch_size}"]
