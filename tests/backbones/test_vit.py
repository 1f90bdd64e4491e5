"""The plain ViT against timm's `VisionTransformer` on the same weights, and hand cases."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import backbones
from backbones.linear import Linear, linear
from backbones.vit import Block, TokenAttention, ViT, attend, compile_blocks

TINY = {
    "tiny4": backbones.Size(embed_dim=32, depth=3, num_heads=2, patch_size=4),
    "tiny14": backbones.Size(embed_dim=48, depth=4, num_heads=4, patch_size=14),
    "tiny16": backbones.Size(embed_dim=32, depth=2, num_heads=1, patch_size=16),
}


@pytest.fixture(autouse=True)
def tiny_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks that nevertheless take the way of large ones through `linear`."""
    monkeypatch.setattr("backbones.linear.LEAST_WORK", 1)
    for name, size in TINY.items():
        monkeypatch.setitem(backbones.SIZES, name, size)


def build(name: str, image_size: int, drop_path: float = 0.0) -> ViT:
    """A ViT whose biases, norms and positions are not at their initial values either."""
    torch.manual_seed(0)
    vit = backbones.create(name, image_size, drop_path)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return vit


def timm_twin(vit: ViT) -> VisionTransformer:
    twin = VisionTransformer(
        img_size=vit.image_size,
        patch_size=vit.patch_size,
        embed_dim=vit.embed_dim,
        depth=vit.depth,
        num_heads=vit.num_heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_classes=0,
        global_pool="",
    )
    twin.load_state_dict(vit.state_dict(), strict=True)
    return twin


def images_for(vit: ViT, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, vit.image_size, vit.image_size, generator=generator)


@pytest.mark.parametrize(
    ("name", "image_size"),
    [("tiny4", 16), ("tiny4", 32), ("tiny14", 70), ("tiny16", 64), ("vit_mini", 32),
     ("vit_t", 224)],
)  # fmt: skip
def test_equals_timm(name: str, image_size: int) -> None:
    vit = build(name, image_size)
    twin, images = timm_twin(vit), images_for(vit)
    tokens, expected = vit(images), twin.forward_features(images)
    assert tokens.shape == (2, 1 + vit.grid_size**2, vit.embed_dim)
    torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-5)
    for norm in (False, True):
        blocks = twin.forward_intermediates(images, indices=1, return_prefix_tokens=True, norm=norm)
        grid, prefix = blocks[1][0]
        last = torch.cat([prefix, grid.flatten(2).transpose(1, 2)], dim=1)
        torch.testing.assert_close(vit(images, norm=norm), last, rtol=1e-5, atol=1e-5)

    weights = torch.randn_like(tokens)
    (tokens * weights).sum().backward()
    (expected * weights).sum().backward()
    for key, parameter in twin.named_parameters():
        own = vit.get_parameter(key).grad
        distance = (own - parameter.grad).norm() / parameter.grad.norm()
        assert distance < 1e-5, f"{key}: {distance:.1e}"


