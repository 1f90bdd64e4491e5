"""BEiT beside Hugging Face's, on the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

import backbones
from backbones.checkpoint import describe, save
from backbones.loading import anatomy_metadata
from mae_bench.pretraining import masks
from mae_bench.pretraining.beit import MaskedImageModel
from mae_bench.recipes import recipe

SIZE, CODES = 32, 50


def randomised(drop_path: float = 0.0) -> MaskedImageModel:
    """A small one whose every parameter is at no special value, but for the bias of keys."""
    torch.manual_seed(0)
    model = MaskedImageModel("vit_mini", SIZE, CODES, drop_path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for block in model.encoder.blocks:
            width = model.encoder.embed_dim
            block.attn.qkv.bias[width : 2 * width] = 0
    return model


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Images, masks of which each removes another number of patches, and tokens."""
    mask = torch.arange(16) % torch.tensor([[2], [3], [5], [7]]) == 0
    return torch.randn(4, 3, SIZE, SIZE), mask, torch.randint(CODES, (4, 16))


def peer(model: MaskedImageModel) -> transformers.BeitForMaskedImageModeling:
    """Hugging Face's with the same weights."""
    encoder = model.encoder
    config = transformers.BeitConfig(
        vocab_size=CODES,
        hidden_size=encoder.embed_dim,
        num_hidden_layers=encoder.depth,
        num_attention_heads=encoder.num_heads,
        intermediate_size=4 * encoder.embed_dim,
        image_size=SIZE,
        patch_size=encoder.patch_size,
        use_mask_token=True,
        use_shared_relative_position_bias=True,
        layer_scale_init_value=0.1,
        layer_norm_eps=1e-6,
        drop_path_rate=0.0,
    )
    other = transformers.BeitForMaskedImageModeling(config)
    other.load_state_dict(mapped({k: v.detach() for k, v in named(model).items()}))
    return other


def named(model: MaskedImageModel) -> dict[str, Tensor]:
    return dict(model.named_parameters())


