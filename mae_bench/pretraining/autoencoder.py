"""The masked autoencoder (2111.06377), exact to facebookresearch/mae, models_mae.py.

Shapes: B images, N patches, V of them visible, M = N - V masked, p patch side, D decoder width.

The arithmetic is the reference's; the work is not. Only visible patches are embedded, tokens
stay in the order [class, visible, masked] (attention does not mind, positions are looked up),
the first decoder block normalises and projects each mask token once instead of once per image,
and the last one computes queries, MLP and prediction for masked patches only, because nothing
else reaches the loss.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import backbones
from backbones.checkpoint import check_keys, read_tensors
from backbones.formats.layout import is_fixed_table
from backbones.linear import Linear, linear
from backbones.loading import build, read
from backbones.posembed import sincos_2d
from backbones.reading import Reading
from backbones.report import LoadReport
from backbones.vit import Block, init_linear
from mae_bench.pretraining import masks, targets
from mae_bench.pretraining.masks import pick

Target = Literal["pixels", "pca", "tokens"]


@dataclass
class Output:
    """`loss` scalar; `mask` (B, N), 1 = removed."""

    loss: Tensor
    mask: Tensor


@dataclass
class Reconstruction:
    """`pixels` (B, N, p·p·3) in (row, column, channel) order, as predicted (so normalised per
    patch if the model was trained so, and what principal components hold of them if it predicts
    these); `mask` (B, N), 1 = removed."""

    pixels: Tensor
    mask: Tensor


class MaskedAutoencoder(nn.Module):
    """Encoder on the visible patches, light decoder on all of them.

    `encoder` is a plain `backbones.ViT`. Positions are the fixed sin-cos tables of both parts.
    Defaults: Table 1 of the paper, but for `norm_pix`. With `encoder_mask_tokens` the encoder sees
    a mask token at each removed patch, and the decoder what became of it (Table 1c); then
    `mask_token` is as wide as the encoder. `target` "pca": call `components.fit` before training;
    "tokens": `forward` takes the tokens of a tokenizer with `codebook` codes.
    """

    def __init__(
        self,
        backbone: str,
        image_size: int = 224,
        norm_pix: bool = False,
        mask_ratio: float = 0.75,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        mask: masks.Kind = "random",
        target: Target = "pixels",
        encoder_mask_tokens: bool = False,
        codebook: int | None = None,
    ) -> None:
        super().__init__()
        for name, value, kinds in (("mask", mask, masks.Kind), ("target", target, Target)):
            if value not in get_args(kinds):
                expected = ", ".join(get_args(kinds))
                raise backbones.BackboneError(f"{name} is {value!r}; expected one of {expected}")
        if norm_pix and target != "pixels":
            raise backbones.BackboneError(
                f"norm_pix is for the target pixels; leave it out with the target {target}"
            )
        self.encoder = backbones.create(backbone, image_size)
        anatomy = getattr(self.encoder, "anatomy", None)  # a plug-in has none
        if anatomy is None or anatomy.relative_position or not anatomy.absolute_position:
            raise backbones.BackboneError(
                f"backbone {backbone!r} cannot be a masked autoencoder's encoder: expected a plain "
                "ViT of ours or of timm with absolute positions alone"
            )
        self.encoder.pos_embed.requires_grad_(False)
        self.patch_size, self.norm_pix = self.encoder.patch_size, norm_pix
        self.mask_ratio, self.mask_kind = mask_ratio, mask
        self.encoder_mask_tokens = encoder_mask_tokens
        self.num_patches = self.encoder.grid_size**2
        self.num_visible = int(self.num_patches * (1 - mask_ratio)) if 0 < mask_ratio < 1 else 0
        if not 0 < self.num_visible < self.num_patches:
            raise backbones.BackboneError(
                f"mask_ratio {mask_ratio} of {self.num_patches} patches: at least one visible and "
                "one masked patch are needed"
            )
        if mask == "grid" and self.num_patches != 4 * self.num_visible:
            raise backbones.BackboneError(
                f"a grid mask keeps one of every four patches: expected mask_ratio "
                f"{masks.GRID_RATIO} (not {mask_ratio}) and an even number of patches each way "
                f"(not {self.encoder.grid_size})"
            )
        if min(decoder_dim, decoder_depth, decoder_heads) < 1:
            raise backbones.BackboneError(
                f"decoder_dim {decoder_dim}, decoder_depth {decoder_depth} and decoder_heads "
                f"{decoder_heads} must be positive"
            )
        if decoder_dim % decoder_heads or decoder_dim % 4:
            raise backbones.BackboneError(
                f"decoder_dim {decoder_dim} must be a multiple of 4 and of decoder_heads "
                f"{decoder_heads}"
            )
        self.decoder_embed = Linear(self.encoder.embed_dim, decoder_dim)
        width = self.encoder.embed_dim if encoder_mask_tokens else decoder_dim
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.decoder_pos_embed = nn.Parameter(
            sincos_2d(decoder_dim, self.encoder.grid_size), requires_grad=False
        )
        self.decoder_blocks = nn.ModuleList(
            Block(decoder_dim, decoder_heads) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=1e-6)
        if (target == "tokens") != (codebook is not None):
            raise backbones.BackboneError(
                f"codebook is {codebook} with target {target}; expected one for tokens alone"
            )
        self.codebook = codebook
        numbers = codebook or self.patch_size**2 * 3
        self.components: targets.PrincipalComponents | None = None
        if target == "pca":
            self.components = targets.PrincipalComponents(numbers)
            numbers = self.components.count
        self.decoder_pred = Linear(decoder_dim, numbers)
        nn.init.normal_(self.mask_token, std=0.02)
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            part.apply(init_linear)

    def forward(
        self, images: Tensor, noise: Tensor | None = None, tokens: Tensor | None = None
    ) -> Output:
        """Images (B, 3, S, S), normalised, to the mean squared error over masked patches.

        `noise` (B, N): the patches with the smallest values stay visible; drawn if None. The error
        is that of pixels, normalised or not, or of principal components; with the target tokens it
        is the cross-entropy of `tokens` int64 (B, N) over the codebook.
        Raises `backbones.BackboneError` for images of another size.
        """
        visible, masked = self.split(images, noise)
        pixels = self.pixels(images)
        latent = self.latent(pixels, visible, masked)
        predicted = self.decode(latent, visible, masked)
        if self.codebook is not None:
            assert tokens is not None
            loss = F.cross_entropy(predicted.flatten(0, 1), tokens.gather(1, masked).flatten())
            return Output(loss, self.mask(visible))
        loss = F.mse_loss(predicted, self.target(pick(pixels, masked)))
        return Output(loss, self.mask(visible))

    @torch.no_grad()
    def reconstruct(self, images: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """Predict all patches, visible ones included; arguments as for the loss.

        Not of a model whose target is tokens, which predicts no pixels.
        """
        visible, masked = self.split(images, noise)
        latent = self.latent(self.pixels(images), visible, masked)
        x = self.decoder_tokens(latent, visible, masked)
        for block in self.decoder_blocks:
            x = block(x)
        predicted = self.decoder_pred(self.decoder_norm(x))[:, 1:]
        if self.components is not None:
            side = self.patch_size
            planes = self.components.inverse(predicted).unflatten(2, (3, side, side))
            predicted = planes.permute(0, 1, 3, 4, 2).flatten(2)
        order = torch.cat([visible, masked], dim=1).argsort(dim=1)
        return Reconstruction(pick(predicted, order), self.mask(visible))

    def split(self, images: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Indices of the visible (B, V) and the masked (B, M) patches, by rank of the noise."""
        size = self.encoder.image_size
        if images.shape[1:] != (3, size, size):
            raise backbones.BackboneError(
                f"images are {' x '.join(map(str, images.shape[1:]))}; this masked autoencoder "
                f"takes 3 x {size} x {size} (square, image_size={size})"
            )
        if noise is None:
            noise = self.draw_noise(len(images), images.device)
        if noise.shape != (len(images), self.num_patches):
            raise backbones.BackboneError(
                f"noise is {tuple(noise.shape)}; expected {(len(images), self.num_patches)}"
            )
        return masks.split(noise, self.num_visible)

    def draw_noise(self, count: int, device: torch.device) -> Tensor:
        """Noise (B, N) of the model's kind of mask, from torch's global generator."""
        side = self.encoder.grid_size
        if self.mask_kind == "random":
            return torch.rand(count, self.num_patches, device=device)
        if self.mask_kind == "grid":
            return masks.grid(side, device).expand(count, -1)
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        num_masked = self.num_patches - self.num_visible
        blocks = [masks.block(rng, side, num_masked) for _ in range(count)]
        return torch.from_numpy(np.stack(blocks)).to(device)

    def target(self, pixels: Tensor) -> Tensor:
        """What is predicted of patches (B, M, 3·p·p): (B, M, 3·p·p), or (B, M, components)."""
        if self.components is not None:
            return self.components(pixels)
        return targets.normalised(pixels) if self.norm_pix else pixels

    def mask(self, visible: Tensor) -> Tensor:
        """(B, N), 1 = removed."""
        ones = torch.ones(len(visible), self.num_patches, device=visible.device)
        return ones.scatter_(1, visible, 0)

    def patches(self, images: Tensor) -> Tensor:
        """A view (B, N as rows x columns, p, p, 3) on the images; nothing is copied yet."""
        side, grid = self.patch_size, self.encoder.grid_size
        x = images.view(len(images), 3, grid, side, grid, side)
        return x.permute(0, 2, 4, 3, 5, 1)

    def pixels(self, images: Tensor) -> Tensor:
        """Patches as rows (B, N, 3·p·p), in the (channel, row, column) order of convolutions.

        The colours of an image lie apart in memory, so this is a cheaper copy than the order of
        `Reconstruction`, and the loss does not mind.
        """
        x = self.patches(images).permute(0, 1, 2, 5, 3, 4)
        return x.reshape(len(images), self.num_patches, -1)

    def latent(self, pixels: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """What the decoder gets of the encoder."""
        if self.encoder_mask_tokens:
            return self.encode_all(pixels, visible, masked)
        return self.encode(pixels, visible)

    def encode(self, pixels: Tensor, visible: Tensor) -> Tensor:
        """Class token and visible patches through the encoder: (B, 1 + V, C)."""
        tokens = self.encoder.embed_rows(pick(pixels, visible), visible)
        return self.encoder.through_blocks(tokens)

    def encode_all(self, pixels: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """The same with mask tokens in place of the removed patches: (B, 1 + N, C)."""
        patches = self.encoder.patch_embed.rows(pick(pixels, visible))
        tokens = torch.cat([patches, self.mask_token.expand(*masked.shape, -1)], dim=1)
        order = torch.cat([visible, masked], dim=1)
        return self.encoder.through_blocks(self.encoder.place(tokens, order))

    def decoder_tokens(self, latent: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Tokens [class, visible, masked] with their positions: (B, 1 + N, D)."""
        tokens = self.decoder_embed(latent)
        if not self.encoder_mask_tokens:
            mask_tokens = self.mask_token.expand(*masked.shape, -1)
            tokens = torch.cat([tokens, mask_tokens], dim=1)
        order = F.pad(torch.cat([visible, masked], dim=1) + 1, (1, 0))
        return tokens + self.decoder_pos_embed[0][order]

    def decode(self, latent: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Predictions of the masked patches only, as `target` gives what they are to be."""
        x = self.decoder_tokens(latent, visible, masked)
        for block in self.decoder_blocks[:-1]:
            x = block(x)
        x = self.decoder_norm(self.decoder_blocks[-1](x, num_queries=masked.shape[1]))
        if self.components is not None or self.codebook is not None:
            return self.decoder_pred(x)
        side = self.patch_size  # the order of `pixels`
        weight = self.decoder_pred.weight.view(side, side, 3, -1).permute(2, 0, 1, 3)
        bias = self.decoder_pred.bias.view(side, side, 3).permute(2, 0, 1)
        return linear(x, weight.flatten(0, 2), bias.flatten())

    def continue_from(self, place: str | Path, reading: Reading) -> LoadReport:
        """Start from the weights of a file: its encoder, and its decoder if it has MAE's.

        The encoder takes any layout that `backbones.load` takes, with its heads and layer norms;
        MAE's fixed positions are computed at this image size. Strict in both parts; what is drawn
        anew is in the report. Raises `backbones.BackboneError` for what does not fit.
        """
        name, size = self.encoder.name, self.encoder.image_size
        file, converted, report = read(place, reading)
        table, grid = converted.state.get("pos_embed"), (self.encoder.grid_size,) * 2
        if converted.grid not in (None, grid) and table is not None and table.ndim == 3:
            assert converted.grid is not None
            if is_fixed_table(table, converted.grid):
                converted.state["pos_embed"] = sincos_2d(table.shape[2], grid)
                converted.grid = grid
                report.said.append(f"fixed positions computed for {grid[0]} x {grid[1]} patches")
        encoder: Any = build(name, file, converted, report, size)
        if encoder.anatomy.relative_position or not encoder.anatomy.absolute_position:
            raise backbones.BackboneError(
                f"checkpoint {file}: has no absolute positions alone, which a masked autoencoder's "
                "encoder has"
            )
        encoder.pos_embed.requires_grad_(False)
        own = {k: v for k, v in self.state_dict().items() if not k.startswith("encoder.")}
        given = {k: v for k, v in converted.beside.items() if k in own or k.startswith("decoder_")}
        if "decoder_embed.weight" in given:
            if own["decoder_pos_embed"].shape[1] != given["decoder_pos_embed"].shape[1]:
                given["decoder_pos_embed"] = own["decoder_pos_embed"]  # fixed, at this size
            given |= {k: v for k, v in own.items() if k.startswith("components.")}
            check_keys(file, f"the decoder of {name}", given, own)
            self.load_state_dict(given, strict=False)  # the encoder's are the others
            report.skipped = {k: v for k, v in report.skipped.items() if k not in given}
            heads = cast(Block, self.decoder_blocks[0]).attn.num_heads
            report.said.append(f"and its decoder, {len(given)} tensors")
            report.assumed.append(f"{heads} heads of the decoder; no tensor shows them")
        else:
            report.said.append("the decoder is drawn anew: the file holds none of MAE's layout")
        self.encoder = encoder
        return report

    def load_checkpoint(self, file: str | Path) -> None:
        """Load encoder and decoder of the reference's `_full` or `visualize` files, or of ours.

        Strict; raises `backbones.BackboneError` for a file that is damaged or of another kind.
        """
        file = Path(file)
        tensors, _ = read_tensors(file)
        if "decoder_embed.weight" not in tensors:
            raise backbones.BackboneError(
                f"checkpoint {file}: holds no decoder; expected encoder and decoder "
                "(mae_pretrain_vit_*_full.pth, mae_visualize_vit_*.pth or mae.safetensors)"
            )
        own = self.checkpoint()
        check_keys(file, f"{self.encoder.name} and its decoder", tensors, own)
        self.load_state_dict(
            {k if k in self.state_dict() else f"encoder.{k}": v for k, v in tensors.items()}
        )

    def checkpoint(self) -> dict[str, Tensor]:
        """Encoder and decoder under the reference's key names."""
        return {k.removeprefix("encoder."): v for k, v in self.state_dict().items()}
