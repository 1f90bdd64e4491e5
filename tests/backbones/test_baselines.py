"""Weights of the baselines by name: found, confirmed, or refused with the reason."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from backbones import BackboneError, baselines
from backbones.sizes import SIZES


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file for mae and vit_b, whose first md5 digits are the published ones."""
    content = b"weights"
    digest = f"md5:{hashlib.md5(content).hexdigest()[:6]}"
    release = baselines.Release("mae_pretrain_vit_base.pth", "https://example.org/x", digest)
    monkeypatch.setitem(baselines.BASELINES["mae"], "vit_b", release)
    (tmp_path / release.file).write_bytes(content)
    return tmp_path


def test_finds_and_confirms(released: Path) -> None:
    assert baselines.find("mae", "vit_b", released) == released / "mae_pretrain_vit_base.pth"


def test_refuses_another_file_of_that_name(released: Path) -> None:
    (released / "mae_pretrain_vit_base.pth").write_bytes(b"other weights")
    with pytest.raises(BackboneError, match=r"its md5 begins with \w{8}, the released file's with"):
        baselines.find("mae", "vit_b", released)


def test_a_file_without_a_published_hash_is_taken(tmp_path: Path) -> None:
    (tmp_path / "vit-b-300ep.pth.tar").write_bytes(b"anything")
    assert baselines.find("moco_v3", "vit_b", tmp_path).name == "vit-b-300ep.pth.tar"


@pytest.mark.parametrize(
    ("name", "backbone", "told"),
    [
        (
            "mae",
            "vit_h",
            "mae_pretrain_vit_huge.pth: not there; `mae-bench weights get mae/vit_h`",
        ),
        ("moco_v3", "vit_l", "was never released; there are vit_s, vit_b, or give a file"),
        ("supervised", "vit_h", "trained with labels was never released; there are vit_t, vit_s"),
        ("mae", "vit_mini", "no public weights of this size; there are vit_b, vit_l, vit_h"),
        ("ibot", "vit_b", "by the name 'ibot'; there are mae, moco_v3, beit, dino, supervised:"),
    ],
)
def test_says_why_not(tmp_path: Path, name: str, backbone: str, told: str) -> None:
    with pytest.raises(BackboneError) as error:
        baselines.find(name, backbone, tmp_path)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_released_files_baseline() -> None:
    assert baselines.name_of(Path("mae_pretrain_vit_large.pth")) == "mae"
    assert baselines.name_of(Path("vit-b-300ep.pth.tar")) == "moco_v3"
    assert baselines.name_of(Path("my_mae.v2.pth")) == "my_mae.v2"
    assert baselines.name_of(Path("checkpoint.pth.tar")) == "checkpoint"
    timms = {baselines.name_of(Path(f"timm:vit_base_patch16_224.{tag}")) for tag in ("mae", "dino")}
    assert len(timms) == 2


def test_says_what_the_papers_beit_is_not() -> None:
    """The paper's was pre-trained on ImageNet-1k (2111.06377, Table 3), as one public file was."""
    base, large = baselines.BASELINES["beit"]["vit_b"], baselines.BASELINES["beit"]["vit_l"]
    assert "pre-trained on ImageNet-1k, with absolute positions" in base.note
    assert "pre-trained on ImageNet-22k" in large.note
    assert all("the paper's own BEiT" in each.note for each in (base, large))
    assert all(each.note.endswith("was never released") for each in (base, large))


def test_a_file_of_hugging_face_is_called_after_its_folder() -> None:
    assert baselines.name_of(Path("vit-mae-base/model.safetensors")) == "vit-mae-base"
    assert baselines.name_of(Path("runs/finetune/model.safetensors")) == "finetune"
    assert baselines.name_of(Path("model.safetensors")) == "model"


def test_the_table_is_consistent() -> None:
    for name, sizes in baselines.BASELINES.items():
        for backbone, release in sizes.items():
            assert backbone in SIZES
            assert (name, backbone) not in baselines.UNRELEASED
            assert release.url.endswith(f"/{release.file}")
            if release.digest is not None:
                kind, begins = release.digest.split(":")
                assert kind in hashlib.algorithms_guaranteed
                assert set(begins) <= set("0123456789abcdef")
                # DeiT's files carry the first digits of their own SHA-256 (torch.hub's custom).
                assert kind == "md5" or f"-{begins}." in release.file


def test_needs_no_torch() -> None:
    code = "import sys, backbones.baselines; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
