"""The reconstruction sheet shows what it says it shows."""

from pathlib import Path

import pytest
import torch

from mae_bench.pretraining import pictures
from mae_bench.pretraining.masked import MaskedPretraining
from mae_bench.recipes import override, recipe

ORIGINAL, MASKED = "original", "masked: 75% of the patches"
PREDICTED = "predicted (visible patches kept)"


@pytest.mark.parametrize("norm_pix", [False, True])
def test_rows_of_the_sheet(norm_pix, world: Path, tmp_path: Path, monkeypatch):
    rows: dict[str, torch.Tensor] = {}

    said: list[str] = []

    def keep(given: dict[str, torch.Tensor], below: list[str]):
        rows.update(given)
        said.extend(below)
        return drawn(given, below)

    drawn = pictures.sheet
    monkeypatch.setattr(pictures, "sheet", keep)
    base = override(recipe("pretrain", "vit_mini", "mae"), {"norm_pix": norm_pix})
    torch.manual_seed(0)
    task = MaskedPretraining(base, [world / "unlabelled"], seed=0)
    images = task.train_data.__getitems__([(0, i) for i in range(3)])["images"]
    pictures.reconstruction_sheet(task, {"images": images}, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    losses = [float(text.removeprefix("loss ")) for text in said]
    torch.manual_seed(pictures.SEED)
    noise = task.mae.draw_noise(3, torch.device("cpu"))
    whole = task.mae(task.normalise(images), noise).loss.item()
    assert sum(losses) / 3 == pytest.approx(whole, abs=1e-3)
    assert list(rows) == [ORIGINAL, MASKED, PREDICTED]
    torch.testing.assert_close(rows[ORIGINAL], images.float() / 255, rtol=0, atol=1e-5)

    grey = (rows[MASKED] - pictures.GREY).abs().amax(dim=1) < 1e-5  # (B, S, S)
    side = task.mae.patch_size
    patches = grey.view(3, 4, side, 4, side).float().mean(dim=(2, 4))
    assert ((patches == 1).flatten(1).sum(dim=1) == 12).all()  # 12 of 16 patches are removed
    visible = ~grey[:, None].expand(-1, 3, -1, -1)
    for row in (MASKED, PREDICTED):
        torch.testing.assert_close(rows[row][visible], rows[ORIGINAL][visible], rtol=0, atol=1e-5)
    assert (rows[PREDICTED][~visible] - rows[ORIGINAL][~visible]).abs().mean() > 0.01
