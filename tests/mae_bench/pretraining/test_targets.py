import math

import pytest
import torch
from sklearn.decomposition import PCA

from mae_bench.pretraining import targets


def test_principal_components_are_scikit_learns() -> None:
    """Coefficients and reconstructions to 1e-4 of values of the order of 1, up to signs."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(120, 120, generator=generator) * torch.linspace(2, 0.01, 120)
    patches = torch.randn(50, 40, 120, generator=generator) @ mixing + 3
    found = targets.PrincipalComponents(120)
    found.fit(patches.split(20))
    theirs = PCA(targets.NUM_COMPONENTS, svd_solver="full").fit(patches.flatten(0, 1).numpy())
    rows = patches[:2].flatten(0, 1)
    expected = torch.from_numpy(theirs.transform(rows.numpy()))
    torch.testing.assert_close(found(rows).abs(), expected.abs(), rtol=1e-4, atol=1e-3)
    nearest = torch.from_numpy(theirs.inverse_transform(expected.numpy()))
    torch.testing.assert_close(found.inverse(found(rows)), nearest, rtol=1e-4, atol=1e-3)


def test_patches_of_fewer_numbers_have_fewer_components() -> None:
    assert targets.PrincipalComponents(48).basis.shape == (48, 48)


def test_a_normalised_patch_has_unit_unbiased_variance() -> None:
    """Pixels -1 and 1 in equal number, n = 48: variance 48/47."""
    found = targets.normalised(torch.tensor([-1.0, 1.0]).repeat(24)[None])
    assert found.abs().max().item() == pytest.approx(1 / math.sqrt(48 / 47 + 1e-6), rel=1e-6)
