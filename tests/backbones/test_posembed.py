"""Position tables against hand-computed values, Hugging Face's table, and NumPy's interpolation."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from backbones.posembed import resize, sincos_2d


def test_hand_case() -> None:
    """Eight channels: frequencies 1 and 1/100; column sin, sin, cos, cos, then row."""
    table = sincos_2d(8, 3)[0].numpy().astype(np.float64)
    assert table.shape == (10, 8)
    np.testing.assert_array_equal(table[0], np.zeros(8))
    for row in range(3):
        for column in range(3):
            expected = [
                np.sin(column), np.sin(column / 100), np.cos(column), np.cos(column / 100),
                np.sin(row), np.sin(row / 100), np.cos(row), np.cos(row / 100),
            ]  # fmt: skip
            np.testing.assert_allclose(table[1 + 3 * row + column], expected, atol=1e-7)


def test_columns_come_first() -> None:
    """One step to the right moves the first half of the channels, one step down the second."""
    table = sincos_2d(16, 5)[0, 1:].view(5, 5, 16)
    assert torch.equal(table[1, :, :8], table[4, :, :8])
    assert torch.equal(table[:, 1, 8:], table[:, 4, 8:])
    assert not torch.allclose(table[:, 1, :8], table[:, 4, :8])
    assert not torch.allclose(table[1, :, 8:], table[4, :, 8:])


@pytest.mark.parametrize(("dim", "grid"), [(768, 14), (1280, 16), (512, 14), (128, 8)])
def test_equals_huggingface(dim: int, grid: int) -> None:
    """transformers builds rows first and rotates the halves for MAE; so do we here."""
    module = pytest.importorskip("transformers.models.vit_mae.modeling_vit_mae")
    rows_first = module.build_2d_sinusoidal_position_embedding(grid, grid, dim, cls_token=True)
    expected = rows_first.roll(dim // 2, dims=1)
    torch.testing.assert_close(sincos_2d(dim, grid)[0], expected, rtol=0, atol=1e-6)


def test_temperature() -> None:
    assert sincos_2d(8, 2, temperature=4.0)[0, 2, 1].item() == pytest.approx(np.sin(0.5))


@pytest.mark.parametrize("dim", [6, 10, 129])
def test_refuses_other_widths(dim: int) -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_2d(dim, 4)


def cubic(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -0.75, at the distances `t` from a sample."""
    a, t = -0.75, np.abs(t)
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


def interpolation(old: int, new: int) -> NDArray[np.float64]:
    """(new, old) weights: half-pixel centres, four taps clamped at the border, no antialiasing."""
    weights = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * old / new - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            weights[i, np.clip(tap, 0, old - 1)] += cubic(np.array(centre - tap))
    return weights


@pytest.mark.parametrize(("old", "new"), [(14, 16), (14, 32), (7, 3), (16, 14), (5, 5), (14, 37)])
def test_resize_is_bicubic_on_each_axis(old: int, new: int) -> None:
    table = torch.randn(1, 1 + old**2, 6, generator=torch.Generator().manual_seed(0))
    resized = resize(table, new)
    grid = table[0, 1:].double().numpy().reshape(old, old, 6)
    weights = interpolation(old, new)
    expected = np.einsum("ia,jb,abc->ijc", weights, weights, grid).reshape(new**2, 6)
    assert resized.shape == (1, 1 + new**2, 6)
    assert torch.equal(resized[:, 0], table[:, 0])
    np.testing.assert_allclose(resized[0, 1:].numpy(), expected, atol=1e-5)


def test_resize_does_not_antialias() -> None:
    """timm's resize does, and differs when shrinking."""
    timm_resize = pytest.importorskip("timm.layers").resample_abs_pos_embed
    table = sincos_2d(32, 14)
    aliased = timm_resize(table, [7, 7], interpolation="bicubic", antialias=False)
    torch.testing.assert_close(resize(table, 7), aliased, rtol=0, atol=1e-6)
    assert not torch.allclose(resize(table, 7), timm_resize(table, [7, 7]), atol=1e-2)


def test_resize_refuses_a_table_that_is_no_square() -> None:
    with pytest.raises(ValueError, match="198 positions"):
        resize(torch.zeros(1, 198, 8), 14)
