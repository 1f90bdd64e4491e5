"""Every format of checkpoints, written by timm's or transformers' own models: the same features,
at the native size and after a resize; and what is refused."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from scipy.interpolate import RectBivariateSpline
from timm.layers import resample_abs_pos_embed
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    BeitForMaskedImageModeling,
    BeitModel,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTModel,
)

import backbones
from backbones import Dense, conversion
from backbones.checkpoint import read_tensors, save
from backbones.colour import IMAGENET_MEAN, IMAGENET_STD
from backbones.formats import BIAS_TABLE, FORMATS, HALF, SHARED_TABLE
from backbones.loading import anatomy_metadata
from backbones.posembed import sincos_2d

SIZES = {
    "tiny": backbones.Size(embed_dim=32, depth=2, num_heads=4, patch_size=4, pretrain_image=16),
    "small": backbones.Size(embed_dim=384, depth=1, num_heads=6, patch_size=8, pretrain_image=32),
}
NORM = partial(nn.LayerNorm, eps=1e-6)
TABLE = "attn.relative_position_bias_table"
State = dict[str, Tensor]
Network = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in SIZES.items():
        monkeypatch.setitem(backbones.SIZES, name, size)


def scramble(model: Any, seed: int = 0) -> Any:
    """The model in evaluation, no parameter at its initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def images(side: int = 16) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def vit(positions: Tensor | None = None, **options: Any) -> VisionTransformer:
    """timm's, tiny; with `positions` in place of learned ones."""
    shape = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4}
    model = scramble(VisionTransformer(**shape | {"num_classes": 0, "norm_layer": NORM} | options))
    if positions is not None:
        model.pos_embed.data = positions
    return model


def beit(**options: Any) -> Beit:
    """timm's, tiny, with BEiT's layer scale and without absolute positions."""
    return scramble(
        Beit(
            16, 4, 3, embed_dim=32, depth=2, num_heads=4, norm_layer=NORM, init_values=0.1,
            **{"use_abs_pos_emb": False, "num_classes": 0} | options,
        )
    )  # fmt: skip


def extra(**tensors: tuple[int, ...]) -> State:
    return {key.replace("__", "."): torch.ones(shape) for key, shape in tensors.items()}


COLUMNS_FIRST = sincos_2d(32, 4)
ROWS_FIRST = COLUMNS_FIRST.roll(16, dims=2)


# --- A file of each format --------------------------------------------------------------------
# Each writes one and returns the network that wrote it, from images to tokens.


def mae(folder: Path) -> Network:
    model = vit(COLUMNS_FIRST)
    torch.save({"model": model.state_dict()}, folder / "mae.pth")
    return model.forward_features


def mae_full(folder: Path) -> Network:
    model = vit(COLUMNS_FIRST)
    decoder = extra(
        mask_token=(1, 1, 8), decoder_embed__weight=(8, 32), decoder_pos_embed=(1, 17, 8),
        decoder_blocks__0__norm1__weight=(8,), decoder_pred__bias=(48,),
    )  # fmt: skip
    torch.save({"model": model.state_dict() | decoder}, folder / "mae_full.pth")
    return model.forward_features


def mae_finetuned(folder: Path) -> Network:
    model = vit(global_pool="avg", num_classes=5)
    assert {"fc_norm.weight", "head.bias"} < set(model.state_dict())
    torch.save({"model": model.state_dict()}, folder / "mae_finetuned.pth")
    return model.forward_features


def moco_v3(folder: Path) -> Network:
    """moco/builder.py: both encoders have a projector for their head; trained with DDP."""
    model, other = vit(ROWS_FIRST), vit()
    state: State = {}
    for name, encoder in (("base_encoder", model), ("momentum_encoder", other)):
        head = extra(head__0__weight=(8, 32), head__1__running_mean=(8,), head__3__weight=(8, 8))
        state |= {f"module.{name}.{k}": v for k, v in (encoder.state_dict() | head).items()}
    state |= extra(module__predictor__0__weight=(8, 8))
    content = {"epoch": 300, "arch": "vit_base", "state_dict": state, "optimizer": {"state": {}}}
    torch.save(content, folder / "moco_v3.pth.tar")
    return model.forward_features