@pytest.mark.parametrize("blocks", [[0, 1, 3], [3], [2, 0], [1, 1], []])
def test_feature_maps_equal_timm(blocks: list[int]) -> None:
    vit = build("tiny14", 70)
    images = images_for(vit)
    expected = dict(enumerate(timm_twin(vit).forward_intermediates(images)[1]))
    maps = vit.feature_maps(images, blocks)
    assert len(maps) == len(blocks)
    for feature_map, block in zip(maps, blocks, strict=True):
        assert feature_map.shape == (2, 48, 5, 5)
        torch.testing.assert_close(feature_map, expected[block], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("blocks", [[4], [-1], [0, 9]])
def test_feature_maps_refuse_unknown_blocks(blocks: list[int]) -> None:
    vit = build("tiny14", 70)
    with pytest.raises(backbones.BackboneError, match="has blocks 0 to 3"):
        vit.feature_maps(images_for(vit), blocks)


def test_stochastic_depth_equals_timm() -> None:
    """Rates rise linearly to `drop_path`; the same generator drops the same branches."""
    vit = build("tiny14", 70, drop_path=0.3)
    twin = timm_twin(vit)
    rates = [0.0, 0.1, 0.2, 0.3]
    assert [getattr(b.drop_path, "drop_prob", 0.0) for b in vit.blocks] == pytest.approx(rates)
    reference = VisionTransformer(
        img_size=70, patch_size=14, embed_dim=48, depth=4, num_heads=4, num_classes=0,
        global_pool="", drop_path_rate=0.3, norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    reference.load_state_dict(vit.state_dict())
    images = images_for(vit, 16)
    torch.manual_seed(3)
    dropped = vit.train()(images)
    torch.manual_seed(3)
    torch.testing.assert_close(dropped, reference.train().forward_features(images))
    torch.testing.assert_close(vit.eval()(images), twin.eval().forward_features(images))
    assert not torch.allclose(dropped, vit(images), atol=1e-2)


def test_layer_index_by_hand() -> None:
    vit = build("tiny4", 16)
    expected = {
        "cls_token": 0,
        "pos_embed": 0,
        "patch_embed.proj.weight": 0,
        "patch_embed.proj.bias": 0,
        "blocks.0.norm1.weight": 1,
        "blocks.0.mlp.fc2.bias": 1,
        "blocks.1.attn.qkv.weight": 2,
        "blocks.2.attn.proj.bias": 3,
        "norm.weight": 4,
        "norm.bias": 4,
    }
    assert {name: vit.layer_index(name) for name in expected} == expected
    assert {vit.layer_index(name) for name, _ in vit.named_parameters()} == {0, 1, 2, 3, 4}
    with pytest.raises(backbones.BackboneError, match=r"head\.weight"):
        vit.layer_index("head.weight")


def test_no_decay_names_parameters() -> None:
    vit = build("tiny4", 16)
    assert vit.no_decay() == {"cls_token", "pos_embed"}
    assert vit.no_decay() <= {name for name, _ in vit.named_parameters()}


def test_positions_are_trainable_by_default() -> None:
    vit = build("tiny4", 16)
    vit(images_for(vit)).sum().backward()
    assert vit.pos_embed.grad.any()


@pytest.mark.parametrize(
    ("name", "parameters"),
    # Encoders of MAE (B, L, H) and DeiT (S, T), counted by timm without a head.
    [("vit_t", 5524416), ("vit_s", 21665664), ("vit_b", 85798656), ("vit_l", 303301632),
     ("vit_h", 630764800)],
)  # fmt: skip
def test_sizes(name: str, parameters: int) -> None:
    with torch.device("meta"):
        vit = backbones.create(name)
    assert sum(p.numel() for p in vit.parameters()) == parameters


@pytest.mark.parametrize(("image_size", "nearest"), [(225, 224), (230, 224), (8, 16), (0, 16)])
def test_refuses_sizes_the_patch_does_not_divide(image_size: int, nearest: int) -> None:
    with pytest.raises(backbones.BackboneError, match=f"nearest: {nearest}$") as error:
        backbones.create("vit_t", image_size)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(2, 3, 16, 20), (2, 3, 20, 20)])
def test_refuses_images_of_another_size(shape: tuple[int, ...]) -> None:
    vit = build("tiny4", 16)
    with pytest.raises(backbones.BackboneError, match="takes 16 x 16"):
        vit(torch.zeros(shape))
    with pytest.raises(backbones.BackboneError, match="takes 16 x 16"):
        vit.feature_maps(torch.zeros(shape), [0])


def test_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(backbones.BackboneError, match="did you mean vit_b") as error:
        backbones.create("vitb")
    assert "\n" not in str(error.value)
    assert "vit_h" in str(error.value)


# --- Parts ------------------------------------------------------------------------------------


def test_attention_of_the_last_queries() -> None:
    torch.manual_seed(0)
    qkv = torch.randn(2, 7, 3 * 12, requires_grad=True)
    q, k, v = qkv.view(2, 7, 3, 4, 3).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(2, 3) / 3**0.5).softmax(dim=-1)
    expected = (weights @ v).transpose(1, 2).reshape(2, 7, 12)
    torch.testing.assert_close(attend(qkv, 4), expected)
    torch.testing.assert_close(attend(qkv, 4, num_queries=3), expected[:, 4:])
    upstream = torch.randn(2, 3, 12)
    (own,) = torch.autograd.grad(attend(qkv, 4, num_queries=3), qkv, upstream)
    (by_hand,) = torch.autograd.grad(expected[:, 4:], qkv, upstream)
    torch.testing.assert_close(own, by_hand)


