"""Layouts of public ViT checkpoints, and how each becomes our names.

A `Format` is one layout, as its project writes it: what tells it, what is left out on purpose,
which names change, and what belongs to the weights without being in the file. Our names are timm's
`VisionTransformer`'s and so those of the MAE release, with BEiT's tables
`blocks.N.attn.relative_position_bias_table`.

Some layouts share all their names. The fixed position tables of MAE and MoCo v3 tell those two;
the rest of the plain ViTs are "timm", whose report says what was assumed. DINO's, DINOv2's, DeiT's
and AugReg's names narrow that when they are asked for.
"""

from backbones.formats.beit import BEIT
from backbones.formats.hugging_face import HUGGING_FACE
from backbones.formats.layout import (
    BIAS_TABLE,
    CLASSIFIER,
    CLASSIFIER_NORM,
    HALF,
    PATCHES,
    SHARED_TABLE,
    Format,
    Tensors,
)
from backbones.formats.others import OTHERS
from backbones.formats.plain import PLAIN

__all__ = [
    "BIAS_TABLE",
    "CLASSIFIER",
    "CLASSIFIER_NORM",
    "FORMATS",
    "HALF",
    "PATCHES",
    "SHARED_TABLE",
    "Format",
    "Tensors",
]

FORMATS: dict[str, Format] = PLAIN | BEIT | HUGGING_FACE | OTHERS
"""name -> layout, as `--format` takes it"""
