"""A file of every format of checkpoints, written by timm's or transformers' own models."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    BeitForMaskedImageModeling,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTModel,
)

import backbones
from backbones.checkpoint import save
from backbones.formats import HALF
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


def refusal(file: Path, **options: Any) -> str:
    with pytest.raises(backbones.BackboneError) as error:
        backbones.load("tiny", file, 16, **options)
    message = str(error.value)
    assert "\n" not in message
    return message
