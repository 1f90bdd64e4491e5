"""The linear classifier that a released file keeps beside its encoder, by any project's names."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from backbones.checkpoint import refuse_not_finite
from backbones.contents import refuse_no_weights
from backbones.conversion import Converted
from backbones.formats import CLASSIFIER, CLASSIFIER_NORM, PATCHES
from backbones.formats.layout import PRETEXT
from backbones.sizes import BackboneError

LINEAR = re.compile(
    r"(?:^|[./])(head|classifier|heads\.head|head\.layers\.head|head\.fc|head\.0|head\.1|"
    r"linear_head|linear|fc)[./](weight|kernel)$"
)
"""timm's, MAE's, DeiT's, BEiT's; transformers'; torchvision's; OpenMMLab's; ours; after a batch
norm, of MAE's linear probes and ours; those that scripts for linear probes use"""
NORM = re.compile(r"(?:^|\.)(fc_norm|pooler\.layernorm|ln2)\.(weight|bias)$")
"""of the mean over patches: timm's and MAE's; transformers' BEiT's; OpenMMLab's"""
PART = re.compile(r"(?:^|[./])(head|heads|head_dist|classifier|pre_logits|fc_norm)[./_]")
"""names that belong to a classifier"""
COUNTER = "num_batches_tracked"


@dataclass
class Head:
    """A linear classifier of K outputs on C channels."""

    weight: Tensor
    """(K, C)"""
    bias: Tensor
    """(K,)"""
    key: str
    """of the weight in the file"""
    batch_norm: tuple[Tensor, Tensor] | None = None
    """mean and variance (C,) of one without weights before it"""
    norm: tuple[Tensor, Tensor] | None = None
    """weight and bias (C,) of a layer norm of the mean over patches before it"""

    @property
    def outputs(self) -> int:
        return len(self.weight)


def classifier_in(file: Path, converted: Converted) -> Head:
    """The classifier of a file that was read; `BackboneError` if it has none, or no linear one."""
    rules = (CLASSIFIER, CLASSIFIER_NORM)
    parts = {
        key: value
        for key, value in converted.beside.items()
        if converted.skipped[key] in rules
        or (
            (PART.search(key) or LINEAR.search(key) or NORM.search(key))
            and converted.skipped[key] != PRETEXT
        )
    }
    found = [key for key, value in parts.items() if LINEAR.search(key) and value.ndim == 2]
    if not found:
        homeless = sorted(filter(LINEAR.search, converted.state))
        seen = ", ".join([*homeless, *sorted(converted.beside)][:4]) or "nothing"
        raise BackboneError(
            f"checkpoint {file}: has no head.weight and no head.bias, so it is no classifier, nor "
            f"by another name (beside its encoder: {seen}); expected a fine-tuned model, or the "
            "folder of a finished run"
        )
    key = found[0]
    root, kind = key[: -len("weight")], key.rpartition("/")[2]
    weight = parts[key]
    if kind == "kernel":  # of Google's arrays, (in, out)
        root, weight = key[: -len("kernel")], parts[key].T
    used = {key, f"{root}bias"}
    bias = parts.get(f"{root}bias")
    before = re.sub(r"1\.$", "0.", root)
    mean, variance = parts.get(f"{before}running_mean"), parts.get(f"{before}running_var")
    used |= {f"{before}running_mean", f"{before}running_var"} if before != root else set()
    norm = {m[2]: (k, parts[k]) for k in parts if (m := NORM.search(k))}
    used |= {k for k, _ in norm.values()}
    more = sorted(k for k in parts if k not in used and not k.endswith(COUNTER))
    if more:
        raise BackboneError(
            f"checkpoint {file}: its classifier is more than a linear layer ({', '.join(more[:3])} "
            f"beside {key}), which is not supported"
        )
    tensors = {name: parts[name] for name in used if name in parts}
    refuse_no_weights(file, tensors)
    refuse_not_finite(file, tensors)
    if not weight.any():
        raise BackboneError(
            f"checkpoint {file}: its classifier {key} holds nothing but zeros, so that it was "
            "never trained; expected a fine-tuned model"
        )
    width = len(converted.state.get(PATCHES, ()))
    shapes = [weight.shape[1:], *(t.shape for _, t in norm.values())]
    shapes += [t.shape for t in (mean, variance) if t is not None]
    if any(tuple(shape) != (width,) for shape in shapes) or (
        bias is not None and bias.shape != weight.shape[:1]
    ):
        twice = "; class token and patches together, as DINOv2's, are not supported"
        raise BackboneError(
            f"checkpoint {file}: its classifier {key} is {tuple(weight.shape)}; expected (classes, "
            f"{width})" + (twice if tuple(weight.shape[1:]) == (2 * width,) else "")
        )
    return Head(
        weight.float(),
        torch.zeros(len(weight)) if bias is None else bias.float(),
        key,
        None if mean is None or variance is None else (mean.float(), variance.float()),
        (norm["weight"][1].float(), norm["bias"][1].float()) if len(norm) == 2 else None,
    )
