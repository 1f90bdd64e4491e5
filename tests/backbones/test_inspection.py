"""`backbones.inspect` agrees with loading."""

import json
from pathlib import Path

import pytest
import torch
from written_checkpoints import COLUMNS_FIRST, SIZES, WRITERS, vit, write

import backbones


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in SIZES.items():
        monkeypatch.setitem(backbones.SIZES, name, size)


@pytest.mark.parametrize("kind", WRITERS)
def test_inspection_agrees_with_loading(kind: str, tmp_path: Path) -> None:
    file, _ = write(kind, tmp_path)
    found = backbones.inspect(file)
    _, report = backbones.load("tiny", file, 16)
    assert (found.format, found.sha256, found.skipped) == (
        report.format, report.sha256, report.skipped,
    )  # fmt: skip
    assert found.backbones == ["tiny"]
    assert found.image_size == 16
    assert found.size.num_heads == report.num_heads
    assert found.unexplained == found.missing == []
    assert found.pixel_mean == report.pixel_mean
    assert "fits tiny: 32 channels, 2 blocks" in str(found)
    json.dumps(found.to_dict())


def test_inspection_names_what_does_not_fit(tmp_path: Path) -> None:
    state, file = vit(COLUMNS_FIRST).state_dict(), tmp_path / "odd.pth"
    del state["blocks.1.norm1.bias"]
    torch.save(state | {"neck.weight": torch.zeros(3)}, file)
    found = backbones.inspect(file)
    assert found.unexplained == ["neck.weight"]
    assert found.missing == ["blocks.1.norm1.bias"]
    assert "  unexplained: neck.weight\n  missing: blocks.1.norm1.bias" in str(found)
    wider = vit(embed_dim=48)
    torch.save(wider.state_dict(), file)
    found = backbones.inspect(file)
    assert found.backbones == []
    assert "unknown heads" in str(found)
