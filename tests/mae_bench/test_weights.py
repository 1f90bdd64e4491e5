"""`mae-bench weights`: a file is looked into, written for other projects, and loaded by them."""

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from transformers import AutoModel

import backbones
from backbones.baselines import BASELINES
from mae_bench.cli import call

SHAPE = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4}


@pytest.fixture(scope="module")
def vit() -> torch.nn.Module:
    torch.manual_seed(0)
    return backbones.create("vit_mini", image_size=32).eval()


@pytest.fixture(scope="module")
def file(vit: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the MAE release's layout."""
    path = tmp_path_factory.mktemp("weights") / "mae_pretrain_vit_mini.pth"
    torch.save({"model": vit.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_inspect_says_what_a_file_holds(file, capsys):
    assert call(["weights", "inspect", str(file)]) == 0
    said = capsys.readouterr().out
    assert "format mae: facebookresearch/mae" in said
    assert "fits vit_mini: 128 channels, 4 blocks, 4 heads, patches of 8 at 32 pixels" in said


@torch.no_grad()
def test_timm_loads_what_is_written_for_it(vit, file, images, tmp_path):
    output = tmp_path / "out" / "x.safetensors"
    assert call(["weights", "convert", str(file), "--to", "timm", "--output", str(output)]) == 0
    theirs = timm.models.VisionTransformer(**SHAPE, num_classes=0).eval()
    theirs.load_state_dict(load_file(output))
    torch.testing.assert_close(theirs.forward_features(images), vit(images), rtol=0, atol=1e-5)


@torch.no_grad()
def test_transformers_loads_what_is_written_for_it(vit, file, images, tmp_path):
    output = tmp_path / "hf"
    assert call(["weights", "convert", str(file), "--to", "hf", "--output", str(output)]) == 0
    theirs = AutoModel.from_pretrained(output, add_pooling_layer=False).eval()
    torch.testing.assert_close(theirs(images).last_hidden_state, vit(images), rtol=0, atol=1e-5)


def test_mae_gets_a_state_dict_under_model(vit, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(["weights", "convert", str(file), "--to", "mae"]) == 0
    written = torch.load("mae_pretrain_vit_mini-mae.pth", weights_only=True)["model"]
    ours = vit.state_dict()
    assert written.keys() == ours.keys()
    assert all(value.equal(ours[name]) for name, value in written.items())


def test_list_names_every_release_and_what_never_was_one(capsys):
    assert call(["weights", "list"]) == 0
    said = capsys.readouterr().out
    for sizes in BASELINES.values():
        assert all(release.url in said for release in sizes.values())
    assert "the ViT-L of the MAE and MoCo v3 papers was never released" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["inspect"], "weights inspect lacks FILE"),
        (["inspect", "/nowhere/x.pth"], "/nowhere/x.pth: no such file"),
        (["convert", "x.pth"], "weights convert lacks --to"),
    ],
)
def test_bad_input(words, told, capsys):
    assert call(["weights", *words]) == 2
    assert told in capsys.readouterr().err


def test_nothing_is_overwritten(file, tmp_path, capsys):
    (tmp_path / "there").write_text("mine")
    words = ["weights", "convert", str(file), "--to", "timm", "--output", str(tmp_path / "there")]
    assert call(words) == 2
    assert "there: is there already; name another, or delete it" in capsys.readouterr().err
    assert (tmp_path / "there").read_text() == "mine"


@pytest.fixture
def small_files() -> Iterator[None]:
    """A file that grows beyond 100 kB fails with an OSError, as on a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, most)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("layout", ["timm", "hf", "mae"])
@pytest.mark.usefixtures("small_files")
def test_nothing_half_written_stays(layout, file, tmp_path, capsys):
    output = tmp_path / "out"
    assert call(["weights", "convert", str(file), "--to", layout, "--output", str(output)]) == 2
    assert "File too large" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
