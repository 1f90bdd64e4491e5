"""The same masked autoencoder in other libraries, with the weights of one of ours.

Every peer takes images and noise as `MaskedAutoencoder` does and returns the loss. It runs the
library's own modules in the library's own way; only what a library leaves to its user (the
masking and the loss around lightly's modules) is written here, after its MAE example.
"""

import re
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbones.vit import ViT
from mae_bench.mae import MaskedAutoencoder


class Peer(nn.Module):
    """A network of another library that computes our loss.

    `prediction` holds the pixels of the last call as that library orders them.
    """

    prediction: Tensor

    def names(self, key: str) -> list[str]:
        """This peer's names for one of our tensors; ours is theirs stacked in that order."""
        raise NotImplementedError

    def load(self, mae: MaskedAutoencoder) -> None:
        """Copy all weights and position tables of `mae`; strict on both sides."""
        own, state = self.state_dict(), {}
        for key, value in mae.checkpoint().items():
            names = self.names(key)
            state |= dict(zip(names, value.chunk(len(names)), strict=True))
        self.load_state_dict({k: v.reshape(own[k].shape) for k, v in state.items()})

    def share(self, mae: MaskedAutoencoder) -> None:
        """Let this peer's parameters be those of `mae`, in the same memory."""
        own = dict(self.named_parameters())
        for name, parameter in mae.named_parameters():
            names = self.names(name.removeprefix("encoder."))
            for theirs, part in zip(names, parameter.data.chunk(len(names)), strict=True):
                if theirs in own:
                    own[theirs].data = part.view(own[theirs].shape)

    def gradients(self, mae: MaskedAutoencoder) -> dict[str, Tensor]:
        """This peer's gradients under the names of `mae.checkpoint()` and in their shapes."""
        own = dict(self.named_parameters())
        gradients = {}
        for name, parameter in mae.named_parameters():
            if parameter.requires_grad:
                key = name.removeprefix("encoder.")
                parts = [own[part].grad for part in self.names(key)]
                gradients[key] = torch.cat(parts).reshape(parameter.shape)
        return gradients


class HuggingFace(Peer):
    """transformers' `ViTMAEForPreTraining`; `prediction` (B, N, p·p·3) covers all patches."""

    def __init__(self, mae: MaskedAutoencoder, attention: str = "sdpa") -> None:
        super().__init__()
        from transformers import ViTMAEConfig, ViTMAEForPreTraining

        encoder, decoder_dim = mae.encoder, mae.mask_token.shape[-1]
        config = ViTMAEConfig(
            hidden_size=encoder.embed_dim,
            num_hidden_layers=encoder.depth,
            num_attention_heads=encoder.num_heads,
            intermediate_size=4 * encoder.embed_dim,
            layer_norm_eps=1e-6,
            image_size=encoder.image_size,
            patch_size=encoder.patch_size,
            decoder_num_attention_heads=mae.decoder_blocks[0].attn.num_heads,
            decoder_hidden_size=decoder_dim,
            decoder_num_hidden_layers=len(mae.decoder_blocks),
            decoder_intermediate_size=4 * decoder_dim,
            mask_ratio=mae.mask_ratio,
            norm_pix_loss=mae.norm_pix,
            attn_implementation=attention,
        )
        self.model = ViTMAEForPreTraining(config)
        self.load(mae)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        out = self.model(images, noise=noise)
        self.prediction = out.logits
        return out.loss

    def names(self, key: str) -> list[str]:
        block = re.fullmatch(r"(decoder_)?blocks\.(\d+)\.(norm1|norm2|attn|mlp)\.(.+)", key)
        if block:
            decoder, index, part, rest = block.groups()
            layers = "model.decoder.decoder_layers" if decoder else "model.vit.layers"
            prefix = f"{layers}.{index}."
            if part == "attn":
                layer, kind = rest.split(".")
                theirs = ["q_proj", "k_proj", "v_proj"] if layer == "qkv" else ["o_proj"]
                return [f"{prefix}attention.{name}.{kind}" for name in theirs]
            part = {"norm1": "layernorm_before", "norm2": "layernorm_after"}.get(part, part)
            return [f"{prefix}{part}.{rest}"]
        if key.startswith(("decoder_", "mask_token")):
            return [f"model.decoder.{key}"]
        for ours, theirs in (
            ("cls_token", "embeddings.cls_token"),
            ("pos_embed", "embeddings.position_embeddings"),
            ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
            ("norm", "layernorm"),
        ):
            if key.startswith(ours):
                return [f"model.vit.{theirs}{key.removeprefix(ours)}"]
        raise KeyError(key)


class Lightly(Peer):
    """lightly's modules around timm's ViT, put together as in lightly's MAE example.

    `prediction` (B, M, p·p·3) covers the masked patches in the order of their noise.
    """

    def __init__(self, mae: MaskedAutoencoder) -> None:
        super().__init__()
        from lightly.models.modules import MaskedVisionTransformerTIMM
        from lightly.models.modules.masked_vision_transformer_decoder_timm import (
            MaskedVisionTransformerDecoderTIMM,
        )

        encoder, decoder_dim = mae.encoder, mae.mask_token.shape[-1]
        self.backbone = MaskedVisionTransformerTIMM(timm_encoder(mae))
        self.backbone.mask_token = None  # MAE's encoder sees none
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=mae.num_patches,
            embed_dim=decoder_dim,
            depth=len(mae.decoder_blocks),
            num_heads=mae.decoder_blocks[0].attn.num_heads,
        )
        self.decoder_embed = nn.Linear(encoder.embed_dim, decoder_dim)
        self.decoder_pred = nn.Linear(decoder_dim, mae.patch_size**2 * 3)
        self.patch_size, self.norm_pix = mae.patch_size, mae.norm_pix
        self.num_kept = 1 + mae.num_visible
        self.load(mae)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        from lightly.models import utils

        noise = torch.cat([noise.new_full((len(noise), 1), -1), noise], dim=1)
        order = noise.argsort(dim=1)
        kept, masked = order[:, : self.num_kept], order[:, self.num_kept :]
        encoded = self.decoder_embed(self.backbone.encode(images, idx_keep=kept))
        tokens = utils.repeat_token(self.decoder.mask_token, tuple(noise.shape))
        tokens = utils.set_at_index(tokens, kept, encoded)
        decoded = utils.get_at_index(self.decoder(tokens), masked)
        self.prediction = self.decoder_pred(decoded)
        target = utils.get_at_index(utils.patchify(images, self.patch_size), masked - 1)
        if self.norm_pix:
            target = utils.normalize_mean_var(target)
        return nn.functional.mse_loss(self.prediction, target)

    def names(self, key: str) -> list[str]:
        if key.startswith(("decoder_embed", "decoder_pred.")):
            return [key]
        if key.startswith(("decoder_", "mask_token")):
            return [f"decoder.{key.removeprefix('decoder_')}"]
        return [f"backbone.vit.{key}"]


def timm_encoder(mae: MaskedAutoencoder) -> VisionTransformer:
    """timm's plain ViT of the encoder's size, without head and pooling; positions are fixed."""
    vit = timm_vit(mae.encoder, num_classes=0, global_pool="")
    vit.pos_embed.requires_grad_(False)
    return vit


def timm_vit(ours: ViT, **options: Any) -> VisionTransformer:
    """timm's plain ViT of the size of one of ours, with its `options`."""
    return VisionTransformer(
        img_size=ours.image_size,
        patch_size=ours.patch_size,
        embed_dim=ours.embed_dim,
        depth=ours.depth,
        num_heads=ours.num_heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        **options,
    )