def mapped(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameters of ours, or their gradients, under Hugging Face's names."""
    table = ours["encoder.blocks.0.attn.relative_position_bias_table"]
    out = {
        "beit.embeddings.cls_token": ours["encoder.cls_token"],
        "beit.embeddings.mask_token": ours["mask_token"],
        "beit.shared_position_bias.relative_position_bias_table": table,
    }
    pairs = {
        "beit.embeddings.patch_embeddings.projection": "encoder.patch_embed.proj",
        "layernorm": "encoder.norm",
        "lm_head": "lm_head",
    }
    for i in range(4):
        start, own = f"beit.layers.{i}.", f"encoder.blocks.{i}."
        pairs |= {
            f"{start}attention.o_proj": f"{own}attn.proj",
            f"{start}layernorm_before": f"{own}norm1",
            f"{start}layernorm_after": f"{own}norm2",
            f"{start}mlp.fc1": f"{own}mlp.fc1",
            f"{start}mlp.fc2": f"{own}mlp.fc2",
        }
        out |= {f"{start}lambda_{j}": ours[f"{own}ls{j}.gamma"] for j in (1, 2)}
        for kind in ("weight", "bias"):
            parts = ours[f"{own}attn.qkv.{kind}"].chunk(3)
            out |= {
                f"{start}attention.{name}_proj.{kind}": part
                for name, part in zip("qkv", parts, strict=True)
                if (name, kind) != ("k", "bias")
            }
    both = ("weight", "bias")
    return out | {f"{a}.{kind}": ours[f"{b}.{kind}"] for a, b in pairs.items() for kind in both}


def test_logits_loss_and_gradients_are_hugging_faces() -> None:
    model = randomised()
    images, mask, tokens = inputs()
    other = peer(model)
    result = other(images, bool_masked_pos=mask, labels=tokens[mask])
    loss = model(images, mask, tokens)
    loss.backward()
    result.loss.backward()
    logits = model.logits(images, mask)
    torch.testing.assert_close(logits, result.logits[mask], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss, result.loss, rtol=1e-5, atol=0)
    ours = mapped({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
    theirs = {name: p.grad for name, p in other.named_parameters()}
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        assert gradient is not None
        assert float((ours[name] - gradient).norm() / gradient.norm()) < 1e-5, name


def test_keys_have_no_bias_and_blocks_one_table() -> None:
    """As in BEiT: a step of AdamW leaves the bias of keys at zero."""
    model = randomised()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(*inputs()).backward()
    optimiser.step()
    width = model.encoder.embed_dim
    tables = set()
    for i in range(4):
        attention: Any = model.encoder.get_submodule(f"blocks.{i}.attn")
        assert not attention.qkv.bias[width : 2 * width].any()
        assert attention.qkv.bias[:width].all()
        tables.add(id(attention.relative_position_bias_table))
    assert len(tables) == 1
    names = [name for name, _ in model.named_parameters() if "table" in name]
    assert len(names) == 1


def released(model: MaskedImageModel) -> dict[str, Tensor]:
    """The model in the layout of beit_*_patch16_224_pt22k.pth."""
    out = {"mask_token": model.mask_token, "lm_head.weight": model.lm_head.weight}
    for name, value in model.encoder.state_dict().items():
        if name.endswith("relative_position_bias_table"):
            out["rel_pos_bias.relative_position_bias_table"] = value
        elif name.endswith("qkv.bias"):
            start = name.removesuffix("qkv.bias")
            out[f"{start}q_bias"], _, out[f"{start}v_bias"] = value.chunk(3)
        else:
            out[name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")] = value
    return {name: value.detach().clone() for name, value in out.items()}


def written(model: MaskedImageModel, folder: Path) -> tuple[Path, Path]:
    """The file that a pre-training writes, and one as BEiT's authors released theirs."""
    ours, theirs = folder / "backbone.safetensors", folder / "released.pth"
    torch.save({"model": released(model)}, theirs)
    origin = describe({"method": "beit"}) | anatomy_metadata(model.encoder)
    save(model.encoder.state_dict(), ours, origin)
    return ours, theirs


@pytest.mark.parametrize(
    ("task", "protocol"), [("coco", "mask_rcnn-fpn"), ("ade20k", "upernet-512-160k")]
)
def test_the_papers_dense_protocols_take_its_file(task, protocol, tmp_path: Path) -> None:
    """Tables 4 and 5."""
    options = recipe(task, "vit_mini", protocol).backbone_options()

    def load(file: Path) -> dict[str, Tensor]:
        torch.manual_seed(0)
        return backbones.load("vit_mini", file, **options)[0].state_dict()

    one, other = map(load, written(randomised(), tmp_path))
    assert ("pos_embed" in one) is (task == "coco")  # 2111.11429, section 3.1
    assert any("rel_pos" in name or "table" in name for name in one)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_its_file_loads_like_a_released_one(tmp_path: Path) -> None:
    model = randomised()
    ours, theirs = written(model, tmp_path)
    images = torch.randn(2, 3, SIZE, SIZE)
    one, told = backbones.load("vit_mini", ours, SIZE)
    other, _ = backbones.load("vit_mini", theirs, SIZE)
    torch.testing.assert_close(one(images), other(images))
    torch.testing.assert_close(one(images), model.encoder(images))
    assert told.method == "beit"
    assert not told.assumed
    tables = {id(b.attn.relative_position_bias_table) for b in one.blocks}
    assert len(tables) == 4  # each block's own, as in BEiT's fine-tuning


def test_it_begins_as_beit_does() -> None:
    torch.manual_seed(0)
    model = MaskedImageModel("vit_mini", SIZE, CODES, layer_scale=0.25)
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        if name.endswith(("bias", "table")):
            assert not value.any(), name
        elif "gamma" in name:
            assert value.eq(0.25).all()
        elif "norm" not in name:
            scale = 1.0
            if name.endswith(("attn.proj.weight", "fc2.weight")):
                scale = (2 * (int(name.split(".")[2]) + 1)) ** -0.5
            assert float(value.abs().max()) <= 0.02 * scale * 1.0001, name
            # of a normal distribution cut at one deviation
            assert float(value.std()) == pytest.approx(0.54 * 0.02 * scale, rel=0.15), name


def test_masks_are_as_beits_sampler_draws_them() -> None:
    """Measured on 15,000 masks of microsoft/unilm, beit/masking_generator.py."""
    rng = np.random.default_rng(0)
    drawn = np.array([masks.beit(rng, 14, 75, 16, None) for _ in range(2000)])
    counts, maps = drawn.sum(axis=1), drawn.reshape(-1, 14, 14)
    assert counts.max() == 75
    assert counts.mean() == pytest.approx(74.48, abs=0.1)
    assert counts.std() == pytest.approx(0.98, abs=0.15)
    assert (counts == 75).mean() == pytest.approx(0.667, abs=0.04)
    neighbours = (maps[:, :, 1:] & maps[:, :, :-1]).sum(axis=(1, 2)).mean()
    assert neighbours == pytest.approx(62.62, abs=0.5)
    assert maps[:, 6:8, 6:8].mean() == pytest.approx(0.716, abs=0.03)
    assert maps[:, 0, 0].mean() == pytest.approx(0.041, abs=0.02)
    small = np.array([masks.beit(rng, 14, 75, 16, 20).sum() for _ in range(50)])
    assert small.max() <= 75
