"""Names and sizes of the backbones. Imports no torch, so that the command line stays fast."""

import difflib
from dataclasses import dataclass, replace
from typing import Literal, get_args


class BackboneError(ValueError):
    """Bad input to a backbone. The message is one line for the user."""


@dataclass(frozen=True)
class Size:
    """Shape of a plain ViT; the MLP is four times as wide as the tokens."""

    embed_dim: int
    depth: int
    num_heads: int
    patch_size: int
    pretrain_image: int = 224
    """pixels of the side of the images that it is pre-trained on"""


@dataclass(frozen=True)
class Anatomy:
    """What else tells one plain ViT from another; the defaults are MAE's.

    All have one class token, norms before both branches of a block, biases everywhere and an exact
    GELU. `backbones.load` derives this from the file.
    """

    num_heads: int | None = None
    """where they are not the size's own (MoCo v3: 12 in ViT-S); no weight's shape shows them"""
    norm_eps: float = 1e-6
    """of all layer norms"""
    layer_scale: float | None = None
    """initial factor of each channel of both branches (BEiT, DeiT III); None: there is none"""
    absolute_position: bool = True
    """whether positions are added to the patches"""
    relative_position: bool = False
    """whether each block has a table of biases, as BEiT; of a `ViT` only, `Dense` has its own"""
    final_norm: bool = True
    """False: nothing follows the last block, as where a classifier's norm follows its pooling"""


RelativePosition = Literal["none", "decomposed", "shared", "per_block"]
ResizePosition = Literal["forward", "load"]


@dataclass(frozen=True)
class Dense:
    """How a ViT serves dense prediction: as a map of tokens of large images.

    ViTDet (detectron2, projects/ViTDet/configs/common/models/mask_rcnn_vitdet.py):
    `Dense(14, global_blocks, "decomposed")`. The MAE paper's detection (2111.11429, section 2):
    `Dense(14, global_blocks, "shared", resize_position="load", add_positions=True)`. Its
    segmentation, by BEiT's code (microsoft/unilm, beit/semantic_segmentation/backbone/beit.py):
    `Dense(None, (), "per_block", resize_position="load", class_token=True)`.

    Raises `BackboneError` for values that no backbone can have.
    """

    window_size: int | None = None
    """tokens of the side of an attention window; None: all blocks attend globally"""
    global_blocks: tuple[int, ...] = ()
    """0-based blocks that attend globally although there are windows"""
    relative_position: RelativePosition = "none"
    """"decomposed": per block, one table for rows and one for columns, multiplied with the query
    (ViTDet); "shared": one table of biases for all windowed and one for all global blocks;
    "per_block": one table of biases in each block (BEiT)"""
    patch_size: int | None = None
    """pixels, where they are not the name's own (ViT-H in ViTDet: 16 in place of 14)"""
    resize_position: ResizePosition = "forward"
    """"forward": positions stay at the pre-training grid and are resized in every forward pass
    (ViTDet); "load": they are resized once, and trained at the grid of the tokens"""
    class_token: bool = False
    """whether the class token stays: it attends and is attended to, and is in no map; for global
    attention with relative_position "none" or "per_block" alone"""
    add_positions: bool = False
    """whether weights that were pre-trained without absolute positions, as BEiT's, get some, drawn
    anew (2111.11429, section 3.1)"""

    def __post_init__(self) -> None:
        for option in ("window_size", "patch_size"):
            number = getattr(self, option)
            if number is not None and number < 1:
                raise BackboneError(f"{option} is {number}; expected at least 1, or None")
        kinds = {"relative_position": RelativePosition, "resize_position": ResizePosition}
        for option, kind in kinds.items():
            if getattr(self, option) not in get_args(kind):
                raise BackboneError(
                    f"{option} is {getattr(self, option)!r}; there are {', '.join(get_args(kind))}"
                )
        if self.class_token and self.window_size is not None:
            raise BackboneError(
                f"class_token with window_size {self.window_size}; a class token is in no window: "
                "expected window_size None, or class_token False"
            )
        if self.class_token and self.relative_position not in ("none", "per_block"):
            raise BackboneError(
                f"class_token with relative_position {self.relative_position!r}, which has no "
                "place for it; expected 'none' or 'per_block', or class_token False"
            )


TIMM = "timm:"
"""what names of timm's models begin with"""

# B, L, H: MAE (2111.06377), models_mae.py. S and T: DeiT (2012.12877), Table 1.
SIZES = {
    "vit_mini": Size(embed_dim=128, depth=4, num_heads=4, patch_size=8, pretrain_image=32),
    "vit_t": Size(embed_dim=192, depth=12, num_heads=3, patch_size=16),
    "vit_s": Size(embed_dim=384, depth=12, num_heads=6, patch_size=16),
    "vit_b": Size(embed_dim=768, depth=12, num_heads=12, patch_size=16),
    "vit_l": Size(embed_dim=1024, depth=24, num_heads=16, patch_size=16),
    "vit_h": Size(embed_dim=1280, depth=32, num_heads=16, patch_size=14),
}


def with_positions(anatomy: Anatomy, dense: Dense | None) -> Anatomy:
    """An anatomy as `dense` has it: with absolute positions where it adds them."""
    if dense is None or not dense.add_positions:
        return anatomy
    return replace(anatomy, absolute_position=True)


def size_of(name: str) -> Size:
    """The size behind a backbone name; `BackboneError` with near matches for an unknown one."""
    return shape_of(name)[0]


def shape_of(name: str) -> tuple[Size, Anatomy]:
    """The size and the anatomy behind a backbone name.

    A row of `SIZES`, "timm:<model>", or a plug-in's name (see `backbones.plugin`). Raises
    `BackboneError` for any other, with near matches.
    """
    if name in SIZES:
        return SIZES[name], Anatomy()
    if name.startswith(TIMM):
        from backbones.timm_models import timm_shape

        return timm_shape(name)
    from backbones.plugin import find

    plugin = find(name)
    if plugin is not None:
        return plugin.size, Anatomy()
    near = difflib.get_close_matches(name, SIZES, n=2)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise BackboneError(
        f"unknown backbone {name!r}; {hint}there are {', '.join(SIZES)}, {TIMM}<model> and "
        "FILE.py:<name> of your own"
    )
