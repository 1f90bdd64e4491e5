"""Checkpoints by their names on a hub."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from written_checkpoints import SIZES, images, refusal, write

import backbones


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in SIZES.items():
        monkeypatch.setitem(backbones.SIZES, name, size)


class Hub:
    """huggingface.co: one folder of files, without a network where it has no folder."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str]] = []

    def model_info(self, repository: str, timeout: float) -> Any:
        if self.folder is None:
            raise ConnectionError("Name or service not known\nand more")
        self.repository = repository
        return SimpleNamespace(
            siblings=[SimpleNamespace(rfilename=file.name) for file in self.folder.iterdir()]
        )

    def download(self, repository: str, name: str) -> str:
        assert self.folder is not None
        assert (self.folder / name).exists()
        self.asked.append((repository, name))
        return str(self.folder / name)


def test_names_of_repositories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, network = write("hf vit classifier", tmp_path)
    hub = Hub(tmp_path)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hub.download)
    model, report = backbones.load("tiny", "hf:someone/vit-tiny", 16)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images()), network(images()), rtol=1e-5, atol=1e-5)
    assert report.file == "hf:someone/vit-tiny"
    assert hub.asked == [("someone/vit-tiny", "config.json"), ("someone/vit-tiny", file.name)]
    with pytest.raises(backbones.BackboneError, match="does not fit vit_b"):
        backbones.load("vit_b", "timm:vit_base_patch16_224.mae", 224)
    assert hub.repository == "timm/vit_base_patch16_224.mae"
    file.unlink()
    with pytest.raises(backbones.BackboneError, match=r"\(it has neither\); needs a network"):
        backbones.load("tiny", "hf:someone/vit-tiny", 16)
    for name in ("timm:vit_base_patch16_224.nothing", "timm:nothing"):
        with pytest.raises(backbones.BackboneError, match="has no weights by that name"):
            backbones.load("tiny", name, 16)


def test_without_a_network_repositories_are_those_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is tried again and again."""
    file, _ = write("hf vit", tmp_path)
    hub = Hub(None)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hub.download)
    kept = {("someone/vit-tiny", file.name): str(file)}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *asked: kept.get(asked))
    assert backbones.load("tiny", "hf:someone/vit-tiny", 16)[1].coverage == 1
    message = refusal(Path("hf:someone/other"))
    assert "(Name or service not known); needs a network" in message
