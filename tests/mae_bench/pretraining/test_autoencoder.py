"""The masked autoencoder against Hugging Face's and lightly's, and against hand-made cases."""

import math
from pathlib import Path

import numpy as np
import peers
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import backbones
from backbones.checkpoint import save
from mae_bench.mae import MaskedAutoencoder

# Widths of 32 and 48 give head sizes of 16 and 12; name ends in the patch size.
TINY = {
    "tiny4": backbones.Size(embed_dim=32, depth=2, num_heads=2, patch_size=4),
    "tiny8": backbones.Size(embed_dim=48, depth=3, num_heads=4, patch_size=8),
    "tiny14": backbones.Size(embed_dim=32, depth=1, num_heads=1, patch_size=14),
    "tiny16": backbones.Size(embed_dim=48, depth=2, num_heads=4, patch_size=16),
}
CASES = {
    "patch 4": ("tiny4", 16, {"decoder_dim": 32, "decoder_depth": 2, "decoder_heads": 4}),
    "patch 8": ("tiny8", 40, {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 1}),
    "patch 14": ("tiny14", 70, {"decoder_dim": 64, "decoder_depth": 2, "decoder_heads": 2}),
    "patch 16": ("tiny16", 64, {"decoder_dim": 32, "decoder_depth": 3, "decoder_heads": 2}),
    "decoder wider than the encoder": (
        "tiny8", 32, {"decoder_dim": 96, "decoder_depth": 2, "decoder_heads": 8}
    ),
    "few masked": ("tiny8", 48, {"decoder_dim": 32, "decoder_heads": 2, "mask_ratio": 0.3}),
    "one visible": ("tiny16", 64, {"decoder_dim": 32, "decoder_heads": 2, "mask_ratio": 0.9}),
    "one masked": ("tiny16", 64, {"decoder_dim": 32, "decoder_heads": 2, "mask_ratio": 0.03}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def tiny_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks that nevertheless take the way of large ones through `linear`."""
    monkeypatch.setattr("backbones.linear.LEAST_WORK", 1)
    for name, size in TINY.items():
        monkeypatch.setitem(backbones.SIZES, name, size)


def build(backbone: str, image_size: int, seed: int = 0, **options) -> MaskedAutoencoder:
    """An autoencoder whose biases and norms are not at their zeros and ones either."""
    torch.manual_seed(seed)
    mae = MaskedAutoencoder(backbone, image_size, **options)
    with torch.no_grad():
        for parameter in mae.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return mae


def batch(mae: MaskedAutoencoder, size: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Images and noise."""
    generator = torch.Generator().manual_seed(seed)
    side = mae.encoder.image_size
    images = torch.randn(size, 3, side, side, generator=generator)
    return images, torch.rand(size, mae.num_patches, generator=generator)


def gradients(mae: MaskedAutoencoder) -> dict[str, Tensor]:
    return {
        name.removeprefix("encoder."): parameter.grad
        for name, parameter in mae.named_parameters()
        if parameter.requires_grad
    }


def assert_same_gradients(own: dict[str, Tensor], peer: dict[str, Tensor]) -> None:
    """Every tensor to 1e-5 of its norm.

    The bias of the keys has a zero gradient in exact arithmetic (softmax does not see it), so
    its third of a qkv bias is compared on the scale of the whole bias, as the norm does.
    """
    assert set(own) == set(peer)
    for key, value in own.items():
        distance = (value - peer[key]).norm() / peer[key].norm()
        assert distance < 1e-5, f"{key}: {distance:.1e}"


@pytest.mark.parametrize("norm_pix", [False, True], ids=["pixels", "norm_pix"])
@pytest.mark.parametrize("case", CASES)
def test_equals_huggingface(case: str, norm_pix: bool) -> None:
    backbone, image_size, options = CASES[case]
    mae = build(backbone, image_size, norm_pix=norm_pix, **options)
    images, noise = batch(mae)
    peer = peers.HuggingFace(mae)

    out, expected = mae(images, noise), peer.model(images, noise=noise)
    out.loss.backward()
    expected.loss.backward()
    reconstruction = mae.reconstruct(images, noise)

    torch.testing.assert_close(out.loss, expected.loss, rtol=1e-6, atol=0)
    assert torch.equal(out.mask, expected.mask)
    assert torch.equal(reconstruction.mask, expected.mask)
    torch.testing.assert_close(reconstruction.pixels, expected.logits, rtol=1e-5, atol=5e-6)
    assert_same_gradients(gradients(mae), peer.gradients(mae))


@pytest.mark.parametrize("norm_pix", [False, True], ids=["pixels", "norm_pix"])
@pytest.mark.parametrize("case", ["patch 4", "patch 14", "few masked"])
def test_equals_lightly(case: str, norm_pix: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightly", reason="lightly is in the extra [bench]")
    monkeypatch.setattr("backbones.linear.LEAST_WORK", 2**40)  # torch's own linear layers
    backbone, image_size, options = CASES[case]
    mae = build(backbone, image_size, norm_pix=norm_pix, **options)
    images, noise = batch(mae)
    peer = peers.Lightly(mae)

    loss, expected = mae(images, noise).loss, peer(images, noise)
    loss.backward()
    expected.backward()

    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    _, masked = mae.split(images, noise)
    predicted = mae.reconstruct(images, noise).pixels[torch.arange(3)[:, None], masked]
    torch.testing.assert_close(predicted, peer.prediction, rtol=1e-5, atol=5e-6)
    assert_same_gradients(gradients(mae), peer.gradients(mae))


def test_vit_b_at_224_equals_huggingface(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    torch.manual_seed(0)
    mae = MaskedAutoencoder("vit_b", norm_pix=True)
    images, noise = batch(mae, size=1)
    peer = peers.HuggingFace(mae)
    loss, expected = mae(images, noise).loss, peer(images, noise)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    assert_same_gradients(gradients(mae), peer.gradients(mae))


def test_gradient_checks_can_fail() -> None:
    mae = build("tiny4", 16, decoder_dim=32, decoder_heads=2)
    mae(*batch(mae)).loss.backward()
    own = gradients(mae)
    other = {key: value.clone() for key, value in own.items()}
    other["blocks.1.attn.qkv.bias"][-1] *= 1.01
    with pytest.raises(AssertionError, match=r"blocks\.1\.attn\.qkv\.bias"):
        assert_same_gradients(own, other)


def test_autocast_is_close_to_float32() -> None:
    mae = build("tiny4", 32, norm_pix=True, decoder_dim=32, decoder_heads=2)
    images, noise = batch(mae)
    expected = mae(images, noise).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = mae(images, noise).loss
    assert loss.dtype == torch.float32  # the target and the mean are not rounded
    torch.testing.assert_close(loss, expected, rtol=5e-3, atol=0)
    assert not torch.equal(loss, expected)
    loss.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(mae).values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu() -> None:
    mae = build("tiny16", 64, norm_pix=True, decoder_dim=32, decoder_heads=2)
    images, noise = batch(mae)
    mae(images, noise).loss.backward()
    twin = build("tiny16", 64, norm_pix=True, decoder_dim=32, decoder_heads=2).cuda()
    loss = twin(images.cuda(), noise.cuda()).loss
    loss.backward()
    torch.testing.assert_close(loss.cpu(), mae(images, noise).loss, rtol=1e-5, atol=0)
    on_cpu = {key: gradient.cpu() for key, gradient in gradients(twin).items()}
    assert_same_gradients(gradients(mae), on_cpu)


def test_checkpoint_weights_are_what_the_peer_got() -> None:
    """Changing one weight of ours changes our loss and not the peer's: nothing is shared."""
    mae = build("tiny4", 16, decoder_dim=32, decoder_heads=2)
    images, noise = batch(mae)
    peer = peers.HuggingFace(mae)
    before = mae(images, noise).loss
    with torch.no_grad():
        mae.encoder.blocks[0].mlp.fc1.weight.mul_(1.5)
    assert not torch.isclose(mae(images, noise).loss, before, rtol=1e-5)
    torch.testing.assert_close(peer(images, noise), before, rtol=1e-6, atol=0)


def test_smallest_noise_stays_visible() -> None:
    mae = build("tiny4", 16, decoder_dim=32, decoder_heads=2)  # 16 patches, 4 stay
    noise = torch.arange(16.0).flip(0).expand(2, -1)  # so the last four are visible
    out = mae(torch.randn(2, 3, 16, 16), noise)
    assert out.mask.tolist() == [[1.0] * 12 + [0.0] * 4] * 2


@pytest.mark.parametrize(
    ("image_size", "ratio", "visible"),
    [(20, 0.75, 6), (28, 0.75, 12), (28, 0.6, 19), (12, 0.5, 4), (36, 0.9, 8)],
)
def test_number_of_visible_patches_is_rounded_down(
    image_size: int, ratio: float, visible: int
) -> None:
    mae = MaskedAutoencoder(
        "tiny4", image_size, mask_ratio=ratio, decoder_dim=16, decoder_depth=1, decoder_heads=1
    )
    assert mae.num_visible == visible == int(mae.num_patches * (1 - ratio))
    mask = mae(*batch(mae, 2)).mask
    assert mask.sum(dim=1).tolist() == [mae.num_patches - visible] * 2


def test_noise_is_drawn_anew_from_the_global_generator() -> None:
    mae = build("tiny4", 32, decoder_dim=16, decoder_depth=1, decoder_heads=1)
    images, _ = batch(mae, 4)
    torch.manual_seed(7)
    first, second = mae(images).mask, mae(images).mask
    torch.manual_seed(7)
    again = mae(images).mask
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])  # every image has its own mask


def test_only_masked_patches_reach_the_loss() -> None:
    """With a decoder that predicts zero, the loss is the mean square of the masked pixels."""
    mae = build("tiny4", 16, decoder_dim=32, decoder_heads=2)
    with torch.no_grad():
        mae.decoder_pred.weight.zero_()
        mae.decoder_pred.bias.zero_()
    images, noise = batch(mae)
    out = mae(images, noise)
    pixels = F.interpolate(out.mask.view(3, 1, 4, 4), scale_factor=4).expand_as(images).bool()
    torch.testing.assert_close(out.loss, images[pixels].square().mean(), rtol=1e-6, atol=0)


def test_class_token_is_never_in_the_loss() -> None:
    """Its own output is not scored, though patches attend to it."""
    mae = build("tiny4", 16, decoder_dim=32, decoder_heads=2)
    images, noise = batch(mae)
    visible, masked = mae.split(images, noise)
    latent = mae.encode(mae.pixels(images), visible)
    assert mae.decode(latent, visible, masked).shape == (3, 12, 48)
    other = latent.clone()
    other[:, 0] += 1  # the class token's input does matter …
    assert not torch.allclose(
        mae.decode(other, visible, masked), mae.decode(latent, visible, masked), atol=1e-3
    )


def test_prediction_order_is_row_column_channel() -> None:
    """A decoder that only knows its bias paints channel 1 of the patch's second row."""
    mae = build("tiny4", 8, decoder_dim=16, decoder_depth=1, decoder_heads=1)
    image = torch.zeros(1, 3, 8, 8)
    image[0, 1, 1, :] = 1.0
    image[0, 1, 5, :] = 1.0
    expected = torch.zeros(4, 4, 3)
    expected[1, :, 1] = 1.0
    with torch.no_grad():
        mae.decoder_pred.weight.zero_()
        mae.decoder_pred.bias.copy_(expected.flatten())
    assert mae(image).loss == 0
    assert torch.equal(mae.reconstruct(image).pixels[0, 3], expected.flatten())


def test_target_uses_the_unbiased_variance() -> None:
    """Pixels -1 and 1 in equal number, n = 48: variance 48/47, biased it would be 1."""
    mae = build("tiny4", 8, norm_pix=True, decoder_dim=16, decoder_depth=1, decoder_heads=1)
    patch = torch.tensor([-1.0, 1.0]).repeat(24)
    with torch.no_grad():
        mae.decoder_pred.weight.zero_()
        mae.decoder_pred.bias.zero_()
    image = patch.view(4, 4, 3).permute(2, 0, 1).tile(1, 2, 2)[None]
    assert mae(image).loss.item() == pytest.approx(1 / (48 / 47 + 1e-6), rel=1e-6)


def test_constant_patches_are_finite_targets() -> None:
    mae = build("tiny4", 8, norm_pix=True, decoder_dim=16, decoder_depth=1, decoder_heads=1)
    assert mae(torch.full((2, 3, 8, 8), 3.0)).loss.isfinite()


def test_position_tables_are_frozen() -> None:
    mae = build("tiny4", 16, decoder_dim=32, decoder_heads=2)
    frozen = {name for name, p in mae.named_parameters() if not p.requires_grad}
    assert frozen == {"encoder.pos_embed", "decoder_pos_embed"}
    mae(*batch(mae)).loss.backward()
    assert mae.encoder.pos_embed.grad is None
    assert mae.decoder_pos_embed.grad is None


def test_initialisation() -> None:
    """Xavier-uniform bounds (qkv as one matrix), zero biases, 0.02 tokens; models_mae.py."""
    torch.manual_seed(0)
    mae = MaskedAutoencoder("vit_s", 64, decoder_depth=2)
    state = mae.checkpoint()
    for key, value in state.items():
        if value.ndim == 2 or key == "patch_embed.proj.weight":
            rows, columns = value.flatten(1).shape
            bound = math.sqrt(6 / (rows + columns))
            assert bound * 0.999 < value.abs().max() <= bound, key
            assert value.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01), key
        elif key == "patch_embed.proj.bias":
            # The convolution's default: uniform within 1 / sqrt(fan in).
            assert 0.9 < value.abs().max() * math.sqrt(3 * 16**2) <= 1
        elif key.endswith("bias"):
            assert not value.any(), key
        elif "norm" in key:
            assert (value == 1).all(), key
    qkv = state["blocks.0.attn.qkv.weight"]
    assert qkv.abs().max() <= math.sqrt(6 / (4 * 384))
    for token in ("cls_token", "mask_token"):
        assert state[token].std().item() == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, 16, 24), torch.zeros(2, 3, 24, 24), torch.zeros(2, 1, 16, 16),
     torch.zeros(3, 16, 16)],
    ids=["not square", "too large", "grey", "no batch"],
)  # fmt: skip
def test_refuses_other_images(images: Tensor) -> None:
    mae = build("tiny4", 16, decoder_dim=16, decoder_depth=1, decoder_heads=1)
    with pytest.raises(backbones.BackboneError, match="takes 3 x 16 x 16") as error:
        mae(images)
    assert "\n" not in str(error.value)
    with pytest.raises(backbones.BackboneError, match="takes 3 x 16 x 16"):
        mae.reconstruct(images)


