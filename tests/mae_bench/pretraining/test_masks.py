"""The three kinds of masks, blocks against what BEiT's own sampler was measured to draw."""

import numpy as np
import pytest
import torch

from mae_bench.pretraining import masks


def blocks(count: int, side: int, num_masked: int) -> np.ndarray:
    """Masks (count, side, side), 1 = removed."""
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(np.stack([masks.block(rng, side, num_masked) for _ in range(count)]))
    _, removed = masks.split(noise, side**2 - num_masked)
    found = torch.zeros(count, side**2).scatter_(1, removed, 1)
    return found.view(count, side, side).numpy()


@pytest.mark.parametrize(
    ("num_masked", "pairs", "centre", "edge", "corner"),
    [
        # Means over 20,000 masks of microsoft/unilm, beit/masking_generator.py, on 14 x 14 with at
        # least 16 patches a block: neighbours both removed; removed of the middle 4 x 4, of the
        # outermost rows and columns, of the corners. It draws 74.5, 97.5 and 146.4 patches.
        (75, 0.3438, 0.6955, 0.1335, 0.0422),
        (98, 0.4622, 0.8420, 0.1917, 0.0617),
        (147, 0.7222, 0.9823, 0.3967, 0.1442),
    ],
)
def test_blocks_are_distributed_as_beits(num_masked, pairs, centre, edge, corner) -> None:
    """Within 0.02: the patches that make the count exact, and chance over 2,000 masks."""
    found = blocks(2000, 14, num_masked)
    assert (found.sum(axis=(1, 2)) == num_masked).all()
    beside = (found[:, 1:] * found[:, :-1]).mean() + (found[:, :, 1:] * found[:, :, :-1]).mean()
    removed = found.mean(axis=0)
    around = np.concatenate([removed[0], removed[-1], removed[:, 0], removed[:, -1]])
    assert beside / 2 == pytest.approx(pairs, abs=0.02)
    assert removed[5:9, 5:9].mean() == pytest.approx(centre, abs=0.02)
    assert around.mean() == pytest.approx(edge, abs=0.02)
    assert removed[[0, 0, -1, -1], [0, -1, 0, -1]].mean() == pytest.approx(corner, abs=0.02)


@pytest.mark.parametrize(("side", "num_masked"), [(4, 12), (4, 15), (2, 3), (16, 192), (14, 195)])
def test_the_count_is_exact_on_any_grid(side: int, num_masked: int) -> None:
    assert (blocks(50, side, num_masked).sum(axis=(1, 2)) == num_masked).all()


def test_a_grid_keeps_the_same_one_of_every_four() -> None:
    visible, removed = masks.split(masks.grid(4).expand(2, -1), 4)
    assert visible.sort(dim=1).values.tolist() == [[0, 2, 8, 10]] * 2
    assert removed.shape == (2, 12)
