"""Checkpoints in other wrappings: what is taken off, chosen and asked for; features are equal."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import transformers
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import backbones
from backbones.checkpoint import save
from backbones.loading import anatomy_metadata
from backbones.posembed import resize_grid, sincos_2d

SIZE = backbones.Size(embed_dim=32, depth=2, num_heads=4, patch_size=4, pretrain_image=16)
SHAPE = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4}
NORM = partial(nn.LayerNorm, eps=1e-6)
HUGGING_FACE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "image_size": 16, "patch_size": 4, "hidden_dropout_prob": 0.0,
}  # fmt: skip
Network = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backbones.SIZES, "tiny", SIZE)


def scramble(model: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def vit(seed: int = 0, **options: Any) -> VisionTransformer:
    made = VisionTransformer(**SHAPE | {"num_classes": 0, "norm_layer": NORM} | options)
    return scramble(made, seed)


def images() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def equal(file: Path, network: Network, **reading: Any) -> Any:
    """The report, after features were found equal to 1e-5."""
    model, report = backbones.load("tiny", file, 16, **reading)
    torch.testing.assert_close(model.eval()(images()), network(images()), rtol=1e-5, atol=1e-5)
    return report


def refusal(file: Path, **reading: Any) -> str:
    with pytest.raises(backbones.BackboneError) as error:
        backbones.load("tiny", file, 16, **reading)
    return str(error.value)


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module._orig_mod.", "model.", "encoder.", "net.0.", "backbone.",
     "student.backbone.", "backbone.vit.", "model.encoder.backbone."],
)  # fmt: skip
def test_one_prefix_is_taken_off_with_a_word(prefix: str, tmp_path: Path) -> None:
    model = vit()
    state = under(prefix, model.state_dict()) | {"criterion.weight": torch.ones(3)}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "x.ckpt")
    report = equal(tmp_path / "x.ckpt", model.forward_features)
    assert f"prefix {prefix} taken off" in report.said
    assert report.skipped == {"criterion.weight": "outside of the network (criterion)"}


@pytest.mark.parametrize(
    "names",
    [["_orig_mod"], ["_fsdp_wrapped_module"], ["_checkpoint_wrapped_module"],
     ["_checkpoint_wrapped_module", "_fsdp_wrapped_module"]],
)  # fmt: skip
def test_wrappers_of_blocks_are_taken_out_with_a_word(names: list[str], tmp_path: Path) -> None:
    model, file = vit(), tmp_path / "x.pth"
    inside = "".join(f"{name}." for name in names)
    wrapped = {re.sub(r"^(blocks\.\d+\.)", rf"\1{inside}", key): value
               for key, value in model.state_dict().items()}  # fmt: skip
    torch.save({"model": under("module.", wrapped)}, file)
    report = equal(file, model.forward_features)
    assert f"{' and '.join(names)} taken out of the names of tensors" in report.said
    twice = wrapped | {"blocks.0.norm1.bias": model.state_dict()["blocks.0.norm1.bias"]}
    torch.save(twice, file)
    assert f"unexpected blocks.0.{inside}attn.proj.bias" in refusal(file)


def test_flattened_parameters_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "flat.pth"
    torch.save({"_fsdp_wrapped_module._flat_param": torch.zeros(9)}, file)
    assert "the flattened parameters of FSDP" in refusal(file)
    assert "StateDictType.FULL_STATE_DICT" in refusal(file)


def test_of_two_networks_one_is_asked_for(tmp_path: Path) -> None:
    one, other, file = vit(), vit(1), tmp_path / "two.ckpt"
    state = under("teacher.", one.state_dict()) | under("student.", other.state_dict())
    torch.save({"state_dict": state}, file)
    assert "choose one with --prefix, for example --prefix teacher." in refusal(file)
    assert "networks begin with student., teacher." in refusal(file, prefix="tutor")
    report = equal(file, one.forward_features, prefix="teacher")
    assert report.read_as == {"prefix": "teacher"}
    equal(file, other.forward_features, prefix="student.")
    torch.save(one.state_dict() | under("momentum.", other.state_dict()), file)
    assert "--prefix" in refusal(file)
    equal(file, one.forward_features, prefix="none")


def test_of_a_moving_average_and_its_weights_one_is_asked_for(tmp_path: Path) -> None:
    raw, average, file = vit(), vit(1), tmp_path / "ema.pth"
    torch.save({"model": raw.state_dict(), "model_ema": average.state_dict()}, file)
    assert "holds 2 networks, model, model_ema; choose one with --key" in refusal(file)
    assert "there are model, model_ema" in refusal(file, key="ema")
    equal(file, raw.forward_features, key="model")
    report = equal(file, average.forward_features, key="model_ema")
    assert report.said == ["from its part model_ema, not model"]
    torch.save({"model": raw.state_dict(), "model_ema": raw.state_dict()}, file)
    equal(file, raw.forward_features)


def test_grids_that_are_not_square(tmp_path: Path) -> None:
    model, file = vit(img_size=(8, 32)), tmp_path / "wide.pth"
    torch.save(model.state_dict(), file)
    _, report = backbones.load("tiny", file, 16)
    assert any("a grid of 4 x 4 patches for its 16 positions" in what for what in report.assumed)
    loaded, report = backbones.load("tiny", file, 16, grid="2x8")
    expected = resize_grid(model.pos_embed[:, 1:], 4, (2, 8))
    assert torch.equal(loaded.pos_embed[:, 1:], expected)
    assert torch.equal(loaded.pos_embed[:, :1], model.pos_embed[:, :1])
    assert not any("grid" in what for what in report.assumed)
    assert "2 x 8 -> 4 x 4" in report.resized["pos_embed"]
    assert "--grid says 3 x 4, which are 12" in refusal(file, grid="3x4")
    model.pos_embed.data = sincos_2d(32, (2, 8))  # such a table tells
    torch.save(model.state_dict(), file)
    _, report = backbones.load("tiny", file, 16)
    assert "2 x 8 -> 4 x 4" in report.resized["pos_embed"]
    torch.save(vit(img_size=(12, 16)).state_dict(), file)
    assert "name their rows and columns with --grid" in refusal(file)


def of_torchvision(folder: Path) -> Network:
    model = scramble(torchvision.models.VisionTransformer(16, 4, 2, 4, 32, 128, num_classes=5))
    torch.save(model.state_dict(), folder / "x.pth")

    def tokens(x: Tensor) -> Tensor:
        x = model._process_input(x)
        return model.encoder(torch.cat([model.class_token.expand(len(x), -1, -1), x], dim=1))

    return tokens


def of_lightly(folder: Path) -> Network:
    modules = pytest.importorskip("lightly.models.modules")  # of the benchmarks' packages
    model = vit()
    wrapped = modules.MaskedVisionTransformerTIMM(vit=model)
    scramble(model)
    torch.save({"state_dict": under("backbone.", wrapped.state_dict())}, folder / "x.ckpt")
    return model.forward_features


def of_openmmlab(folder: Path) -> Network:
    """mmpretrain's VisionTransformer, by its names."""
    model = vit()
    names = {
        r"^patch_embed\.proj\.": "patch_embed.projection.", r"^norm\.": "ln1.",
        r"^blocks\.": "layers.", r"norm([12])\.": r"ln\1.",
        r"mlp\.fc1\.": "ffn.layers.0.0.", r"mlp\.fc2\.": "ffn.layers.1.",
    }  # fmt: skip
    state = {}
    for key, value in model.state_dict().items():
        for pattern, new in names.items():
            key = re.sub(pattern, new, key)
        state[f"backbone.{key}"] = value
    torch.save({"state_dict": state | {"head.fc.weight": torch.ones(5, 32)}}, folder / "x.pth")
    return model.forward_features