@pytest.mark.parametrize("shape", [(2, 15), (3, 16), (2, 16, 1), (16,)])
def test_refuses_noise_of_another_shape(shape: tuple[int, ...]) -> None:
    mae = build("tiny4", 16, decoder_dim=16, decoder_depth=1, decoder_heads=1)
    with pytest.raises(backbones.BackboneError, match=r"expected \(2, 16\)"):
        mae(torch.zeros(2, 3, 16, 16), torch.zeros(shape))


@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.99, 1e-20, -0.5, 1.5, float("nan")])
def test_refuses_mask_ratios_that_leave_nothing(ratio: float) -> None:
    with pytest.raises(backbones.BackboneError, match=r"mask_ratio .* one visible") as error:
        MaskedAutoencoder("tiny4", 16, mask_ratio=ratio)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [{"decoder_dim": 30, "decoder_heads": 3}, {"decoder_dim": 32, "decoder_heads": 5},
     {"decoder_depth": 0}, {"decoder_heads": 0}],
)  # fmt: skip
def test_refuses_impossible_decoders(options: dict[str, int]) -> None:
    with pytest.raises(backbones.BackboneError, match="decoder_"):
        MaskedAutoencoder("tiny4", 16, **options)


# --- Checkpoints ------------------------------------------------------------------------------


