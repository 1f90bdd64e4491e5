"""mmsegmentation's segmentor around its own ViT, with the weights of one of our tasks."""

import warnings
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tasks.ade20k.task import Ade20k

PARTS = {"neck": "neck", "head": "decode_head", "aux": "auxiliary_head"}
BACKBONE = {
    "blocks.": "layers.",
    ".norm1.": ".ln1.",
    ".norm2.": ".ln2.",
    ".mlp.fc1.": ".ffn.layers.0.0.",
    ".mlp.fc2.": ".ffn.layers.1.",
    "patch_embed.proj": "patch_embed.projection",
}
OWN = ("gamma_1", "gamma_2", "position_index")
"""layer scales, which stay at 1 here, and constants"""


class MMSegmentor:
    """`EncoderDecoder` by configs/_base_/models/upernet_mae.py, stepped as mmengine steps it."""

    def __init__(self, ours: Ade20k) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of compiled operators, and of means over all pixels
            from mmengine.optim import OptimWrapper
            from mmengine.registry import DefaultScope
            from mmseg.models import EncoderDecoder

            with DefaultScope.overwrite_default_scope("mmseg"):
                self.model = EncoderDecoder(**configuration(ours))
        missing, unexpected = self.model.load_state_dict(weights(ours), strict=False)
        if unexpected or any(not name.endswith(OWN) for name in missing):
            raise SystemExit(f"mmsegmentation's weights are others: {missing} {unexpected}")
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not name.endswith(OWN))
        side, stride = ours.recipe.image_size, ours.recipe.stride
        self.model.test_cfg = SimpleNamespace(
            mode="slide", crop_size=(side, side), stride=(stride, stride), get=lambda *_: "slide"
        )
        self.model.out_channels = len(ours.data.classes)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = OptimWrapper(torch.optim.AdamW(trained, lr=1e-6))

    def samples(self, labels: Tensor) -> list[Any]:
        """Label images (B, S, S) as its pipeline packs them."""
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        size = tuple(labels.shape[1:])
        meta = {"img_shape": size, "ori_shape": size, "pad_shape": size}
        packed = []
        for each in labels:
            truth = PixelData(data=each[None].long())
            packed.append(SegDataSample(gt_sem_seg=truth, metainfo=dict(meta)))
        return packed

    def backward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Losses of uint8 images, and gradients of their sum."""
        data = {"inputs": list(images), "data_samples": self.samples(labels)}
        found = self.model.data_preprocessor(data, True)
        losses = self.model._run_forward(found, mode="loss")
        total, _ = self.model.parse_losses(losses)
        total.backward()
        return {name: value.detach() for name, value in losses.items()}

    def step(self, images: Tensor, labels: Tensor) -> None:
        self.model.train()
        data = {"inputs": list(images), "data_samples": self.samples(labels)}
        self.model.train_step(data, self.optimiser)

    @torch.no_grad()
    def predict(self, image: Tensor) -> Tensor:
        """Classes (H, W) of a uint8 image at its own size."""
        self.model.eval()
        sample = self.samples(torch.zeros(1, *image.shape[1:], dtype=torch.uint8))
        (found,) = self.model.test_step({"inputs": [image], "data_samples": sample})
        return found.pred_sem_seg.data[0]

    def gradients(self) -> dict[str, Tensor]:
        return {n: p.grad for n, p in self.model.named_parameters() if p.grad is not None}


def configuration(ours: Ade20k) -> dict[str, Any]:
    recipe, vit, classes = ours.recipe, ours.backbone, len(ours.data.classes)
    norm, dim = {"type": "BN", "requires_grad": True}, vit.embed_dim
    common = {
        "num_classes": classes,
        "dropout_ratio": recipe.dropout,
        "norm_cfg": norm,
        "align_corners": False,
    }
    return {
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "mean": ours.mean.flatten().tolist(),
            "std": ours.std.flatten().tolist(),
            "size": (recipe.image_size,) * 2,
        },
        "backbone": {
            "type": "MAE",
            "img_size": recipe.image_size,
            "patch_size": vit.patch_size,
            "embed_dims": dim,
            "num_layers": vit.depth,
            "num_heads": vit.num_heads,
            "mlp_ratio": 4,
            "out_indices": list(recipe.taps),
            "norm_cfg": {"type": "LN", "eps": 1e-6},
            "init_values": 1.0,
            "drop_path_rate": recipe.drop_path,
        },
        "neck": {
            "type": "Feature2Pyramid",
            "embed_dim": dim,
            "rescales": [4, 2, 1, 0.5],
            "norm_cfg": norm,
        },
        "decode_head": {
            "type": "UPerHead",
            "in_channels": [dim] * 4,
            "in_index": [0, 1, 2, 3],
            "pool_scales": recipe.pool_scales,
            "channels": recipe.head_channels,
            "loss_decode": {"type": "CrossEntropyLoss", "loss_weight": 1.0},
            **common,
        },
        "auxiliary_head": {
            "type": "FCNHead",
            "in_channels": dim,
            "in_index": recipe.aux_tap,
            "channels": recipe.aux_channels,
            "num_convs": 1,
            "concat_input": False,
            "loss_decode": {"type": "CrossEntropyLoss", "loss_weight": recipe.aux_weight},
            **common,
        },
        "test_cfg": {"mode": "whole"},
    }


def weights(ours: nn.Module, gradients: bool = False) -> dict[str, Tensor]:
    """Our tensors, or their gradients, under mmsegmentation's names."""
    state = ours.state_dict() if not gradients else dict(ours.named_parameters())
    found = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        if part == "segmenter":
            part, _, rest = rest.partition(".")
            name = f"{PARTS[part]}.{rest}"
        else:
            name = key
            for old, new in BACKBONE.items():
                name = name.replace(old, new)
        found[name] = value.grad if gradients else value
    return found
