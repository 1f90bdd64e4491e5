"""What is refused in checkpoints of other layouts, and what files beside them tell."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from written_checkpoints import COLUMNS_FIRST, SIZES, TABLE, refusal, vit, write

import backbones
from backbones.formats import HALF


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in SIZES.items():
        monkeypatch.setitem(backbones.SIZES, name, size)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("reg_token", "has register tokens (reg_token)"),
        ("dist_token", "has a distillation token (dist_token)"),
        ("patch_embed.proj.0.weight", "has a convolutional stem"),
        ("patch_embed.norm.weight", "has a norm of patches"),
        ("norm_pre.weight", "has a norm before the first block"),
        ("blocks.0.attn.q_norm.weight", "has norms of queries and keys"),
        ("blocks.0.mlp.w12.weight", "has a gated MLP"),
        ("blocks.0.mlp.norm.weight", "has norms inside its branches"),
        ("attn_pool.latent", "has pooling by attention"),
    ],
)
def test_other_networks_are_refused_with_the_reason(key: str, said: str, tmp_path: Path) -> None:
    torch.save(vit().state_dict() | {key: torch.zeros(1, 1, 32)}, tmp_path / "other.pth")
    assert said in refusal(tmp_path / "other.pth")


def test_timms_own_other_networks_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    for name, said in {
        "resnet10t": "is in no known layout; seen: bn1.bias",
        "swin_tiny_patch4_window7_224": "stages, as a Swin transformer",
        "deit_tiny_distilled_patch16_224": "a distillation token",
        "vit_tiny_r_s16_p8_224": "a convolutional stem",
    }.items():
        torch.save(timm.create_model(name).state_dict(), file)
        assert said in refusal(file)


def test_another_format_than_the_one_named(tmp_path: Path) -> None:
    file, _ = write("beit", tmp_path)
    message = refusal(file, format="moco_v3")
    assert "not in the layout of moco_v3 (facebookresearch/moco-v3" in message
    assert message.endswith("its keys are those of beit")
    message = refusal(file, format="simmim")
    assert message.startswith("unknown format 'simmim'; there are mae, mae_full,")


def test_a_named_format_is_still_strict(tmp_path: Path) -> None:
    """DINO's files have no head; "dino" does not skip one."""
    file, _ = write("timm", tmp_path)
    assert "unexpected head.bias, head.weight" in refusal(file, format="dino")
    (tmp_path / "moco").mkdir()
    state = torch.load(write("moco v3", tmp_path / "moco")[0])["state_dict"]
    del state["module.base_encoder.norm.bias"]
    torch.save(state, tmp_path / "less.pth")
    assert "missing norm.bias; unexpected none" in refusal(tmp_path / "less.pth")


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("beit", "blocks.1.attn.v_bias"),
        ("beit", "norm.bias"),
        ("beit fine-tuned", f"blocks.1.{TABLE}"),
        ("beit fine-tuned", "blocks.0.gamma_2"),
        ("hf vit state", "layers.1.attention.k_proj.weight"),
        ("hf vit state", "layernorm.weight"),
    ],
)
def test_a_part_that_lacks_is_missed(kind: str, part: str, tmp_path: Path) -> None:
    file, _ = write(kind, tmp_path)
    content = torch.load(file)
    for state in (content, content.get("model", {}), content.get("module", {})):
        state.pop(part, None)
    torch.save(content, file)
    assert "missing " in refusal(file)
    assert "missing none" not in refusal(file)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    state = vit(COLUMNS_FIRST).state_dict()
    state["blocks.1.norm1.bias"][3] = float("nan")
    torch.save(state, tmp_path / "diverged.pth")
    assert "infinite values or NaN (blocks.1.norm1.bias)" in refusal(tmp_path / "diverged.pth")


def test_matrices_of_nothing_but_zeros(tmp_path: Path) -> None:
    state = vit(COLUMNS_FIRST).state_dict()
    state["cls_token"].zero_()  # as of some that begin so
    torch.save(state, tmp_path / "file.pth")
    backbones.load("tiny", tmp_path / "file.pth", 16)
    state["blocks.1.mlp.fc2.weight"].zero_()
    torch.save(state, tmp_path / "file.pth")
    said = refusal(tmp_path / "file.pth")
    assert "matrices of nothing but zeros (blocks.1.mlp.fc2.weight)" in said