def reference_layout(depth: int, decoder_depth: int) -> list[str]:
    """Key names of facebookresearch/mae's encoder-decoder files, from models_mae.py."""

    def blocks(prefix: str, count: int) -> list[str]:
        layers = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        return [
            f"{prefix}.{i}.{layer}.{kind}"
            for i in range(count)
            for layer in layers
            for kind in ("weight", "bias")
        ]

    return [
        "cls_token", "pos_embed", "mask_token", "decoder_pos_embed",
        "patch_embed.proj.weight", "patch_embed.proj.bias", *blocks("blocks", depth),
        "norm.weight", "norm.bias", "decoder_embed.weight", "decoder_embed.bias",
        *blocks("decoder_blocks", decoder_depth), "decoder_norm.weight", "decoder_norm.bias",
        "decoder_pred.weight", "decoder_pred.bias",
    ]  # fmt: skip


SMALL = {"decoder_dim": 32, "decoder_depth": 2, "decoder_heads": 2}


def test_checkpoint_has_the_reference_layout() -> None:
    assert set(build("tiny4", 16, **SMALL).checkpoint()) == set(reference_layout(2, 2))


def test_loads_the_reference_layout(tmp_path: Path) -> None:
    source, file = build("tiny4", 16, **SMALL), tmp_path / "mae_pretrain_full.pth"
    own = source.checkpoint()
    torch.save({"model": {key: own[key] for key in reference_layout(2, 2)}}, file)

    mae = build("tiny4", 16, seed=5, **SMALL)
    images, noise = batch(mae)
    assert not torch.equal(mae(images, noise).loss, source(images, noise).loss)
    mae.load_checkpoint(file)
    assert torch.equal(mae(images, noise).loss, source(images, noise).loss)

    vit, report = backbones.load("tiny4", file, 16)
    assert torch.equal(vit(images), source.encoder(images))
    assert set(report.skipped) == {k for k in own if k.startswith(("decoder_", "mask_token"))}
    assert set(report.skipped.values()) == {"MAE decoder"}


