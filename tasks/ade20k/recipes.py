"""ADE20K recipes: every number of the UperNet protocols with its source. Imports no torch.

Sources: "MAE" is 2111.06377, appendix A.4, whose authors published neither code nor the values of
their search; "BEiT" is microsoft/unilm, beit/semantic_segmentation, the code that they say they
used; "implus" is implus/mae_segmentation, configs/mae, and "mmseg" mmsegmentation, configs/mae and
configs/_base_, the two public re-implementations for MAE's ViT-B; "ours" is a decision of this
project.

Both re-implementations give each block a layer scale, initialised to 1, that MAE's ViT lacks. Here
there is none.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from backbones.sizes import Dense, size_of
from tasks import check_known
from tasks.errors import TaskError
from tasks.recipe import (
    MOST,
    Pixels,
    Share,
    Sourced,
    TransferRecipe,
    Width,
    Within,
    complete,
    for_backbone,
    made,
    require,
    row_of,
    said_by,
)

PROTOCOLS = {
    "upernet-512-160k": "UperNet, 512 x 512, 160,000 steps: BEiT's code and every reproduction",
    "upernet-512-100ep": "the same for 100 epochs, as the MAE paper says",
}
"""protocol -> what it is; either starts from --checkpoint or, with --init scratch, without"""

Kind = Literal["one_dimensional", "bias", "pos_embed", "cls_token", "relative_position"]
"""parameters by what they are; `bias` is a convolution's or linear layer's"""

NUM_TAPS = 4


@dataclass(frozen=True, kw_only=True)
class Ade20kRecipe(TransferRecipe):
    """Every number that can change a segmentation score; `image_size` is the side of a crop."""

    taps: Annotated[tuple[int, ...], Within(0, 1000)]
    """blocks whose maps become 4, 2, 1 and 1/2 of the token grid, in this order, 0-based"""
    relative_position: Literal["none", "per_block"]
    """per_block: BEiT's table of biases in each block, starting at zero"""
    class_token: bool
    """whether the class token attends; it is in no map either way"""
    patch_size: Annotated[int, Within(1, 256)]
    """side of a patch in pixels; weights of another size are resized"""
    head_channels: Width
    """channels of UperNet's convolutions"""
    pool_scales: Annotated[tuple[int, ...], Within(1, 1024)]
    """sides of the pooled maps in its pyramid pooling"""
    aux_tap: Annotated[int, Within(0, NUM_TAPS - 1)]
    """which of `taps`, rescaled, the auxiliary head takes, 0-based"""
    aux_channels: Width
    """channels of the auxiliary head's one convolution"""
    aux_weight: Annotated[float, Within(0, MOST)]
    """of the auxiliary loss; the main one has 1"""
    dropout: Annotated[float, Within(0, 1, open_high=True)]
    """share of channels dropped before either classifier"""
    scale: Annotated[tuple[int, int], Within(1, 65_536)]
    """longest and shortest side that a resized image fits in, pixels"""
    ratio_range: Annotated[tuple[float, float], Within(0.01, 100)]
    """in training both sides of `scale` are multiplied by a number uniform in it"""
    max_class_share: Annotated[float, Within(0, 1, open_low=True)]
    """of the labelled pixels of a crop; a crop with more of one class is drawn again"""
    flip_prob: Share
    """probability of a horizontal flip"""
    photometric: bool
    """whether colours are distorted"""
    stride: Pixels
    """from one window of the test to the next, pixels; a window is as large as a crop"""
    test_scales: Annotated[tuple[float, ...], Within(0.01, 100)]
    """factors of `scale` whose predictions are averaged in the test"""
    test_flip: bool
    """whether the test averages each with its mirror image's"""
    no_decay: tuple[Kind, ...]
    """parameters exempt from weight decay"""
    epoch_images: Annotated[int | None, Within(1, 1e9)]
    """images that count as an epoch of the official training set; other data count their own"""

    def __post_init__(self) -> None:
        super().__post_init__()
        depth = size_of(self.backbone).depth
        within = len(self.taps) == NUM_TAPS and all(0 <= block < depth for block in self.taps)
        require(self, "taps", within, f"{NUM_TAPS} blocks of 0 to {depth - 1}")
        require(self, "taps", depth - 1 in self.taps, f"the last block, {depth - 1}, among them")
        patch = self.patch_size
        whole = self.image_size % (2 * patch) == 0
        require(self, "image_size", whole, f"a multiple of {2 * patch}, two patches")
        require(self, "pool_scales", bool(self.pool_scales), "one or more, each at least 1")
        require(self, "scale", self.scale[1] <= self.scale[0], "(longest, shortest) side")
        low, high = self.ratio_range
        require(self, "ratio_range", low <= high, "above 0, rising")
        require(self, "stride", self.stride <= self.image_size, "1 to image_size")
        require(self, "test_scales", bool(self.test_scales), "one or more, each above 0")

    def backbone_options(self) -> dict[str, Any]:
        return super().backbone_options() | {
            "dense": Dense(
                relative_position=self.relative_position,
                patch_size=self.patch_size,
                resize_position="load",
                class_token=self.class_token,
            )
        }


