"""Bringing a checkpoint's tensors to the grid, patches and tables of a backbone.

Absolute positions of every source are resized by one rule, MAE's (facebookresearch/mae,
util/pos_embed.py): bicubic, corners not aligned, no antialiasing. moco-v3, DeiT, BEiT and
detectron2 do the same when they fine-tune or detect. DINO adds 0.1 to the sizes before it scales
positions in a forward pass, AugReg's first code took scipy's zoom, and timm antialiases; a protocol
that compares backbones must not differ by that.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from backbones.checkpoint import check_keys
from backbones.dense import DenseViT
from backbones.formats import BIAS_TABLE, PATCHES, SHARED_TABLE, Tensors
from backbones.posembed import is_square, resize_grid, resize_offsets
from backbones.relative import CLASS_TOKEN_ROWS
from backbones.report import LoadReport
from backbones.shapes import fitting
from backbones.sizes import BackboneError, size_of
from backbones.vit import ViT

POSITION_STD = 0.02
"""of absolute positions that are drawn anew"""
SHARED_OF_A_KIND = ("rel_pos_window", "rel_pos_global")
"""names of the tables that the blocks of a `DenseViT` share"""


def fit_positions(
    state: Tensors,
    own: Tensors,
    report: LoadReport,
    class_token: bool,
    grid: tuple[int, int] | None = None,
) -> None:
    """Bring `pos_embed` to as many positions as `own` has, with a class row only if asked for.

    `grid` is that of the file's; a square one by default. Raises `ValueError` if the positions
    fill none.
    """
    key = "pos_embed"
    if key not in state or key not in own or state[key].ndim != 3 or len(state[key]) != 1:
        return
    table, given, wanted = state[key], state[key].shape[1], own[key].shape[1]
    side = math.isqrt(wanted - class_token)
    square = grid is None or grid[0] == grid[1]
    if given == wanted and square:
        return
    count = given - 1 if grid is None else grid[0] * grid[1]
    if grid is None and not class_token and is_square(given):
        count = given
    if grid is None and not is_square(count):
        wanted_count = "1 + a square" if class_token else "a square or 1 + a square"
        raise ValueError(
            f"{key} has {given} positions; expected {wanted_count}, or name their rows and columns "
            "with --grid"
        )
    how = [f"{given} -> {wanted} positions"]
    of_class, table = table[:, : given - count], table[:, given - count :]
    if count < given and not class_token:
        how.append("class row dropped")
    if not square and grid is not None:
        how.append(f"{grid[0]} x {grid[1]} -> {side} x {side}")
    if table.shape[1] != side**2 or not square:
        table = resize_grid(table.float(), side, grid)
        how.append("bicubic")
    state[key] = torch.cat([of_class.to(table), table], dim=1) if class_token else table
    report.resized[key] = ", ".join(how)


def draw_positions(state: Tensors, own: Tensors, report: LoadReport) -> None:
    """Absolute positions at random for weights that have none, where the backbone has some.

    2111.11429 (section 3.1) gives them to BEiT's. It does not say how they are drawn; here it is
    as BEiT's code draws its own (microsoft/unilm, beit/modeling_finetune.py), which it names for
    all initial weights of the ViT.
    """
    key = "pos_embed"
    if key in own and key not in state:
        state[key] = nn.init.trunc_normal_(torch.empty_like(own[key]), std=POSITION_STD)
        report.fresh[key] = "absolute positions, drawn anew"
        report.assumed.append(
            f"absolute positions drawn anew, normal with a deviation of {POSITION_STD}: the "
            "weights have none, and 2111.11429 (section 3.1) gives them random ones"
        )


def fit_patches(state: Tensors, vit: DenseViT, report: LoadReport) -> None:
    """Resize the patch projection where `vit` has another patch size than its name's.

    ViTDet (2203.16527) interpolates ViT-H's filters from 14 x 14 to 16 x 16 pixels. How exactly
    is not published and unconfirmed, and so is whether positions stay at 16 x 16, as here; this is
    bicubic, corners not aligned, no antialiasing, as for positions.
    """
    key = PATCHES
    usual, patch = size_of(vit.name).patch_size, vit.patch_size
    if key in state and patch != usual and state[key].shape[2:] == (usual, usual):
        weight = state[key].float()
        state[key] = F.interpolate(weight, (patch, patch), mode="bicubic", align_corners=False)
        report.resized[key] = f"{usual} x {usual} -> {patch} x {patch} pixels, bicubic"


def fit_bias_tables(state: Tensors, own: Tensors, report: LoadReport, class_token: bool) -> None:
    """Resize BEiT's tables of relative position to the windows that `own` has.

    The class token's rows are kept as they are, or dropped where there is none. As in BEiT,
    offsets are spaced geometrically, with a cubic spline between them.
    """
    for key in [key for key in state if is_bias_table(key) and key in own]:
        given, wanted = len(state[key]), len(own[key])
        if given == wanted or state[key].ndim != 2 or state[key].shape[1] != own[key].shape[1]:
            continue
        how = [f"{given} -> {wanted} offsets"]
        table, rows = state[key].float(), CLASS_TOKEN_ROWS if class_token else 0
        if not class_token and not is_square(given) and is_square(max(0, given - CLASS_TOKEN_ROWS)):
            table = table[:-CLASS_TOKEN_ROWS]
            how.append("class rows dropped")
        offsets_side = math.isqrt(max(0, len(table) - rows))
        if offsets_side**2 != len(table) - rows or offsets_side < 3 or offsets_side % 2 == 0:
            continue  # `check_keys` names it
        if len(table) != wanted:
            offsets, of_class = table.split([len(table) - rows, rows])
            side = (math.isqrt(wanted - rows) + 1) // 2
            table = torch.cat([resize_offsets(offsets, side), of_class])
            how.append("geometric spacing, cubic")
        state[key] = table
        report.resized[key] = ", ".join(how)


def add_relative_positions(state: Tensors, own: Tensors, report: LoadReport) -> None:
    """Relative positions at zero for a file that has none at all."""

    def is_relative(key: str) -> bool:
        return "rel_pos_" in key or key.endswith(BIAS_TABLE)

    if not any(map(is_relative, state)):
        wanted = list(filter(is_relative, own))
        state |= {key: torch.zeros_like(own[key]) for key in wanted}
        report.fresh |= dict.fromkeys(wanted, "relative position, starts at zero")


def is_bias_table(key: str) -> bool:
    """Whether it is the name of a table of biases in one of our backbones."""
    return key.endswith(BIAS_TABLE) or key in SHARED_OF_A_KIND


def gather_equal_tables(state: Tensors, own: Tensors, report: LoadReport) -> None:
    """Make one table of a file's copies, a block each, where blocks of `own` share theirs.

    Copies of the table that a pre-training BEiT shares are what BEiT's code fine-tunes from, and
    what a pre-training here writes. Tables that differ are left, and have no place.
    """
    copies = [key for key in state if key.endswith(BIAS_TABLE)]
    if not copies or not set(SHARED_OF_A_KIND) & set(own):
        return
    table = state[copies[0]]
    if all(torch.equal(state[key], table) for key in copies):
        for key in copies:
            del state[key]
            report.resized[key] = "a copy of the table that all blocks share"
        state[SHARED_TABLE] = table


def spread_shared_table(state: Tensors, own: Tensors, report: LoadReport) -> None:
    """Give the table that all blocks of a pre-training BEiT share to each table that `own` has.

    To every block's, as BEiT does before it fine-tunes (microsoft/unilm,
    beit/run_class_finetuning.py), or to that of windowed and that of global blocks.
    """
    wanted = list(filter(is_bias_table, own))
    if SHARED_TABLE in state and wanted:
        table = state.pop(SHARED_TABLE)
        state |= dict.fromkeys(wanted, table)
        report.resized[SHARED_TABLE] = f"one table -> {len(wanted)} tables"


def refuse_homeless_tables(file: Path, state: Tensors, own: Tensors, vit: ViT | DenseViT) -> None:
    """Raise `BackboneError` for tables of relative position that a `DenseViT` has no place for."""
    tables = [key for key in state if key.endswith(BIAS_TABLE) or key == SHARED_TABLE]
    if isinstance(vit, DenseViT) and tables and not set(tables) & set(own):
        alike, places = "a table a block", "'per_block'"
        if all(torch.equal(state[key], state[tables[0]]) for key in tables):
            alike, places = "a table that its blocks share", "'shared' or 'per_block'"
        raise BackboneError(
            f"checkpoint {file}: holds biases of relative position ({alike}, {tables[0]}), which "
            f"relative_position {vit.dense.relative_position!r} has no place for; expected "
            f"{places}"
        )


def check_fit(file: Path, name: str, state: Tensors, own: Tensors) -> None:
    """`check_keys`, which also says which backbone the file would fit."""
    try:
        check_keys(file, name, state, own)
    except BackboneError as error:
        others = [other for other in fitting(state) if other != name]
        if not others or name in fitting(state):
            raise
        raise BackboneError(f"{error}; it has the size of {' or '.join(others)}") from None