def test_own_file_round_trip(tmp_path: Path) -> None:
    source, file = build("tiny4", 16, **SMALL), tmp_path / "mae.safetensors"
    save(source.checkpoint(), file, {"backbone": "tiny4"})
    mae = build("tiny4", 16, seed=5, **SMALL)
    mae.load_checkpoint(file)
    for key, value in source.checkpoint().items():
        assert torch.equal(mae.checkpoint()[key], value), key


def test_encoder_only_file_is_refused(tmp_path: Path) -> None:
    source, file = build("tiny4", 16, **SMALL), tmp_path / "mae_pretrain.pth"
    torch.save({"model": source.encoder.state_dict()}, file)
    with pytest.raises(backbones.BackboneError, match="holds no decoder") as error:
        source.load_checkpoint(file)
    assert str(file) in str(error.value)
    vit, _ = backbones.load("tiny4", file, 16)
    images, _ = batch(source)
    assert torch.equal(vit(images), source.encoder(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(SMALL, decoder_depth=3), r"missing decoder_blocks\.2\.attn\.proj\.bias"),
        (dict(SMALL, decoder_depth=1), r"unexpected decoder_blocks\.1\."),
        (dict(SMALL, decoder_dim=16), r"shapes decoder_.* for "),
    ],
)
def test_other_decoder_is_refused(tmp_path: Path, options: dict, message: str) -> None:
    file = tmp_path / "mae.pth"
    torch.save({"model": build("tiny4", 16, **SMALL).checkpoint()}, file)
    with pytest.raises(backbones.BackboneError, match=message):
        build("tiny4", 16, **options).load_checkpoint(file)