def recipe_type(protocol: str) -> type[Ade20kRecipe]:
    """The class of a protocol's recipes."""
    return Ade20kRecipe


def upernet() -> Sourced:
    """What both protocols and all sizes share.

    Expected mIoU from MAE weights: ViT-B 48.1, ViT-L 53.6 (MAE, Table 5, best of a search); ViT-B
    48.15 with implus' and 48.13 with mmseg's numbers, which are those used here. An author of
    long_seq_mae, whose segmentation follows MAE's, took BEiT's and ConvNeXt's kind of numbers for B
    and L (facebookresearch/long_seq_mae issue 1; ViT-B: rate 8e-5, layer decay 0.8, drop path 0.1).

    Batch norm is synchronised over the images that all processes hold in one forward pass: for the
    16 of the reference, the processes times `device_batch` have to be 16. Weight decay spares what
    it spares there. The reference also names positions and the class token, but by names that its
    parameters do not have, so that it decays them, and the tables of relative position with them.
    """
    return (
        said_by("MAE; BEiT", batch_size=16, optimizer="adamw", image_size=512)
        | said_by("BEiT and mmseg (8 GPUs of 2)", device_batch=2)
        | said_by("BEiT, implus and mmseg", betas=(0.9, 0.999), weight_decay=0.05)
        | said_by("mmseg: the line begins after warmup", schedule="poly")
        | said_by("BEiT, implus and mmseg", min_lr=0.0, milestones=())
        | said_by("BEiT, implus and mmseg", warmup_start=1e-6, clip_grad=None, ema_decay=None)
        | said_by("ours: bf16 needs no loss scaling; BEiT and mmseg use fp16", precision="bf16")
        | said_by("MAE (added in transfer, starts at zero)", relative_position="per_block")
        | said_by("BEiT", class_token=True)
        | said_by("BEiT; for ViT-H ours, as in ViTDet, for 14 does not divide 512", patch_size=16)
        | said_by("mmseg models/upernet_mae.py", pool_scales=(1, 2, 3, 6), dropout=0.1)
        | said_by("mmseg models/upernet_mae.py", aux_tap=2, aux_channels=256, aux_weight=0.4)
        | said_by("BEiT datasets/ade20k.py", scale=(2048, 512), ratio_range=(0.5, 2.0))
        | said_by("BEiT datasets/ade20k.py", max_class_share=0.75, flip_prob=0.5, photometric=True)
        | said_by("BEiT and mmseg: two thirds of the crop", stride=341)
        | said_by("BEiT and mmseg: single-scale", test_scales=(1.0,), test_flip=False)
        | said_by("BEiT and mmseg (see upernet)", no_decay=("one_dimensional", "bias"))
    )


WARMUP_STEPS = 1500

