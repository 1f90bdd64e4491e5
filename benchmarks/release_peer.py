"""The masked autoencoder as the MAE release arranges it, with the weights of one of ours.

Source: facebookresearch/mae, models_mae.py and engine_pretrain.py. All patches are embedded, then
the visible ones taken; the decoder predicts every patch and the loss masks what does not count;
attention makes its square matrix of weights, as timm 0.3 did. Its step is `ReleaseStep`.
"""

from functools import partial

import torch
from peers import Peer, timm_encoder
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mae_bench.mae import MaskedAutoencoder


class Release(Peer):
    """`prediction` (B, N, p·p·3) covers all patches."""

    def __init__(self, mae: MaskedAutoencoder) -> None:
        super().__init__()
        width, side = mae.mask_token.shape[-1], mae.patch_size
        heads = mae.decoder_blocks[0].attn.num_heads
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.vit = timm_encoder(mae)
        self.decoder_embed = nn.Linear(mae.encoder.embed_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_pos_embed = nn.Parameter(
            torch.zeros(1, 1 + mae.num_patches, width), requires_grad=False
        )
        self.decoder_blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio=4, qkv_bias=True, norm_layer=norm)
            for _ in mae.decoder_blocks
        )
        self.decoder_norm = norm(width)
        self.decoder_pred = nn.Linear(width, side**2 * 3)
        self.num_visible, self.side, self.norm_pix = mae.num_visible, side, mae.norm_pix
        attend_explicitly(self)
        self.load(mae)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        order = noise.argsort(dim=1)
        back = order.argsort(dim=1)
        x = self.vit.patch_embed(images) + self.vit.pos_embed[:, 1:]
        x = x.gather(1, across(order[:, : self.num_visible], x.shape[-1]))
        cls = self.vit.cls_token + self.vit.pos_embed[:, :1]
        x = self.vit.blocks(torch.cat([cls.expand(len(x), -1, -1), x], dim=1))
        x = self.decoder_embed(self.vit.norm(x))
        hidden = self.mask_token.expand(len(x), noise.shape[1] - self.num_visible, -1)
        tokens = torch.cat([x[:, 1:], hidden.to(x.dtype)], dim=1)
        tokens = tokens.gather(1, across(back, tokens.shape[-1]))
        x = torch.cat([x[:, :1], tokens], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        self.prediction = self.decoder_pred(self.decoder_norm(x))[:, 1:]
        removed = (back >= self.num_visible).float()
        error = (self.prediction - self.target(images)).square().mean(dim=-1)
        return (error * removed).sum() / removed.sum()

    def target(self, images: Tensor) -> Tensor:
        """Pixels (B, N, p·p·3) of every patch, normalised if they are to be."""
        grid = images.shape[-1] // self.side
        x = images.reshape(len(images), 3, grid, self.side, grid, self.side)
        x = torch.einsum("bchpwq->bhwpqc", x).reshape(len(images), grid**2, -1)
        if not self.norm_pix:
            return x
        mean, variance = x.mean(dim=-1, keepdim=True), x.var(dim=-1, keepdim=True)
        return (x - mean) / (variance + 1e-6).sqrt()

    def names(self, key: str) -> list[str]:
        return [key if key.startswith(("decoder_", "mask_token")) else f"vit.{key}"]


def across(indices: Tensor, width: int) -> Tensor:
    """(B, V) to (B, V, C), for gathering."""
    return indices[..., None].expand(-1, -1, width)


def attend_explicitly(network: nn.Module) -> None:
    """Let timm's attention make its matrix of weights, as before there were fused kernels."""
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False


class ReleaseStep:
    """A step as the release takes it: float16 with scaled losses, the loss read every time.

    Source: engine_pretrain.py and util/misc.py (`NativeScalerWithGradNormCount`), which also
    computes the norm of all gradients; AdamW is torch's default.
    """

    def __init__(self, network: nn.Module, device: str, half: torch.dtype = torch.float16) -> None:
        self.network, self.device, self.half = network, device, half
        trained = [p for p in network.parameters() if p.requires_grad]
        self.trained = trained
        self.optimiser = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)
        self.scaler = torch.amp.GradScaler(device, enabled=half == torch.float16)

    def __call__(self, *inputs: Tensor) -> None:
        with torch.autocast(self.device, self.half):
            loss = self.network(*inputs)
        if not torch.isfinite(loss):
            raise RuntimeError("the release's loss is not finite")
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        torch.stack([p.grad.norm() for p in self.trained if p.grad is not None]).norm()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()
        if self.device == "cuda":
            torch.cuda.synchronize()