def test_a_network_of_somebody_elses_under_backbone(tmp_path: Path) -> None:
    """Our layout without our metadata: what they would say is assumed, and that is said."""
    state = {f"backbone.{key}": value for key, value in vit().state_dict().items()}
    torch.save(state, tmp_path / "theirs.pth")
    _, report = backbones.load("tiny", tmp_path / "theirs.pth", 16)
    assert report.assumed[0].startswith("ImageNet's pixel statistics")
    (tmp_path / "ours").mkdir()
    _, report = backbones.load("tiny", write("mae-bench", tmp_path / "ours")[0], 16)
    assert report.assumed == []


def test_reports_fit_a_terminal(tmp_path: Path) -> None:
    """80 columns, broken at spaces alone."""
    for kind in ("timm", "beit"):
        (tmp_path / kind).mkdir()
        file, _ = write(kind, tmp_path / kind)
        for said in (str(backbones.load("tiny", file, 16)[1]), str(backbones.inspect(file))):
            assert max(map(len, said.splitlines())) <= 80
            assert "deviation 0.229 0.224 0.225" in " ".join(said.split()) or kind == "beit"


def test_shapes_that_cannot_be_rewritten(tmp_path: Path) -> None:
    file, _ = write("hf vit state", tmp_path)
    state = torch.load(file)
    torch.save(state | {"layers.0.attention.k_proj.weight": torch.zeros(32, 5)}, file)
    assert "its shapes are not hf_vit's (" in refusal(file)


def test_the_backbone_that_a_file_fits_is_named(tmp_path: Path) -> None:
    file, _ = write("mae", tmp_path)
    with pytest.raises(backbones.BackboneError, match="it has the size of tiny"):
        backbones.load("small", file, 32)


def test_a_configuration_of_another_network(tmp_path: Path) -> None:
    file, _ = write("hf vit", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    assert "has hidden_size 64" in refusal(file)
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu_new"}))
    assert "has hidden_act 'gelu_new'; only 'gelu'" in refusal(file)
    (tmp_path / "config.json").write_text("{")
    assert "cannot be read as JSON" in refusal(file)


def test_processor_beside_the_file_tells_the_statistics(tmp_path: Path) -> None:
    file, _ = write("hf vit", tmp_path)
    said = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    model, report = backbones.load("tiny", file, 16)
    assert model.pixel_mean == (0.1, 0.2, 0.3)
    assert report.assumed == []


def test_timms_configuration_tells_the_statistics(tmp_path: Path) -> None:
    file, _ = write("timm", tmp_path)
    config = {"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, report = backbones.load("tiny", file, 16)
    assert model.pixel_mean == HALF
    assert not any("statistics" in what for what in report.assumed)
    assert "config.json beside it: asked for mean, std" in report.said


def test_a_configuration_that_tells_nothing_of_its_neighbour_is_named(tmp_path: Path) -> None:
    file, _ = write("mae", tmp_path)
    _, report = backbones.load("tiny", file, 16)
    assert not any("beside it" in line for line in report.said)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "hidden_size": 32}))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    _, report = backbones.load("tiny", file, 16)
    (line,) = [line for line in report.said if "beside it" in line]
    assert line.startswith("config.json and preprocessor_config.json beside it: not used")
    assert "layout mae" in line


class Odd:
    """Something that only pickle can read."""


def test_pickle_has_to_be_allowed(tmp_path: Path) -> None:
    file = tmp_path / "odd.pth"
    torch.save({"model": vit(COLUMNS_FIRST).state_dict(), "args": Odd()}, file)
    message = refusal(file)
    assert "needs pickle (Unsupported global: GLOBAL" in message
    assert message.endswith("--allow-pickle")
    _, report = backbones.load("tiny", file, 16, allow_pickle=True)
    assert report.format == "mae"
    file.write_bytes(b"nothing of the kind")
    assert "truncated" in refusal(file, allow_pickle=True)


def test_legacy_torch_files_and_broken_arrays(tmp_path: Path) -> None:
    state, file = vit(COLUMNS_FIRST).state_dict(), tmp_path / "legacy.pth"
    torch.save({"model": state}, file, _use_new_zipfile_serialization=False)
    assert backbones.load("tiny", file, 16)[1].coverage == 1
    (tmp_path / "npz").mkdir()
    whole, _ = write("augreg", tmp_path / "npz")
    whole.write_bytes(whole.read_bytes()[:-500])
    assert "truncated or no .npz file" in refusal(whole)
    np.savez(tmp_path / "objects.npz", **{"embedding/kernel": np.array([Odd()], dtype=object)})
    assert "Object arrays cannot be loaded" in refusal(tmp_path / "objects.npz")