LENGTH: dict[str, Sourced] = {
    "upernet-512-160k": said_by(
        "BEiT, implus and mmseg count steps: 160,000 of 16 images",
        epochs=160,
        epoch_images=16_000,
    )
    | said_by("BEiT, implus and mmseg (1500 steps)", warmup_epochs=WARMUP_STEPS * 16 / 16_000),
    "upernet-512-100ep": said_by("MAE (of 20,210 images)", epochs=100, epoch_images=20_210)
    | said_by("BEiT (1500 steps); MAE names none", warmup_epochs=WARMUP_STEPS * 16 / 20_210),
}
"""what differs between the protocols"""

LARGE = (
    said_by("ours: implus' for ViT-B (1e-4); MAE searched and named none", base_lr=1.6e-3)
    | said_by("ours: MAE's in ImageNet fine-tuning, not long_seq_mae's (issue 1)", layer_decay=0.75)
    | said_by("ours: BEiT's for ViT-L, with which MAE's agrees in ImageNet", drop_path=0.2)
)

BY_SIZE: dict[str, Sourced] = {
    "vit_b": said_by("implus and mmseg (1e-4); MAE searched and named none", base_lr=1.6e-3)
    | said_by("implus and mmseg", layer_decay=0.65, drop_path=0.1),
    "vit_l": LARGE,
    "vit_h": {
        name: (value, "ours: ViT-L's value; none is published")
        for name, (value, _) in LARGE.items()
    },
}
"""what differs between the sizes"""

MINIATURE: dict[str, Any] = {
    "image_size": 64,
    "patch_size": 8,
    "epochs": 16,
    "batch_size": 4,
    "device_batch": 4,
    "warmup_epochs": 1.0,
    "base_lr": 0.128,  # 2e-3 at batch 4
    "layer_decay": 0.65,
    "drop_path": 0.0,
    "precision": "fp32",
    "taps": (0, 1, 2, 3),
    "head_channels": 32,
    "aux_channels": 32,
    "scale": (256, 64),
    "ratio_range": (0.75, 1.5),
    "stride": 42,
    "epoch_images": None,
}
"""vit_mini on the miniature world: what differs from the published recipe"""


THIRDS = 3


def taps(depth: int) -> tuple[int, ...]:
    """Blocks at a third, a half, two thirds and the end of the depth: 3, 5, 7, 11 of 12."""
    return (depth // 3 - 1, depth // 2 - 1, depth * 2 // 3 - 1, depth - 1)


def recipe(task: str, backbone: str, protocol: str) -> Ade20kRecipe:
    """The recipe of a protocol, for example ("ade20k", "vit_b", "upernet-512-160k").

    Raises `TaskError` with near matches for a backbone or protocol that has none.
    """
    return made(Ade20kRecipe, sourced(task, backbone, protocol))


def sourced(task: str, backbone: str, protocol: str) -> Sourced:
    """Every recipe field with its value and source, in the order of the fields."""
    check_known("protocol", protocol, list(PROTOCOLS))
    row, size = row_of(backbone, BY_SIZE), size_of(backbone)
    if size.depth < THIRDS:
        raise TaskError(
            f"{task} with {backbone}: it has {size.depth} blocks; expected {THIRDS} at least, for "
            "maps at a third, a half, two thirds and the end of the depth"
        )
    rows = upernet() | LENGTH[protocol] | BY_SIZE[row]
    rows |= said_by("BEiT: 3, 5, 7, 11 of 12 and 7, 11, 15, 23 of 24", taps=taps(size.depth))
    rows |= said_by("BEiT and mmseg: the tokens' width", head_channels=size.embed_dim)
    if backbone == "vit_h":
        rows |= said_by("ours: as for B and L, none is published", taps=taps(size.depth))
        rows |= said_by("ours: as for B and L, none is published", head_channels=size.embed_dim)
    rows = for_backbone(rows, backbone, row)
    if backbone != row:
        rows |= said_by("ours: the tokens' width, as ViT-B has it", head_channels=size.embed_dim)
    if backbone == "vit_mini":
        rows |= said_by("ours: tuned on the miniature world", **MINIATURE)
    rows |= said_by("ours: what was asked for", protocol=f"{task}/{protocol}@1", backbone=backbone)
    return complete(Ade20kRecipe, rows)
