"""A classifier: a backbone, pooling, and a linear layer.

Shapes: B images, N patches, C channels of a token, K classes, S image side.
"""

import torch
from torch import Tensor, nn

from backbones.precision import as_they_are
from backbones.vit import ViT
from tasks.classification.recipe import ClassificationRecipe
from tasks.errors import TaskError


class Classifier(nn.Module):
    """A linear classifier on a backbone.

    With pooling "patches" it sees the mean of the patch tokens before the backbone's final norm,
    through a new layer norm `fc_norm`; the backbone's own norm is taken out of it
    (facebookresearch/mae, models_vit.py). With "cls" it sees the class token after that norm.

    Initialised from torch's global generator. Raises `TaskError` if the backbone takes another
    image size.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, recipe: ClassificationRecipe, backbone: ViT, num_classes: int) -> None:
        super().__init__()
        check_size(recipe, backbone)
        self.recipe = recipe
        self.num_classes = num_classes
        for part, colour in (("mean", backbone.pixel_mean), ("std", backbone.pixel_std)):
            self.register_buffer(part, 255 * torch.tensor(colour).view(3, 1, 1), persistent=False)
        self.backbone = backbone
        if recipe.pooling == "patches":
            backbone.add_module("norm", nn.Identity())
            self.fc_norm = nn.LayerNorm(backbone.embed_dim, eps=1e-6)
        self.head = linear(backbone.embed_dim, num_classes, recipe)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) to float with the data set's mean and deviation taken out."""
        return (images.float() - self.mean) / self.std

    def logits(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) to float32 logits (B, K)."""
        tokens = self.backbone(images, norm=self.recipe.pooling == "cls")  # (B, 1 + N, C)
        # In bf16 the best of a thousand logits are often equal, which makes top-k arbitrary.
        with as_they_are(images.device.type):
            tokens = tokens.float()
            if self.recipe.pooling == "patches":
                return self.head(self.fc_norm(mean_patch(self.backbone, tokens)))
            return self.head(tokens[:, 0])

    def predict(self, images: Tensor) -> Tensor:
        """uint8 images (B, 3, S, S) to float32 logits (B, K), in the recipe's precision."""
        bf16 = self.recipe.precision == "bf16"
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bf16):
            return self.logits(self.normalise(images))


def mean_patch(backbone: nn.Module, tokens: Tensor) -> Tensor:
    """The mean (B, C) of the patches' tokens of (B, 1 + N, C); a plug-in has one class token."""
    return tokens[:, getattr(backbone, "num_prefix_tokens", 1) :].mean(dim=1)


def check_size(recipe: ClassificationRecipe, backbone: ViT) -> None:
    """Raise `TaskError` unless the backbone takes the recipe's images."""
    if backbone.image_size != recipe.image_size:
        raise TaskError(
            f"backbone takes {backbone.image_size}-pixel images; the recipe's image_size is "
            f"{recipe.image_size}; make both equal"
        )


def linear(dim: int, num_classes: int, recipe: ClassificationRecipe) -> nn.Sequential:
    """(B, C) to (B, K): a linear layer, behind a batch norm without weights if the recipe says so.

    Source: facebookresearch/mae, main_finetune.py and main_linprobe.py.
    """
    layer = nn.Linear(dim, num_classes)
    nn.init.trunc_normal_(layer.weight, std=recipe.head_init_std)
    nn.init.zeros_(layer.bias)
    if recipe.head_batch_norm:
        return nn.Sequential(nn.BatchNorm1d(dim, affine=False, eps=1e-6), layer)
    return nn.Sequential(layer)
