"""COCO recipes: every number of the two Mask R-CNN protocols with its source. Imports no torch.

Sources: "Li21" is 2111.11429, the protocol of the MAE paper's Table 4, whose code was never
released; "ViTDet" is 2203.16527; "d2" is a file of facebookresearch/detectron2 @02b5c4e, "d2
vitdet" its configs/common/models/mask_rcnn_vitdet.py and projects/ViTDet/configs/COCO; "MIMDet"
is hustvl/MIMDet, the closest public re-implementation of Li21; "ours" is a decision of this
project.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from backbones.sizes import Dense, size_of
from tasks import check_known
from tasks.errors import TaskError
from tasks.recipe import (
    MOST,
    Count,
    Layers,
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
    "mask_rcnn-vitdet": "Mask R-CNN on a simple feature pyramid (ViTDet, 2203.16527)",
    "mask_rcnn-fpn": "Mask R-CNN on a four-stage FPN (2111.11429), the MAE paper's Table 4",
}
"""protocol -> what it is; either starts from --checkpoint or, with --init scratch, without"""

NUM_GROUPS = 32
"""of the adapter's group norm: its paper's default (1803.08494); 2111.11429 names no other"""

Kind = Literal["backbone_norm", "norm", "pos_embed", "relative_position", "bias"]
"""parameters by what they are; `norm` is every torch norm layer, `backbone_norm` the ViT's"""