def test_biased_attention_of_the_last_queries() -> None:
    torch.manual_seed(0)
    attention, x = TokenAttention(32, 4, side=3, biased=True), torch.randn(2, 10, 32)
    nn.init.normal_(attention.relative_position_bias_table)
    torch.testing.assert_close(attention(x, num_queries=4), attention(x)[:, 6:])


def test_block_of_the_last_queries() -> None:
    torch.manual_seed(0)
    block, x = Block(32, 4), torch.randn(2, 9, 32)
    torch.testing.assert_close(block(x, num_queries=5), block(x)[:, 4:])


LINEAR_INPUTS = {
    "rows": lambda: torch.randn(50, 24),
    "batch": lambda: torch.randn(3, 17, 24),
    "one row": lambda: torch.randn(1, 24),
    "strided": lambda: torch.randn(3, 24, 17).transpose(1, 2),
    "sliced": lambda: torch.randn(3, 17, 24)[:, 2:9],
    "no rows": lambda: torch.randn(0, 24),
}


@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kind", LINEAR_INPUTS)
def test_linear_equals_torch_in_double_precision(kind: str, with_bias: bool) -> None:
    torch.manual_seed(0)
    x = LINEAR_INPUTS[kind]()
    inputs = [x, torch.randn(40, 24), torch.randn(40) if with_bias else None]
    double = [None if t is None else t.double().requires_grad_() for t in inputs]
    single = [None if t is None else t.clone().requires_grad_() for t in inputs]
    out, expected = linear(*single), F.linear(*double)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    upstream = torch.randn(40, *x.shape[:-1]).movedim(0, -1)  # a strided gradient, too
    out.backward(upstream)
    expected.backward(upstream.double())
    for own, reference in zip(single, double, strict=True):
        if own is not None:
            torch.testing.assert_close(own.grad.double(), reference.grad, rtol=1e-5, atol=2e-5)


def test_linear_computes_only_the_gradients_asked_for() -> None:
    torch.manual_seed(0)
    layer = Linear(8, 4).requires_grad_(False)
    x = torch.randn(5, 8, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(dim=0).expand(5, -1))
    layer.bias.requires_grad_()
    layer(x.detach()).sum().backward()
    assert layer.weight.grad is None
    assert torch.equal(layer.bias.grad, torch.full((4,), 5.0))


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_linear_can_be_switched_to_torchs_own() -> None:
    torch.manual_seed(0)
    layer, x = Linear(8, 4), torch.randn(5, 8)
    fast = layer(x)
    assert "OneDnn" in type(fast.grad_fn).__name__
    with torch.backends.mkldnn.flags(enabled=False):
        plain = layer(x)
    assert "OneDnn" not in type(plain.grad_fn).__name__
    torch.testing.assert_close(fast, plain)


def test_small_products_stay_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backbones.linear.LEAST_WORK", 5 * 8 * 4)
    layer = Linear(8, 4)
    assert "OneDnn" in type(layer(torch.randn(5, 8)).grad_fn).__name__
    assert "OneDnn" not in type(layer(torch.randn(4, 8)).grad_fn).__name__


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_linear_keeps_other_precisions(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, x = Linear(8, 4), torch.randn(5, 8)
    expected = F.linear(x.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype))
    assert torch.equal(layer.to(dtype)(x.to(dtype)), expected)


def test_autocast_computes_in_bfloat16() -> None:
    vit = build("tiny4", 16)
    images = images_for(vit)
    with torch.autocast("cpu", torch.bfloat16):
        assert vit.blocks[0].mlp.fc1(torch.randn(2, 32)).dtype == torch.bfloat16
        tokens = vit(images)
    torch.testing.assert_close(tokens.float(), vit(images), rtol=0.05, atol=0.05)
    tokens.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in vit.parameters())


@pytest.mark.parametrize(("drop_path", "graphs"), [(0.0, 1), (0.2, 12)])
def test_every_block_is_compiled(drop_path: float, graphs: int) -> None:
    """Twelve rates of stochastic depth make twelve graphs; torch gives up after eight."""
    torch._dynamo.reset()
    seen = []

    def count(graph: torch.fx.GraphModule, _: object) -> Callable:
        seen.append(graph)
        return graph.forward

    vit = backbones.create("vit_t", 32, drop_path=drop_path).train()
    images = torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    expected = vit(images)
    compile_blocks(vit, backend=count)
    torch.manual_seed(0)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        torch.testing.assert_close(vit(images), expected, rtol=1e-4, atol=1e-5)
    assert len(seen) == graphs