def of_dinov2(folder: Path) -> Network:
    model = vit(init_values=1e-5)
    state = {re.sub(r"^blocks\.(\d)", r"blocks.\1.\1", k): v for k, v in model.state_dict().items()}
    state = under("backbone.", state | {"mask_token": torch.zeros(1, 32)})
    torch.save({"teacher": state}, folder / "x.pth")
    return model.forward_features


def of_transformers(made: Any) -> Callable[[Path], Network]:
    def write(folder: Path) -> Network:
        model = scramble(made())
        model.save_pretrained(folder / "x", max_shard_size="20kB")
        inner = next((m for m in model.children() if hasattr(m, "embeddings")), model)
        return lambda x: inner(x).last_hidden_state

    return write


tr = transformers
OTHERS: dict[str, tuple[Callable[[Path], Network], str]] = {
    "torchvision": (of_torchvision, "torchvision"),
    "lightly": (of_lightly, "timm"),
    "OpenMMLab": (of_openmmlab, "mmpretrain"),
    "DINOv2": (of_dinov2, "timm"),
    "DINOv2 of transformers": (
        of_transformers(lambda: tr.Dinov2Model(tr.Dinov2Config(**HUGGING_FACE))),
        "hf_dinov2",
    ),
    "shards": (of_transformers(lambda: tr.ViTModel(tr.ViTConfig(**HUGGING_FACE))), "hf_vit"),
    "masked images": (
        of_transformers(lambda: tr.ViTForMaskedImageModeling(tr.ViTConfig(**HUGGING_FACE))),
        "hf_vit",
    ),
    "data2vec": (
        of_transformers(
            lambda: tr.Data2VecVisionForImageClassification(
                tr.Data2VecVisionConfig(**HUGGING_FACE, use_relative_position_bias=True)
            )
        ),
        "hf_beit",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_features_of_other_layouts_are_equal(kind: str, tmp_path: Path) -> None:
    write, format = OTHERS[kind]
    network = write(tmp_path)
    (place,) = tmp_path.iterdir()
    assert equal(place, network).format == format


@pytest.mark.parametrize("to", ["timm", "hf", "mae"])
@torch.no_grad()
def test_what_is_converted_is_read_as_it_was(to: str, tmp_path: Path) -> None:
    """With heads, eps and statistics that no layout has by itself."""
    from mae_bench.weights import convert_weights

    anatomy = backbones.Anatomy(num_heads=8, norm_eps=1e-3)
    model = scramble(backbones.create("tiny", 16, anatomy=anatomy))
    model.pixel_mean, model.pixel_std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    save(model.state_dict(), tmp_path / "own.safetensors", anatomy_metadata(model))
    output = tmp_path / ("x.safetensors" if to == "timm" else "x")
    convert_weights(tmp_path / "own.safetensors", to, output)
    loaded, report = backbones.load("tiny", output, 16)
    torch.testing.assert_close(loaded.eval()(images()), model(images()), rtol=1e-5, atol=1e-5)
    assert (loaded.pixel_mean, loaded.pixel_std) == (model.pixel_mean, model.pixel_std)
    assert report.assumed == []


def test_equal_weights_have_equal_files(tmp_path: Path) -> None:
    said = {str(i): "x" for i in range(50)}
    tensors = vit().state_dict()
    save(tensors, tmp_path / "one", said)
    save(tensors, tmp_path / "two", dict(reversed(said.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