def moco_v3_as_deit(folder: Path) -> Network:
    """convert_to_deit.py."""
    model = vit(ROWS_FIRST)
    torch.save({"model": model.state_dict()}, folder / "moco_v3.pth")
    return model.forward_features


def timm_plain(folder: Path) -> Network:
    """As timm, DINO's backbone files and DeiT's have it."""
    model = vit(num_classes=5)
    save_file(model.state_dict(), folder / "timm.safetensors")
    return model.forward_features


def deit_3(folder: Path) -> Network:
    """DeiT III's own names of layer scale, and no position of the class token."""
    model = vit(no_embed_class=True, init_values=1e-4, num_classes=5)
    state = {k.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): v
             for k, v in model.state_dict().items()}  # fmt: skip
    assert state["pos_embed"].shape == (1, 16, 32)
    torch.save({"model": state}, folder / "deit_3.pth")
    return model.forward_features


def dino_full(folder: Path) -> Network:
    """main_dino.py: the student is wrapped by DDP, the teacher is not."""
    teacher, student = vit(), vit()
    head = extra(head__mlp__0__weight=(8, 32), head__last_layer__weight_g=(16, 1))
    states = {name: {f"backbone.{k}": v for k, v in model.state_dict().items()} | head
              for name, model in (("teacher", teacher), ("student", student))}  # fmt: skip
    states["student"] = {f"module.{k}": v + 1 for k, v in states["student"].items()}
    torch.save({"student": states["student"], "teacher": states["teacher"], "epoch": 1},
               folder / "dino_full.pth")  # fmt: skip
    return teacher.forward_features


def augreg(folder: Path) -> Network:
    """Random arrays under Google's names; timm's own reader of them is the reference."""
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {}

    def add(name: str, *shape: int) -> None:
        arrays[name] = 0.2 * generator.standard_normal(shape, dtype=np.float32)

    add("cls", 1, 1, 32)
    add("embedding/kernel", 4, 4, 3, 32)
    add("embedding/bias", 32)
    add("Transformer/posembed_input/pos_embedding", 1, 17, 32)
    add("head/kernel", 32, 5)
    add("head/bias", 5)
    add("pre_logits/kernel", 32, 32)
    add("pre_logits/bias", 32)
    norms = ["Transformer/encoder_norm"]
    for block in ("Transformer/encoderblock_0", "Transformer/encoderblock_1"):
        norms += [f"{block}/LayerNorm_0", f"{block}/LayerNorm_2"]
        for part in ("query", "key", "value"):
            add(f"{block}/MultiHeadDotProductAttention_1/{part}/kernel", 32, 4, 8)
            add(f"{block}/MultiHeadDotProductAttention_1/{part}/bias", 4, 8)
        add(f"{block}/MultiHeadDotProductAttention_1/out/kernel", 4, 8, 32)
        add(f"{block}/MultiHeadDotProductAttention_1/out/bias", 32)
        for layer, shape in (("Dense_0", (32, 128)), ("Dense_1", (128, 32))):
            add(f"{block}/MlpBlock_3/{layer}/kernel", *shape)
            add(f"{block}/MlpBlock_3/{layer}/bias", shape[1])
    for norm in norms:
        add(f"{norm}/scale", 32)
        add(f"{norm}/bias", 32)
    np.savez(folder / "augreg.npz", **arrays)
    model = vit(num_classes=5)
    model.load_pretrained(str(folder / "augreg.npz"))
    return model.forward_features


