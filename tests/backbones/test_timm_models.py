"""Backbones by names of timm's: the same network, or a refusal with the reason."""

from typing import Any

import pytest
import timm
import torch

import backbones
from backbones.checkpoint import save
from backbones.sizes import TIMM, shape_of

# Shapes with plain, scaled, wide, finely cut, table-biased and unnormed networks.
PLAIN = [
    "vit_tiny_patch16_224", "vit_small_patch8_224", "vit_base_patch16_224.mae",
    "vit_small_patch14_dinov2", "vit_huge_patch14_224", "deit3_small_patch16_384",
    "eva_large_patch14_196", "beit_base_patch16_224.in22k_ft_in22k", "beitv2_large_patch16_224",
]  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_has_the_parameters_of_timms(name: str) -> None:
    """All of them; BEiT's keys have a bias more, at zero."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
        own = backbones.create(f"timm:{name}", model.patch_embed.img_size[0])
    wanted = sum(p.numel() for key, p in model.named_parameters() if "fc_norm" not in key)
    if own.anatomy.relative_position:
        wanted += own.depth * own.embed_dim
    if getattr(model, "no_embed_class", False):
        wanted += own.embed_dim
    assert sum(p.numel() for p in own.parameters()) == wanted
    assert own.name == f"timm:{name}"
    assert own.num_heads == model.blocks[0].attn.num_heads
    assert own.blocks[0].norm1.eps == model.blocks[0].norm1.eps


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit3_small_patch16_224"])
def test_computes_what_timm_does(name: str, tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, img_size=64).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save(model.state_dict(), tmp_path / "timm.safetensors", {})
    own, report = backbones.load(f"timm:{name}", tmp_path / "timm.safetensors", 64)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        tokens, expected = own.eval()(images), model.forward_features(images)
    torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-5)
    assert report.backbone == f"timm:{name}"
    dense = backbones.Dense(4, (), "decomposed")
    maps = backbones.create(f"timm:{name}", 128, dense=dense).feature_maps(
        torch.zeros(1, 3, 128, 128), [0]
    )
    assert maps[0].shape == (1, own.embed_dim, 8, 8)


def test_size_of() -> None:
    size = backbones.size_of("timm:vit_small_patch8_224")
    assert size == backbones.Size(384, 12, 6, 8, pretrain_image=224)
    assert backbones.size_of("timm:beit_large_patch16_512").pretrain_image == 512
    assert shape_of("timm:beit_base_patch16_224")[1] == backbones.Anatomy(
        layer_scale=0.1, absolute_position=False, relative_position=True, final_norm=False
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("swin_tiny_patch4_window7_224", "is a SwinTransformer; only plain ViTs"),
        ("resnet10t", "is a ResNet"),
        ("vit_small_patch14_reg4_dinov2", "has 4 register tokens"),
        ("vit_tiny_r_s16_p8_224", "embeds patches by a HybridEmbed"),
        ("vit_base_patch16_clip_224", "embeds patches without a bias"),
        ("vit_giant_patch14_dinov2", "has a GluMlp in its blocks"),
        ("vit_small_patch16_18x2_224", "is made of ParallelThingsBlocks"),
        ("deit_tiny_distilled_patch16_224", "is a VisionTransformerDistilled"),
        ("vit_base_patch16_siglip_224", "has no class token"),
        ("vit_tiny_patch16", "timm .* has no model 'vit_tiny_patch16'; did you mean vit_tiny"),
        ("vit_tiny_patch16_224.nothing", "timm cannot build it"),
    ],
)
def test_refuses_others_with_the_reason(name: str, said: str) -> None:
    with pytest.raises(backbones.BackboneError, match=said) as error:
        backbones.create(f"timm:{name}")
    assert "\n" not in str(error.value)
    assert f"backbone '{TIMM}{name}'" in str(error.value)


def test_a_file_of_another_anatomy_is_refused(tmp_path: Any) -> None:
    """A file says what it is; a name of timm's says so too, and both have to agree."""
    with torch.device("meta"):
        state = backbones.create("timm:deit3_small_patch16_224").state_dict()
    torch.save({key: torch.ones(value.shape) for key, value in state.items()}, tmp_path / "d.pth")
    with pytest.raises(backbones.BackboneError, match=r"layer scale \(the file alone\)"):
        backbones.load("timm:vit_small_patch16_224", tmp_path / "d.pth")
    assert backbones.load("vit_s", tmp_path / "d.pth")[0].anatomy.layer_scale is not None
