"""A convolution of resized maps against torch's own, of the maps that are resized first."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tasks.ade20k.resized import conv_of_resized

SIZES = (
    ((16, 16), (8, 8), (4, 4), (2, 2)),
    ((20, 28), (10, 14), (5, 7), (2, 3)),
    ((5, 3), (1, 1), (2, 2), (3, 3), (6, 6)),
    ((1, 1), (1, 1)),
    ((9, 4),),
)


def resized_first(weight: Tensor, maps: Sequence[Tensor]) -> Tensor:
    size = maps[0].shape[2:]
    resized = [F.interpolate(each, size, mode="bilinear", align_corners=False) for each in maps]
    return F.conv2d(torch.cat(resized, 1), weight, padding=1)


def given(
    sizes: tuple[tuple[int, int], ...], dtype: torch.dtype, least: int = 3
) -> tuple[Tensor, list[Tensor]]:
    """Weights, and maps of `least` channels and more."""
    torch.manual_seed(0)
    channels = range(least, least + len(sizes))
    maps = [torch.randn(2, c, *s, dtype=dtype) for c, s in zip(channels, sizes, strict=True)]
    return 0.1 * torch.randn(4, sum(channels), 3, 3, dtype=dtype), maps


@pytest.mark.parametrize("sizes", SIZES)
def test_it_is_the_convolution_of_the_maps_resized_first(sizes) -> None:
    """Values, and gradients of maps and weights, in float64."""
    weight, maps = given(sizes, torch.float64)
    for each in (weight, *maps):
        each.requires_grad_()
    found, expected = (of(weight, maps) for of in (conv_of_resized, resized_first))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    towards = torch.randn_like(found)
    gradients = (torch.autograd.grad(each, [weight, *maps], towards) for each in (found, expected))
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


def test_it_rounds_in_bf16_about_as_the_convolution_does() -> None:
    """Both are compared with float64 of the same numbers."""
    weight, maps = given(SIZES[0], torch.float32, least=16)
    exact = resized_first(weight.double(), [each.double() for each in maps])
    with torch.autocast("cpu", torch.bfloat16):
        found, peer = (of(weight, maps) for of in (conv_of_resized, resized_first))
    assert found.dtype == peer.dtype == torch.bfloat16
    errors = [float((each.double() - exact).square().mean().sqrt()) for each in (found, peer)]
    assert errors[0] < 1.6 * errors[1]
