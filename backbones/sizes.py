"""Names and sizes of the backbones. Imports no torch, so that the command line stays fast."""

import difflib
from dataclasses import dataclass


class BackboneError(ValueError):
    """Bad input to a backbone. The message is one line for the user."""


@dataclass(frozen=True)
class Size:
    """Shape of a plain ViT; the MLP is four times as wide as the tokens."""

    embed_dim: int
    depth: int
    num_heads: int
    patch_size: int


# B, L, H: MAE (2111.06377), models_mae.py. S and T: DeiT (2012.12877), Table 1.
SIZES = {
    "vit_mini": Size(embed_dim=128, depth=4, num_heads=4, patch_size=8),
    "vit_t": Size(embed_dim=192, depth=12, num_heads=3, patch_size=16),
    "vit_s": Size(embed_dim=384, depth=12, num_heads=6, patch_size=16),
    "vit_b": Size(embed_dim=768, depth=12, num_heads=12, patch_size=16),
    "vit_l": Size(embed_dim=1024, depth=24, num_heads=16, patch_size=16),
    "vit_h": Size(embed_dim=1280, depth=32, num_heads=16, patch_size=14),
}


def size_of(name: str) -> Size:
    """The size behind a backbone name; `BackboneError` with near matches for an unknown one."""
    if name not in SIZES:
        near = difflib.get_close_matches(name, SIZES, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise BackboneError(f"unknown backbone {name!r}; {hint}there are {', '.join(SIZES)}")
    return SIZES[name]
