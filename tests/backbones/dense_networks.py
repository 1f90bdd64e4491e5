"""Small dense ViTs with random weights, for the tests beside."""

import torch
from torch import Tensor, nn

import backbones
from backbones import Dense
from backbones.dense import DenseViT

# 32 / 8 = 4 tokens in pre-training, 10 in the tests: windows of 4 need two rows of padding.
TINY = backbones.Size(embed_dim=32, depth=4, num_heads=2, patch_size=8, pretrain_image=32)


VITDET = Dense(window_size=4, global_blocks=(1, 3), relative_position="decomposed")


SHARED = Dense(4, (1, 3), "shared", resize_position="load")


def build(dense: Dense = VITDET, image_size: int = 80, drop_path: float = 0.0) -> DenseViT:
    """One whose norms, positions and relative positions are not at their initial values."""
    torch.manual_seed(0)
    vit = backbones.create("tiny", image_size, drop_path, dense=dense)
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            size = 0.5 if "rel_pos" in name else 0.05
            parameter.add_(size * torch.randn_like(parameter))
    return vit


def images_for(vit: DenseViT, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, vit.image_size, vit.image_size, generator=generator)


def gradients(vit: nn.Module, maps: list[Tensor]) -> dict[str, Tensor]:
    """Of a fixed random projection of the maps, by parameter."""
    torch.manual_seed(2)
    vit.zero_grad()
    sum((m * torch.randn(m.shape)).sum() for m in maps).backward()
    return {key: p.grad.clone() for key, p in vit.named_parameters() if p.grad is not None}


def assert_near(own: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """All gradients, to 1e-5 of their norm."""
    assert set(own) == set(expected)
    for key, value in expected.items():
        distance = (own[key].reshape(value.shape) - value).norm() / value.norm()
        assert distance < 1e-5, f"{key}: {distance:.1e}"
