"""What dense prediction takes of checkpoints of other layouts, against timm's own maps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from written_checkpoints import SIZES, images, write

import backbones
from backbones import Dense
from backbones.colour import IMAGENET_MEAN
from backbones.formats import BIAS_TABLE, HALF, SHARED_TABLE


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in SIZES.items():
        monkeypatch.setitem(backbones.SIZES, name, size)


SEGMENTATION = Dense(relative_position="per_block", resize_position="load", class_token=True)


@pytest.mark.parametrize("kind", ["beit", "beit fine-tuned", "beit in1k", "deit iii"])
def test_dense_maps_equal_timms(kind: str, tmp_path: Path) -> None:
    """With layer scale, and without absolute positions, as BEiT segments."""
    file, network = write(kind, tmp_path)
    model, report = backbones.load("tiny", file, 16, dense=SEGMENTATION)
    assert hasattr(model, "pos_embed") == (kind in ("beit in1k", "deit iii"))
    assert model.no_decay() <= {name for name, _ in model.named_parameters()}
    expected = network.__self__.forward_intermediates(images(), norm=False, intermediates_only=True)
    maps = model.eval().feature_maps(images(), [0, 1])
    for own, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-5)
    assert len(report.fresh) == (2 if kind in ("beit in1k", "deit iii") else 0)
    assert model.pixel_mean == (HALF if kind in ("beit", "beit fine-tuned") else IMAGENET_MEAN)


def test_dense_windows_share_beits_table(tmp_path: Path) -> None:
    """Of pre-training, at each kind's window; fine-tuned ones differ from block to block."""
    file, network = write("beit", tmp_path)
    dense = Dense(4, (1,), "shared", resize_position="load")
    model, report = backbones.load("tiny", file, 16, dense=dense)
    table = network.__self__.rel_pos_bias.relative_position_bias_table
    assert torch.equal(model.rel_pos_window, table[:-3])
    assert torch.equal(model.rel_pos_global, table[:-3])
    assert report.resized["rel_pos_bias.relative_position_bias_table"] == "one table -> 2 tables"
    larger, _ = backbones.load("tiny", file, 32, dense=dense)
    assert torch.equal(larger.rel_pos_window, table[:-3])
    assert larger.rel_pos_global.shape == (15**2, 4)


def test_dense_windows_share_what_each_block_has_a_copy_of(tmp_path: Path) -> None:
    """BEiT's code spreads the shared table before it fine-tunes, and our pre-training writes so."""
    file, network = write("beit", tmp_path)
    table = network.__self__.rel_pos_bias.relative_position_bias_table
    plain, _ = backbones.load("tiny", file, 16)
    copies = {key: value for key, value in plain.state_dict().items() if BIAS_TABLE in key}
    assert len(copies) == 2
    state = torch.load(file, weights_only=True)
    holder = state.get("model", state)
    del holder[SHARED_TABLE]
    holder |= copies
    torch.save(state, tmp_path / "spread.pth")
    dense = Dense(4, (1,), "shared", resize_position="load")
    model, report = backbones.load("tiny", tmp_path / "spread.pth", 16, dense=dense)
    assert torch.equal(model.rel_pos_window, table[:-3])
    assert torch.equal(model.rel_pos_global, table[:-3])
    assert report.resized[SHARED_TABLE] == "one table -> 2 tables"
    assert sum("a copy of the table" in how for how in report.resized.values()) == 2


@pytest.mark.parametrize("kind", ["beit", "beit in1k"])
def test_positions_are_drawn_for_weights_that_have_none(kind: str, tmp_path: Path) -> None:
    """As 2111.11429 does (section 3.1); from the generator that a run seeds, and not in silence."""
    file, _ = write(kind, tmp_path)
    dense = Dense(2, (1,), "shared", resize_position="load", add_positions=True)

    def load(seed: int) -> tuple[Tensor, Any]:
        torch.manual_seed(seed)
        model, report = backbones.load("tiny", file, 32, dense=dense)
        assert model.anatomy.absolute_position
        return model.pos_embed.detach(), report

    table, report = load(0)
    own = kind == "beit in1k"
    assert table.shape == (1, 64, 32)
    assert torch.equal(table, load(1)[0]) == own
    assert torch.equal(table, load(0)[0])
    assert ("pos_embed" in report.fresh) is ("pos_embed" not in report.loaded) is not own
    assert any("positions drawn anew" in what for what in report.assumed) is not own
    if not own:
        assert table.std() == pytest.approx(0.02, rel=0.05)
    assert "pos_embed" not in backbones.load("tiny", file, 32, dense=SEGMENTATION)[1].fresh


@pytest.mark.parametrize(
    ("kind", "relative", "said"),
    [
        ("beit", "decomposed", r"\(a table that its blocks share, rel_pos_bias\..*'decomposed'"),
        ("beit", "none", "'none' has no place for"),
        ("beit fine-tuned", "shared", r"\(a table a block, blocks\.0\.attn\..*'shared'"),
    ],
)
def test_dense_refuses_tables_without_a_place(
    kind: str, relative: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(backbones.BackboneError, match=said) as error:
        backbones.load("tiny", write(kind, tmp_path)[0], 16, dense=Dense(None, (), relative))
    places = "'shared' or 'per_block'" if kind == "beit" else "'per_block'"
    assert str(error.value).endswith(f"expected {places}")
