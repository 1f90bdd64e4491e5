"""`backbones.convert`: timm, transformers and MAE's names read what we write."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BeitModel, ViTModel
from written_checkpoints import SIZES, beit, images, vit, write

import backbones
from backbones.checkpoint import save


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in SIZES.items():
        monkeypatch.setitem(backbones.SIZES, name, size)


@pytest.mark.parametrize(
    "kind", ["mae", "deit iii", "mae fine-tuned", "beit", "beit fine-tuned", "beit in1k"]
)
def test_export_to_timm(kind: str, tmp_path: Path) -> None:
    file, network = write(kind, tmp_path)
    exported, report = backbones.convert(file, "timm")
    assert report.coverage == 1
    assert exported.config == {}
    if "rel_pos_bias" in str(report.resized) or kind == "beit fine-tuned":
        twin: Any = beit(use_rel_pos_bias=True, use_fc_norm=kind == "beit fine-tuned")
        twin.fc_norm = nn.Identity()
    else:
        scale = 0.1 if kind in ("deit iii", "beit in1k") else None
        twin = vit(init_values=scale, final_norm=kind != "mae fine-tuned")
    twin.load_state_dict(exported.tensors, strict=True)
    with torch.no_grad():
        own, expected = twin.eval().forward_features(images()), network(images())
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["mae", "hf vit", "deit iii", "beit", "beit fine-tuned"])
def test_export_to_hugging_face(kind: str, tmp_path: Path) -> None:
    """transformers reads the folder without a missing or an unexpected key."""
    file, network = write(kind, tmp_path)
    exported, _ = backbones.convert(file, "hf")
    folder = tmp_path / "exported"
    folder.mkdir()
    save(exported.tensors, folder / "model.safetensors", {})
    (folder / "config.json").write_text(json.dumps(exported.config))
    model_class = {"vit": ViTModel, "beit": BeitModel}[exported.config["model_type"]]
    twin, info = model_class.from_pretrained(
        folder, add_pooling_layer=False, output_loading_info=True
    )
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        own, expected = twin.eval()(images()).last_hidden_state, network(images())
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    again, report = backbones.load("tiny", folder / "model.safetensors", 16)
    torch.testing.assert_close(again.eval()(images()), expected, rtol=1e-5, atol=1e-5)
    assert report.format == ("hf_vit" if model_class is ViTModel else "hf_beit") or kind == "mae"


def test_export_to_mae(tmp_path: Path) -> None:
    """The names of the release: its encoder and a file of its own are the same dictionary."""
    file, _ = write("mae full", tmp_path)
    exported, report = backbones.convert(file, "mae")
    state = {k: v for k, v in torch.load(file)["model"].items() if k not in report.skipped}
    assert set(exported.tensors) == set(state)
    assert all(torch.equal(exported.tensors[key], value) for key, value in state.items())
    folder = tmp_path / "beit"
    folder.mkdir()
    with pytest.raises(backbones.BackboneError, match="is not MAE's encoder"):
        backbones.convert(write("beit", folder)[0], "mae")
    with pytest.raises(backbones.BackboneError, match="unknown layout 'jax'; there are timm, hf"):
        backbones.convert(file, "jax")
    torch.save(vit(embed_dim=48).state_dict(), tmp_path / "wide.pth")
    with pytest.raises(backbones.BackboneError, match="nothing tells its number of heads"):
        backbones.convert(tmp_path / "wide.pth", "timm")