@dataclass(frozen=True, kw_only=True)
class CocoRecipe(TransferRecipe):
    """Every number that can change a detection score."""

    pyramid: Literal["simple", "fpn"]
    """simple: all levels from the last block; fpn: one tap a level, and a top-down FPN"""
    taps: Annotated[tuple[int, ...], Within(0, 1000)]
    """blocks whose maps the pyramid takes, first to last, 0-based"""
    window_size: Annotated[int | None, Within(1, 1024)]
    """side of the attention windows, in tokens; None: every block attends globally"""
    global_blocks: Annotated[tuple[int, ...], Within(0, 1000)]
    """blocks that attend globally, 0-based"""
    relative_position: Literal["none", "decomposed", "shared"]
    """decomposed: height and width tables in each block; shared: one bias table for all windowed
    blocks and one for all global ones; either starts at zero"""
    patch_size: Annotated[int, Within(1, 256)]
    """side of a patch in pixels; weights of another size are resized"""
    norm: Literal["layer", "batch"]
    """norm of pyramid and heads: channel-wise layer norm, or synchronised batch norm"""
    pyramid_channels: Width
    """channels of the pyramid and of the heads' convolutions"""
    box_head_convs: Layers
    """convolutions of the box head, before its fully connected layer"""
    box_head_dim: Width
    """width of the box head's fully connected layer"""
    mask_head_convs: Layers
    """convolutions of the mask head, before the upsampling one"""
    anchor_sizes: Annotated[tuple[int, ...], Within(1, 16_384)]
    """side of the anchors of each pyramid level, pixels"""
    rpn_batch: Count
    """anchors per image in the proposal losses, up to half of them positive"""
    roi_batch: Count
    """proposals per image in the head losses, up to a quarter of them positive"""
    rpn_candidates: Annotated[tuple[int, int], Within(1, MOST)]
    """best anchors of each level that meet non-maximum suppression: training, test"""
    proposals: Count
    """proposals per image after it"""
    max_detections: Annotated[int, Within(1, 100)]
    """detections per image"""
    score_threshold: Share
    """least score of a detection"""
    nms_threshold: Share
    """IoU above which the lower-scored of two detections of a class is dropped"""
    min_scale: Annotated[float, Within(0.01, 100)]
    """large-scale jitter: smallest side of the resized image / image_size"""
    max_scale: Annotated[float, Within(0.01, 100)]
    """and the largest"""
    flip_prob: Share
    """probability of a horizontal flip"""
    no_decay: tuple[Kind, ...]
    """parameters exempt from weight decay"""
    epoch_images: Annotated[int | None, Within(1, 1e9)]
    """images that count as an epoch of the official training set; other data count their own"""
    background_images: bool = False
    """train on images without objects too (detectron2's filter_empty_annotations=False)"""
    engine: Literal["torchvision", "detectron2"]
    """whose Mask R-CNN code runs; weights, pyramid and recipe are the same"""

    def __post_init__(self) -> None:
        super().__post_init__()
        depth = size_of(self.backbone).depth
        within = all(0 <= block < depth for block in (*self.taps, *self.global_blocks))
        require(self, "taps", within, f"blocks 0 to {depth - 1}, global_blocks likewise")
        require(self, "taps", depth - 1 in self.taps, f"the last block, {depth - 1}, among them")
        wanted = {"simple": 1, "fpn": 4}[self.pyramid]
        require(self, "taps", len(self.taps) == wanted, f"{wanted} for pyramid {self.pyramid}")
        coarsest = 4 * self.patch_size  # the last level has a quarter of the patches' stride
        require(
            self,
            "image_size",
            self.image_size % coarsest == 0,
            f"a multiple of {coarsest}, the stride of the coarsest pyramid level",
        )
        require(self, "anchor_sizes", len(self.anchor_sizes) == 5, "five, one a pyramid level")
        eights = self.pyramid_channels % 8 == 0
        require(self, "pyramid_channels", eights, "a multiple of 8, as accelerators want it")
        dim = size_of(self.backbone).embed_dim
        grouped = self.pyramid == "simple" or dim % NUM_GROUPS == 0
        simple = f"simple: group norm does not divide the width {dim} of {self.backbone}"
        require(self, "pyramid", grouped, simple)
        require(self, "min_scale", self.min_scale <= self.max_scale, "above 0, up to max_scale")

    def idle(self) -> dict[str, str]:
        everywhere = {"global_blocks": "no window_size"} if self.window_size is None else {}
        return super().idle() | everywhere

    def backbone_options(self) -> dict[str, Any]:
        return super().backbone_options() | {
            "dense": Dense(
                window_size=self.window_size,
                global_blocks=self.global_blocks if self.window_size else (),
                relative_position=self.relative_position,
                patch_size=self.patch_size,
                # 2111.11429 resizes positions once; ViTDet keeps the pre-training grid.
                resize_position="load" if self.pyramid == "fpn" else "forward",
                # And it gives weights that have no positions, as BEiT's, random ones.
                add_positions=self.pyramid == "fpn",
            )
        }


def recipe_type(protocol: str) -> type[CocoRecipe]:
    """The class of a protocol's recipes."""
    return CocoRecipe


COMMON = (
    said_by("ours: bf16 needs no loss scaling; d2 uses fp16 with it", precision="bf16")
    | said_by("ours: as many as the smallest GPUs of the reference hold", device_batch=1)
    | said_by("Li21 and ViTDet", image_size=1024, batch_size=64, optimizer="adamw")
    | said_by("Li21 and ViTDet", min_scale=0.1, max_scale=2.0, betas=(0.9, 0.999))
    | said_by("d2 vitdet (118,000 in its epoch)", epoch_images=118_000)
    | said_by("Li21 and ViTDet name none", clip_grad=None, ema_decay=None, min_lr=0.0)
    | said_by("Li21 and ViTDet", patch_size=16, box_head_convs=4)
    | said_by("d2 configs/common/models/mask_rcnn_fpn.py", box_head_dim=1024, mask_head_convs=4)
    | said_by("d2 configs/common/models/mask_rcnn_fpn.py", pyramid_channels=256)
    | said_by("d2 configs/common/models/mask_rcnn_fpn.py", anchor_sizes=(32, 64, 128, 256, 512))
    | said_by("d2 configs/common/models/mask_rcnn_fpn.py", rpn_batch=256, roi_batch=512)
    | said_by("d2 configs/common/models/mask_rcnn_fpn.py", rpn_candidates=(2000, 1000))
    | said_by("d2 configs/common/models/mask_rcnn_fpn.py", proposals=1000, score_threshold=0.05)
    | said_by("d2 modeling/roi_heads/fast_rcnn.py", nms_threshold=0.5, max_detections=100)
    | said_by("d2 data/transforms (RandomFlip)", flip_prob=0.5)
    | said_by("d2 data/build.py (filter_empty_annotations)", background_images=False)
    | said_by("ours: installs everywhere", engine="torchvision")
)