def beit_pt(folder: Path) -> Network:
    """One table that all blocks share, with its buffer; the pre-training's head."""
    model = beit(use_shared_rel_pos_bias=True, use_fc_norm=False)
    assert f"rel_pos_bias.{TABLE.removeprefix('attn.')}" in model.state_dict()
    head = extra(mask_token=(1, 1, 32), lm_head__weight=(8, 32), lm_head__bias=(8,))
    index = {"rel_pos_bias.relative_position_index": torch.zeros(17, 17, dtype=torch.int64)}
    torch.save({"model": model.state_dict() | head | index}, folder / "beit.pth")
    return model.forward_features


def beit_ft(folder: Path) -> Network:
    model = beit(use_rel_pos_bias=True, num_classes=5)
    index = {f"blocks.{i}.attn.relative_position_index": torch.zeros(17, 17, dtype=torch.int64)
             for i in range(2)}  # fmt: skip
    torch.save({"module": model.state_dict() | index}, folder / "beit_finetuned.pth")
    return model.forward_features


def beit_in1k(folder: Path) -> Network:
    """Absolute positions, no tables."""
    model = beit(use_abs_pos_emb=True, use_fc_norm=False)
    head = extra(mask_token=(1, 1, 32), lm_head__weight=(8, 32))
    torch.save({"model": model.state_dict() | head}, folder / "beit_in1k.pth")
    return model.forward_features


HUGGING_FACE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "image_size": 16, "patch_size": 4, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0, "num_labels": 5,
}  # fmt: skip


def hf_vit(folder: Path) -> Network:
    model = scramble(ViTModel(ViTConfig(**HUGGING_FACE)))
    model.save_pretrained(folder)
    return lambda x: model(x, interpolate_pos_encoding=True).last_hidden_state


def hf_vit_classifier(folder: Path) -> Network:
    """With another eps and number of heads, which only its configuration tells."""
    changed = {"num_attention_heads": 8, "layer_norm_eps": 1e-2}
    model = scramble(ViTForImageClassification(ViTConfig(**HUGGING_FACE | changed)))
    model.save_pretrained(folder)
    return lambda x: model.vit(x, interpolate_pos_encoding=True).last_hidden_state


def hf_vit_state(folder: Path) -> Network:
    """The names that transformers 5 has in memory, in a torch file."""
    model = scramble(ViTModel(ViTConfig(**HUGGING_FACE)))
    torch.save(model.state_dict(), folder / "state.bin")
    return lambda x: model(x, interpolate_pos_encoding=True).last_hidden_state


