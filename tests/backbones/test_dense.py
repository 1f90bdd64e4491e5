"""The ViT for dense prediction, against timm and detectron2 and by hand."""

from functools import partial
from pathlib import Path

import pytest
import torch
from dense_networks import SHARED, TINY, VITDET, assert_near, build, gradients, images_for
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import backbones
from backbones import Dense
from backbones.dense import DenseViT, join_windows, split_windows
from backbones.posembed import resize_grid, sincos_2d


@pytest.fixture(autouse=True)
def tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network that nevertheless takes the way of large ones through `linear`."""
    monkeypatch.setattr("backbones.linear.LEAST_WORK", 1)
    monkeypatch.setitem(backbones.SIZES, "tiny", TINY)


def timm_twin(vit: DenseViT) -> VisionTransformerSAM:
    """timm resizes positions with antialiasing, so it gets them resized by us."""
    twin = VisionTransformerSAM(
        img_size=vit.image_size,
        patch_size=vit.patch_size,
        embed_dim=vit.embed_dim,
        depth=vit.depth,
        num_heads=vit.num_heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=vit.dense.relative_position == "decomposed",
        window_size=vit.dense.window_size or 0,
        global_attn_indexes=vit.dense.global_blocks,
        neck_chans=0,
        num_classes=0,
    )
    twin.neck = nn.Identity()
    state = {key: value.clone() for key, value in vit.state_dict().items()}
    side = vit.grid_size
    state["pos_embed"] = resize_grid(state["pos_embed"], side).view(1, side, side, -1)
    twin.load_state_dict(state, strict=True)
    return twin


@pytest.mark.parametrize(
    ("dense", "image_size"),
    [
        (VITDET, 80),
        (VITDET, 64),  # nothing to pad
        (VITDET, 24),  # windows larger than the map
        (Dense(relative_position="decomposed"), 80),
        (Dense(window_size=3, relative_position="decomposed"), 80),
        (Dense(window_size=4, global_blocks=(0,)), 80),
        (Dense(), 40),
        (Dense(4, (1, 3), "decomposed", patch_size=10, resize_position="load"), 70),
    ],
)
def test_equals_timm(dense: Dense, image_size: int) -> None:
    vit = build(dense, image_size)
    twin, images = timm_twin(vit), images_for(vit)
    blocks = [0, 1, 3]
    maps = vit.feature_maps(images, blocks)
    expected = twin.forward_intermediates(images, indices=blocks, intermediates_only=True)
    for own, theirs in zip(maps, expected, strict=True):
        assert own.shape == (2, vit.embed_dim, vit.grid_size, vit.grid_size)
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-5)
    own, theirs = gradients(vit, maps), gradients(twin, expected)
    if vit.pos_embed.shape[1] != vit.grid_size**2:
        table = vit.pos_embed.detach().clone().requires_grad_()
        resized = resize_grid(table, vit.grid_size)
        upstream = theirs["pos_embed"].flatten(1, 2)
        (theirs["pos_embed"],) = torch.autograd.grad(resized, table, upstream)
    assert set(own) == {name for name, _ in vit.named_parameters()}
    assert_near(own, theirs)


@pytest.mark.parametrize("patch_size", [None, 16])
def test_equals_detectron2(patch_size: int | None, tmp_path: Path) -> None:
    """The same file in both: positions of a 14 x 14 grid with a class row, resized to 10 x 10."""
    theirs = pytest.importorskip("detectron2.modeling.backbone.vit")
    pytest.importorskip("timm.models.layers", reason="detectron2 takes its layers from there")
    size = 10 * (patch_size or 8)
    reference = theirs.ViT(
        img_size=size, patch_size=patch_size or 8, embed_dim=32, depth=4, num_heads=2,
        norm_layer=partial(nn.LayerNorm, eps=1e-6), use_rel_pos=True, window_size=4,
        window_block_indexes=(0, 2), pretrain_img_size=14 * (patch_size or 8),
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            parameter.add_((0.5 if "rel_pos" in name else 0.05) * torch.randn_like(parameter))
    torch.save(reference.state_dict(), tmp_path / "d2.pth")
    backbones.SIZES["tiny"] = backbones.Size(32, 4, 2, patch_size=8, pretrain_image=14 * 8)
    dense = Dense(4, (1, 3), "decomposed", patch_size=patch_size)
    vit, report = backbones.load("tiny", tmp_path / "d2.pth", size, dense=dense)
    assert report.resized == {"pos_embed": "197 -> 196 positions, class row dropped"}
    images = images_for(vit)
    (own,), expected = vit.feature_maps(images, [3]), reference(images)["last_feat"]
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    own_gradients, their_gradients = gradients(vit, [own]), gradients(reference, [expected])
    assert not their_gradients["pos_embed"][:, 0].any()
    their_gradients["pos_embed"] = their_gradients["pos_embed"][:, 1:]
    assert_near(own_gradients, their_gradients)


def test_windows_there_and_back() -> None:
    x = torch.arange(2 * 5 * 7 * 1.0).view(2, 5, 7, 1)
    windows = split_windows(x, 3, padding=torch.tensor([-1.0]))
    assert windows.shape == (2 * 2 * 3, 9, 1)
    assert windows[0, :, 0].tolist() == [0, 1, 2, 7, 8, 9, 14, 15, 16]
    assert windows[5, :, 0].tolist() == [27, -1, -1, 34, -1, -1, -1, -1, -1]
    assert torch.equal(join_windows(windows, 3, 5, 7), x)


@pytest.mark.parametrize("blocks", [[0, 1, 3], [3], [2, 0], [1, 1], []])
def test_feature_maps_come_as_asked(blocks: list[int]) -> None:
    vit = build()
    images = images_for(vit)
    everything = vit.feature_maps(images, range(4))
    maps = vit.feature_maps(images, blocks)
    assert len(maps) == len(blocks)
    assert all(torch.equal(m, everything[i]) for m, i in zip(maps, blocks, strict=True))


@pytest.mark.parametrize("dense", [VITDET, SHARED], ids=["decomposed", "shared"])
def test_relative_positions_start_without_effect(dense: Dense) -> None:
    torch.manual_seed(0)
    vit = backbones.create("tiny", 80, dense=dense)
    plain = Dense(dense.window_size, dense.global_blocks, resize_position=dense.resize_position)
    other = backbones.create("tiny", 80, dense=plain)
    other.load_state_dict({k: v for k, v in vit.state_dict().items() if "rel_pos" not in k})
    images = images_for(vit)
    torch.testing.assert_close(vit.feature_maps(images, [3]), other.feature_maps(images, [3]))


@pytest.mark.parametrize("dense", [VITDET, SHARED], ids=["decomposed", "shared"])
def test_recomputing_changes_nothing(dense: Dense) -> None:
    """Also with stochastic depth, whose random numbers have to be the same again."""
    networks = [build(dense, drop_path=0.5).train() for _ in range(2)]
    for block in networks[1].blocks:
        block.recompute()
    results, saved = [], []
    for vit in networks:
        torch.manual_seed(5)
        sizes: list[int] = []
        with saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            maps = vit.feature_maps(images_for(vit), [1, 3])
        saved.append(sum(sizes))
        results.append((maps, gradients(vit, maps)))
    (plain, plain_gradients), (again, again_gradients) = results
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert set(plain_gradients) == {name for name, _ in vit.named_parameters()}
    assert all(torch.equal(again_gradients[k], g) for k, g in plain_gradients.items())
    assert saved[1] < saved[0] / 2


@pytest.mark.parametrize("dense", [VITDET, SHARED], ids=["decomposed", "shared"])
def test_autocast_computes_in_bfloat16(dense: Dense) -> None:
    vit = build(dense)
    images = images_for(vit)
    with torch.autocast("cpu", torch.bfloat16):
        assert vit.blocks[0].attn(torch.randn(1, 10, 10, 32), vit.bias("window")).dtype == (
            torch.bfloat16
        )
        (own,) = vit.feature_maps(images, [3])
    (expected,) = vit.feature_maps(images, [3])
    torch.testing.assert_close(own.float(), expected, rtol=0.1, atol=0.1)
    near, exact = gradients(vit, [own.float()]), gradients(vit, [expected])
    for key, gradient in exact.items():
        assert (near[key] - gradient).norm() < 0.1 * gradient.norm(), key


def test_layer_index_by_hand() -> None:
    expected = {
        "pos_embed": 0,
        "patch_embed.proj.weight": 0,
        "patch_embed.proj.bias": 0,
        "blocks.0.norm1.weight": 1,
        "blocks.1.attn.rel_pos_h": 2,
        "blocks.3.attn.rel_pos_w": 4,
    }
    vit = build()
    assert {name: vit.layer_index(name) for name in expected} == expected
    assert {vit.layer_index(name) for name, _ in vit.named_parameters()} == {0, 1, 2, 3, 4}
    shared = build(SHARED)
    assert {shared.layer_index(name) for name, _ in shared.named_parameters()} == {0, 1, 2, 3, 4, 5}
    assert shared.layer_index("rel_pos_window") == shared.layer_index("rel_pos_global") == 5
    with pytest.raises(backbones.BackboneError, match="cls_token"):
        vit.layer_index("cls_token")


def test_only_tables_that_are_used_exist() -> None:
    def tables(*arguments: object) -> set[str]:
        state = backbones.create("tiny", 80, dense=Dense(*arguments)).state_dict()
        return {name for name in state if "rel_pos" in name}

    assert tables(4, (1,), "shared") == {"rel_pos_window", "rel_pos_global"}
    assert tables(4, (), "shared") == {"rel_pos_window"}
    assert tables(None, (), "shared") == {"rel_pos_global"}
    assert tables(4, (1,), "none") == set()


def test_no_decay_names_parameters() -> None:
    vit = build()
    assert vit.no_decay() == {"pos_embed"} <= {name for name, _ in vit.named_parameters()}


def test_positions_at_the_start() -> None:
    """At the grid of pre-training, which is the name's own even with another patch size."""
    forward = backbones.create("tiny", 80, dense=Dense(patch_size=10))
    assert torch.equal(forward.pos_embed, sincos_2d(32, 4)[:, 1:])
    loaded = backbones.create("tiny", 80, dense=Dense(resize_position="load"))
    assert torch.equal(loaded.pos_embed, resize_grid(sincos_2d(32, 4)[:, 1:], 10))
    with torch.device("meta"):
        huge = backbones.create("vit_h", 1024, dense=Dense(14, (7, 15), patch_size=16))
    assert huge.pos_embed.shape == (1, 16**2, 1280)
    assert huge.grid_size == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_size": 0}, "window_size is 0; expected at least 1"),
        ({"patch_size": -1}, "patch_size is -1; expected at least 1"),
        ({"global_blocks": (0, 4)}, r"has blocks 0 to 3; asked for \[4\]"),
        ({"global_blocks": (-1,)}, r"has blocks 0 to 3; asked for \[-1\]"),
        ({"relative_position": "both"}, "relative_position is 'both'; there are none, decomposed"),
        ({"resize_position": "never"}, "resize_position is 'never'; there are forward, load"),
        ({"patch_size": 9}, "not divisible by the patch size 9 of tiny; nearest: 81"),
    ],
)
def test_refuses_options(options: dict, message: str) -> None:
    with pytest.raises(backbones.BackboneError, match=message) as error:
        backbones.create("tiny", 80, dense=Dense(**options))
    assert "\n" not in str(error.value)


def test_refuses_other_images_and_blocks() -> None:
    vit = build()
    with pytest.raises(backbones.BackboneError, match="takes 80 x 80"):
        vit.feature_maps(torch.zeros(1, 3, 80, 72), [0])
    with pytest.raises(backbones.BackboneError, match="has blocks 0 to 3"):
        vit.feature_maps(images_for(vit), [4])