def vitdet() -> Sourced:
    """Simple feature pyramid, decomposed relative position, layer-norm heads, layer decay.

    Expected box / mask AP from MAE weights: ViT-B 51.6 / 45.9, ViT-L 55.5 / 49.2, ViT-H
    56.7 / 50.2 (detectron2, projects/ViTDet/README.md). ViT-H's positions stay at the 16 x 16 of
    its pre-training with patches of 14 pixels, where detectron2's start from 14 x 14.
    """
    return (
        COMMON
        | said_by("d2 vitdet (1e-4 at batch 64)", base_lr=4e-4)
        | said_by("d2 vitdet", weight_decay=0.1, schedule="step")
        | said_by("d2 vitdet (8/9 and 26/27 of the steps)", milestones=(8 / 9, 26 / 27))
        | said_by("d2 vitdet (0.001)", warmup_start=0.001)
        | said_by("d2 vitdet", pyramid="simple", relative_position="decomposed", norm="layer")
        | said_by("d2 vitdet", window_size=14, no_decay=("backbone_norm", "pos_embed"))
    )


def fpn() -> Sourced:
    """Four taps, a group-norm adapter and an FPN, shared relative position, batch-norm heads.

    Expected box / mask AP from MAE weights: ViT-B 50.3 / 44.9, ViT-L 53.3 / 47.2 (MAE, Table 4).
    The batch norm is synchronised over the images that all processes hold in one forward pass.
    BEiT's weights, which have no absolute positions, get random ones (Li21, section 3.1). Random
    weights are drawn as MAE's encoder is, Li21's as BEiT's code does it.
    Whether the cosine begins after the warmup, as here, or at step 0, as MIMDet's, Li21 does not
    say.
    """
    return (
        COMMON
        | said_by("Li21 (8e-5 at batch 64; 1.6e-4 for MoCo v3 and random weights)", base_lr=3.2e-4)
        | said_by("Li21 (0.2 for random weights)", weight_decay=0.1)
        | said_by("Li21", schedule="cosine", milestones=(), warmup_epochs=0.25, epochs=100)
        | said_by("MIMDet (0.001)", warmup_start=0.001)
        | said_by("Li21 (none is named)", layer_decay=1.0)
        | said_by("Li21", pyramid="fpn", relative_position="shared", norm="batch", window_size=14)
        | said_by("MIMDet; Li21 names none", no_decay=("norm", "pos_embed", "relative_position"))
    )


WARMUP = 250 * 64 / 118_000
"""epochs of detectron2's 250 warmup steps"""

BY_SIZE: dict[str, dict[str, Sourced]] = {
    "mask_rcnn-vitdet": {
        "vit_b": said_by("d2 vitdet", drop_path=0.1, layer_decay=0.7, epochs=100)
        | said_by("d2 vitdet (250 steps)", warmup_epochs=WARMUP),
        "vit_l": said_by("d2 vitdet", drop_path=0.4, layer_decay=0.8, epochs=100)
        | said_by("d2 vitdet (250 steps)", warmup_epochs=WARMUP),
        "vit_h": said_by("d2 vitdet", drop_path=0.5, layer_decay=0.9, epochs=75)
        | said_by("d2 vitdet (187.5 steps: a share of the schedule)", warmup_epochs=0.75 * WARMUP)
        | said_by("d2 vitdet (H decays every parameter)", no_decay=())
        | said_by("ViTDet; but positions keep MAE's 16 x 16, d2's have 14 x 14", patch_size=16),
    },
    "mask_rcnn-fpn": {
        "vit_b": said_by("Li21", drop_path=0.1),
        "vit_l": said_by("Li21", drop_path=0.3),
        "vit_h": said_by("ours: ViT-L's value; Li21 has no ViT-H", drop_path=0.3),
    },
}
"""what differs between the sizes"""