def hf_mae(folder: Path) -> Network:
    decoder = {"decoder_hidden_size": 8, "decoder_num_hidden_layers": 1,
               "decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}  # fmt: skip
    model = scramble(ViTMAEForPreTraining(ViTMAEConfig(**HUGGING_FACE, **decoder, mask_ratio=0.0)))
    model.save_pretrained(folder)

    def tokens(x: Tensor) -> Tensor:
        """In the order of the patches, which its masking shuffles."""
        out = model.vit(x, noise=torch.arange(16.0).expand(len(x), -1))
        return out.last_hidden_state

    return tokens


def hf_beit_pt(folder: Path) -> Network:
    config = BeitConfig(**HUGGING_FACE, use_shared_relative_position_bias=True, use_mask_token=True,
                        vocab_size=8, drop_path_rate=0.0)  # fmt: skip
    model = scramble(BeitForMaskedImageModeling(config))
    model.save_pretrained(folder)
    return lambda x: model.layernorm(model.beit(x).last_hidden_state)


def hf_beit_ft(folder: Path) -> Network:
    config = BeitConfig(**HUGGING_FACE, use_relative_position_bias=True, drop_path_rate=0.0)
    model = scramble(BeitForImageClassification(config))
    model.save_pretrained(folder)
    return lambda x: model.beit(x).last_hidden_state


def mae_bench(folder: Path) -> Network:
    model = backbones.create("tiny", 16, anatomy=backbones.Anatomy(num_heads=2, norm_eps=1e-3))
    scramble(model).pixel_mean = HALF
    state = {f"backbone.{k}": v for k, v in model.state_dict().items()}
    head = extra(head__0__weight=(5, 32), head__0__bias=(5,))
    save(state | head, folder / "model.safetensors", anatomy_metadata(model))
    return model


WRITERS: dict[str, tuple[Callable[[Path], Network], str]] = {
    "mae": (mae, "mae"),
    "mae full": (mae_full, "mae_full"),
    "mae fine-tuned": (mae_finetuned, "mae_finetuned"),
    "moco v3": (moco_v3, "moco_v3"),
    "moco v3 as deit": (moco_v3_as_deit, "moco_v3"),
    "timm": (timm_plain, "timm"),
    "deit iii": (deit_3, "timm"),
    "dino full": (dino_full, "dino_full"),
    "augreg": (augreg, "augreg"),
    "beit": (beit_pt, "beit"),
    "beit fine-tuned": (beit_ft, "beit_finetuned"),
    "beit in1k": (beit_in1k, "beit_in1k"),
    "hf vit": (hf_vit, "hf_vit"),
    "hf vit classifier": (hf_vit_classifier, "hf_vit"),
    "hf vit state": (hf_vit_state, "hf_vit"),
    "hf mae": (hf_mae, "hf_mae"),
    "hf beit": (hf_beit_pt, "hf_beit"),
    "hf beit fine-tuned": (hf_beit_ft, "hf_beit"),
    "mae-bench": (mae_bench, "mae_bench"),
}


def write(kind: str, folder: Path) -> tuple[Path, Network]:
    """The one weights file that a writer wrote, and its network."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = WRITERS[kind][0](folder)
    (file,) = [path for path in folder.iterdir() if path.suffix != ".json"]
    return file, network


@pytest.mark.parametrize("kind", WRITERS)
def test_features_are_equal(kind: str, tmp_path: Path) -> None:
    """To 1e-5 in float32 with nothing resized, found by the keys alone."""
    file, network = write(kind, tmp_path)
    model, report = backbones.load("tiny", file, 16)
    with torch.no_grad():
        own, expected = model.eval()(images()), network(images())
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    assert report.format == WRITERS[kind][1]
    assert report.coverage == 1
    assert report.fresh == {}
    assert report.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", WRITERS)
def test_every_key_is_accounted_for(kind: str, tmp_path: Path) -> None:
    """Exactly one format is told by a file, and each of its tensors is loaded or has a rule."""
    file, _ = write(kind, tmp_path)
    tensors, _ = read_tensors(file)
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    told = [name for name, each in FORMATS.items() if each.fits(tensors) and each.told(tensors)]
    assert told == [WRITERS[kind][1]]
    converted = conversion.convert(str(file), tensors)
    lost = sum(value.numel() for value in tensors.values()) - sum(
        value.numel() for value in converted.state.values()
    )
    skipped = sum(tensors[key].numel() for key in converted.skipped)
    made = 32 * sum("q_bias" in key or "query.bias" in key for key in tensors)  # keys' zero biases
    made *= 0 if any("key.bias" in key for key in tensors) else 1
    made += 32 * ("zeros for the class token" in str(converted.changed))
    assert lost == skipped - made


def interp2d(x: Any, y: Any, z: Any, kind: str) -> Callable[[Any, Any], Any]:
    """scipy's function that BEiT and timm call, which scipy took out: as scipy says to replace it.

    docs.scipy.org, "Interpolate transition guide"; on a regular grid equal to the bit.
    """
    assert kind == "cubic"
    spline = RectBivariateSpline(x, y, z.T)
    return lambda wanted_x, wanted_y: spline(wanted_x, wanted_y).T


def resized(model: Any, side: int) -> Network:
    """timm's model with its positions at another size, by timm's function without antialiasing."""
    grid = [side // 4, side // 4]
    if isinstance(model, Beit) and model.pos_embed is None:
        model.set_input_size((side, side))
        return model.forward_features
    table = resample_abs_pos_embed(model.pos_embed, grid, antialias=False)
    if isinstance(model, Beit):  # its own resize of these antialiases
        model.pos_embed = nn.Parameter(table)
        model.patch_embed.set_input_size((side, side))
        return model.forward_features
    larger = vit(table.detach(), img_size=side, global_pool=model.global_pool)
    state = model.state_dict() | {"pos_embed": table}
    larger.load_state_dict({key: state[key] for key in larger.state_dict()})
    return larger.forward_features


@pytest.mark.parametrize(
    "kind",
    ["mae", "mae fine-tuned", "moco v3", "timm", "dino full", "augreg", "beit", "beit fine-tuned",
     "beit in1k", "hf vit", "hf vit classifier"],
)  # fmt: skip
@pytest.mark.parametrize("side", [8, 28])
def test_features_are_equal_after_a_resize(
    kind: str, side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one rule for absolute positions (see `backbones.fit`), by BEiT's code for its tables.

    timm has that code, with the cubic interpolation where it is told that scipy is there.
    transformers resizes absolute positions by the same rule itself.
    """
    monkeypatch.setattr("timm.layers.pos_embed_rel._USE_SCIPY", True)
    monkeypatch.setattr("scipy.interpolate.interp2d", interp2d)
    file, network = write(kind, tmp_path)
    if not kind.startswith("hf"):
        network = resized(network.__self__, side)  # timm's model behind its method
    model, report = backbones.load("tiny", file, side)
    with torch.no_grad():
        own, expected = model.eval()(images(side)), network(images(side))
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    assert any("17 -> " in how or "52 -> " in how for how in report.resized.values())


def test_what_belongs_to_the_weights(tmp_path: Path) -> None:
    """Statistics of the pixels, pooling, eps and heads by hand, on the backbone and its report."""
    expected: dict[str, tuple[Any, ...]] = {
        "mae": (IMAGENET_MEAN, "patches", 1e-6, 4),
        "moco v3": (IMAGENET_MEAN, "cls", 1e-6, 4),
        "timm": (IMAGENET_MEAN, "cls", 1e-6, 4),
        "augreg": (HALF, "cls", 1e-6, 4),
        "beit": (HALF, "patches", 1e-6, 4),
        "beit in1k": (IMAGENET_MEAN, "patches", 1e-6, 4),
        "hf vit": (HALF, "cls", 1e-12, 4),
        "hf vit classifier": (HALF, "cls", 1e-2, 8),
        "hf vit state": (HALF, "cls", 1e-12, 4),
        "hf mae": (IMAGENET_MEAN, "patches", 1e-12, 4),
        "mae-bench": (HALF, "cls", 1e-3, 2),
    }
    for kind, facts in expected.items():
        folder = tmp_path / kind
        folder.mkdir()
        model, report = backbones.load("tiny", write(kind, folder)[0], 16)
        found = (report.pixel_mean, report.pooling, report.norm_eps, report.num_heads)
        assert found == facts, kind
        assert model.pixel_mean == facts[0], kind
        assert model.pixel_std == (IMAGENET_STD if facts[0] == IMAGENET_MEAN else report.pixel_std)
        assert {block.attn.num_heads for block in model.blocks} == {facts[3]}
        assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {facts[2]}


def test_moco_v3s_small_vit_has_twelve_heads(tmp_path: Path) -> None:
    """facebookresearch/moco-v3/issues/7; no shape shows it, and six give other features."""
    positions = sincos_2d(384, 4).roll(192, dims=2)
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 384, "depth": 1}
    network = vit(positions, **shape, num_heads=12)
    torch.save({"model": network.state_dict()}, tmp_path / "vit-s.pth")
    model, report = backbones.load("small", tmp_path / "vit-s.pth", 32)
    with torch.no_grad():
        expected = network.forward_features(images(32))
        torch.testing.assert_close(model.eval()(images(32)), expected, rtol=1e-5, atol=1e-5)
        six, _ = backbones.load("small", tmp_path / "vit-s.pth", 32, format="deit")
        assert not torch.allclose(six.eval()(images(32)), expected, atol=1e-2)
    assert report.num_heads == 12
    (said,) = report.assumed
    assert said.startswith("12 heads, as moco_v3's of this width have")
    assert said.endswith("mmpretrain's MAE, have 6: --heads 6 for those")
    assert report.maker is None  # so that no label is refused for it
    for told in ({"format": "moco_v3"}, {"heads": 12}):
        _, report = backbones.load("small", tmp_path / "vit-s.pth", 32, **told)
        assert (report.num_heads, report.assumed) == (12, [])
    state = {f"module.base_encoder.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "original.pth")
    _, report = backbones.load("small", tmp_path / "original.pth", 32)
    assert (report.num_heads, report.assumed) == (12, [])


def test_a_name_that_states_heads_is_not_overruled_by_a_guess(tmp_path: Path) -> None:
    """mmpretrain's MAE has MoCo v3's table, and the heads of its size."""
    positions = sincos_2d(384, 14).roll(192, dims=2)
    shape = {"img_size": 224, "patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6}
    network = vit(positions, **shape)
    torch.save(network.state_dict(), tmp_path / "mae.pth")
    model, report = backbones.load("timm:vit_small_patch16_224", tmp_path / "mae.pth", 224)
    with torch.no_grad():  # twelve blocks of such weights blow up what is rounded
        expected = network.double().forward_features(images(224).double())
        own = model.eval().double()(images(224).double())
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    assert report.assumed[0].startswith("6 heads, as timm:vit_small_patch16_224 has; moco_v3's of")


@pytest.mark.parametrize("kind", ["mae", "moco v3 as deit"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounded_positions_still_tell(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """At the published widths and grids: the layout decides over heads and what is pooled."""
    file, _ = write(kind, tmp_path)
    for width, grid in ((384, 14), (1280, 16)):
        table = sincos_2d(width, grid)
        if kind != "mae":
            table = table.roll(width // 2, dims=2)
        tensors = {"patch_embed.proj.weight": torch.zeros(width, 3, 16, 16),
                   "pos_embed": table.to(dtype)}  # fmt: skip
        assert conversion.detect(str(file), tensors) == WRITERS[kind][1]


def test_a_format_that_is_named_narrows_what_is_assumed(tmp_path: Path) -> None:
    file, _ = write("timm", tmp_path)
    _, report = backbones.load("tiny", file, 16)
    assert "AugReg" in report.assumed[0]
    assert "assumed: ImageNet's pixel statistics" in str(report)
    model, report = backbones.load("tiny", file, 16, format="augreg")
    assert model.pixel_mean == model.pixel_std == HALF
    assert report.assumed == ["4 heads, as tiny has; no tensor shows them"]


def test_a_bias_of_keys_changes_nothing_and_learns_nothing(tmp_path: Path) -> None:
    """BEiT's keys have none. A softmax over keys does not see what is added for all of them."""
    model, _ = backbones.load("tiny", write("beit", tmp_path)[0], 16)
    before = model.eval()(images())
    generator = torch.Generator().manual_seed(2)
    (before * torch.randn(before.shape, generator=generator)).sum().backward()
    for block in model.blocks:
        queries, keys, values = block.attn.qkv.bias.grad.chunk(3)
        assert keys.norm() < 1e-5 * min(queries.norm(), values.norm())
        assert not block.attn.qkv.bias[32:64].any()
        block.attn.qkv.bias.data[32:64] = torch.randn(32, generator=generator)
    torch.testing.assert_close(model(images()), before, rtol=1e-5, atol=1e-5)


# --- Dense prediction -------------------------------------------------------------------------

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


# --- Refusals ---------------------------------------------------------------------------------


def refusal(file: Path, **options: Any) -> str:
    with pytest.raises(backbones.BackboneError) as error:
        backbones.load("tiny", file, 16, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


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


# --- Inspection -------------------------------------------------------------------------------


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


# --- Export -----------------------------------------------------------------------------------


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


# --- Names on a hub ---------------------------------------------------------------------------


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