def test_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    mae, file = build("tiny4", 16, **SMALL), tmp_path / "mae.pth"
    torch.save({"model": mae.checkpoint()}, file)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(backbones.BackboneError, match="truncated"):
        mae.load_checkpoint(file)


def test_decoder_positions_are_columns_first() -> None:
    """(row 0, column 1) and (row 1, column 0), written out by hand for eight channels."""
    mae = MaskedAutoencoder("tiny4", 8, decoder_dim=8, decoder_depth=1, decoder_heads=1)
    at_one = [np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)]  # frequencies 1 and 1/100
    at_zero = [0, 0, 1, 1]
    table = mae.decoder_pos_embed[0].numpy(force=True)
    np.testing.assert_allclose(table[0], np.zeros(8))
    np.testing.assert_allclose(table[1 + 1], at_one + at_zero, atol=1e-7)  # column 1
    np.testing.assert_allclose(table[1 + 2], at_zero + at_one, atol=1e-7)  # row 1


@pytest.mark.parametrize("target", ["pixels", "pca"])
def test_mask_tokens_in_the_encoder_equal_the_plain_order(target: str) -> None:
    """All tokens in the order of the image, as a ViT with a mask token computes them; to 1e-5."""
    mae = build(
        "tiny8", 32, decoder_dim=32, decoder_heads=2, encoder_mask_tokens=True, target=target
    )
    if mae.components is not None:
        mae.components.fit([torch.randn(400, 192, generator=torch.Generator().manual_seed(1))])
    images, noise = batch(mae)
    out = mae(images, noise)
    out.loss.backward()
    assert all(p.grad is not None for p in mae.parameters() if p.requires_grad)
    vit, removed = mae.encoder, out.mask.bool()[..., None]
    with torch.no_grad():
        patches = torch.where(removed, mae.mask_token, vit.patch_embed(images))
        x = torch.cat([vit.cls_token.expand(len(images), -1, -1), patches], 1) + vit.pos_embed
        for block in vit.blocks:
            x = block(x)
        x = mae.decoder_embed(vit.norm(x)) + mae.decoder_pos_embed
        for block in mae.decoder_blocks:
            x = block(x)
        predicted = mae.decoder_pred(mae.decoder_norm(x))[:, 1:]
        wanted = F.unfold(images, 8, stride=8).transpose(1, 2)  # (channel, row, column)
        if mae.components is None:
            wanted = wanted.unflatten(2, (3, 64)).transpose(2, 3).flatten(2)
        else:
            wanted = mae.components(wanted)
        expected = (predicted - wanted)[removed[..., 0]].square().mean()
    torch.testing.assert_close(out.loss, expected, rtol=1e-5, atol=0)