MINIATURE: dict[str, Any] = {
    "image_size": 96,
    "patch_size": 8,
    "epochs": 5,
    "batch_size": 4,
    "device_batch": 4,
    "warmup_epochs": 1.0,
    "warmup_start": 0.001,
    "base_lr": 6.4e-2,  # 1e-3 at batch 4
    "layer_decay": 1.0,
    "drop_path": 0.0,
    "precision": "fp32",
    "window_size": None,
    "pyramid_channels": 32,
    "box_head_convs": 1,
    "box_head_dim": 128,
    "mask_head_convs": 1,
    "anchor_sizes": (8, 16, 32, 64, 128),
    "rpn_batch": 64,
    "roi_batch": 32,
    "rpn_candidates": (200, 200),
    "proposals": 100,
    "min_scale": 0.8,
    "max_scale": 1.25,
    "epoch_images": None,
}
"""vit_mini on the miniature world: what differs from the published recipe"""


def scratch_note(protocol: str, backbone: str) -> str | None:
    """What Li21 does otherwise with random weights, if this is its protocol and no miniature."""
    if protocol != "mask_rcnn-fpn" or backbone == "vit_mini":
        return None
    return (
        "2111.11429 trains random weights with other numbers: --base-lr 0.00064 --weight-decay 0.2 "
        "(MoCo v3 weights with the first alone) and the best of --epochs 100, 200 and 400, which "
        "tables will mark"
    )


QUARTERS = 4


def taps(pyramid: str, depth: int) -> tuple[int, ...]:
    """Blocks at one, two, three and four quarters of the depth, or the last one alone."""
    quarters = tuple(depth * quarter // QUARTERS - 1 for quarter in (1, 2, 3, 4))
    return quarters if pyramid == "fpn" else quarters[-1:]


def recipe(task: str, backbone: str, protocol: str) -> CocoRecipe:
    """The recipe of a protocol, for example ("coco", "vit_b", "mask_rcnn-vitdet").

    Raises `TaskError` with near matches for a backbone or protocol that has none.
    """
    return made(CocoRecipe, sourced(task, backbone, protocol))


def sourced(task: str, backbone: str, protocol: str) -> Sourced:
    """Every recipe field with its value and source, in the order of the fields."""
    check_known("protocol", protocol, list(PROTOCOLS))
    sizes = BY_SIZE[protocol]
    row = row_of(backbone, sizes)
    rows = {"mask_rcnn-vitdet": vitdet, "mask_rcnn-fpn": fpn}[protocol]()
    rows = for_backbone(rows | sizes[row], backbone, row)
    if backbone == "vit_mini":
        rows |= said_by("ours: tuned on the miniature world", **MINIATURE)
    depth = size_of(backbone).depth
    if depth < QUARTERS:
        raise TaskError(
            f"{task} with {backbone}: it has {depth} blocks; expected {QUARTERS} at least, for "
            "maps and global attention at the quarters of the depth"
        )
    blocks = "Li21 and ViTDet: at the quarters of the depth"
    rows |= said_by(blocks, taps=taps(rows["pyramid"][0], depth), global_blocks=taps("fpn", depth))
    rows |= said_by("ours: what was asked for", protocol=f"{task}/{protocol}@1", backbone=backbone)
    return complete(CocoRecipe, rows)