def test_a_picture_of_components_is_what_they_hold_of_the_pixels() -> None:
    """A decoder of nothing but its bias predicts the mean patch and the first component."""
    mae = build("tiny4", 8, decoder_dim=16, decoder_depth=1, decoder_heads=1, target="pca")
    assert mae.components is not None
    mae.components.fit([torch.randn(300, 48, generator=torch.Generator().manual_seed(0))])
    with torch.no_grad():
        mae.decoder_pred.weight.zero_()
        mae.decoder_pred.bias.zero_()[0] = 2.0
    found = mae.reconstruct(torch.zeros(1, 3, 8, 8)).pixels[0, 2]
    planes = (mae.components.mean + 2 * mae.components.basis[:, 0]).view(3, 16)
    torch.testing.assert_close(found, planes.T.flatten(), rtol=1e-5, atol=1e-6)


def test_a_file_of_the_model_with_components_loads_again(tmp_path: Path) -> None:
    options = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 1, "target": "pca"}
    one, other = build("tiny4", 8, **options), build("tiny4", 8, **options)
    assert one.components is not None
    assert other.components is not None
    one.components.fit([torch.randn(300, 48, generator=torch.Generator().manual_seed(0))])
    save(one.checkpoint(), tmp_path / "mae.safetensors", {})
    other.load_checkpoint(tmp_path / "mae.safetensors")
    assert torch.equal(one.components.basis, other.components.basis)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "grids"}, "mask is 'grids'; expected one of random, block, grid"),
        ({"target": "token"}, "target is 'token'; expected one of pixels, pca"),
        ({"target": "pca", "norm_pix": True}, "norm_pix is for the target pixels"),
        ({"mask": "grid", "mask_ratio": 0.5}, "expected mask_ratio 0.75 .not 0.5."),
        ({"mask": "grid", "image_size": 12}, "an even number of patches each way .not 3."),
    ],
)
def test_settings_that_exclude_each_other_are_refused(options, message) -> None:
    with pytest.raises(backbones.BackboneError, match=message):
        build("tiny4", **{"image_size": 16, "decoder_dim": 32, "decoder_heads": 2} | options)


def test_block_masks_without_noise_are_drawn_from_torchs_generator() -> None:
    mae = build("tiny4", 32, decoder_dim=32, decoder_heads=2, mask="block")
    torch.manual_seed(3)
    one = mae.draw_noise(2, torch.device("cpu"))
    torch.manual_seed(3)
    assert torch.equal(one, mae.draw_noise(2, torch.device("cpu")))
    assert not torch.equal(one[0], one[1])
