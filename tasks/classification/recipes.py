"""Classification recipes: every number with its source. Imports no torch.

Sources: "MAE Table 9" is a table of the paper (2111.06377); "mae FINETUNE.md" is a file of
facebookresearch/mae @efb2a80; "ours" is a decision of this project.

The same in every recipe: bicubic interpolation, crop aspect ratios 3/4 to 4/3, erasing of one
rectangle per image with normal noise, and, where mixup or cutmix is on, one of them for every
batch as a whole.
"""

import re
from dataclasses import dataclass, fields
from typing import Any, Literal

from tasks import check_known
from tasks.classification.datasets import DATASETS
from tasks.recipe import Sourced, TransferRecipe, require, said_by

PROTOCOLS = {
    "finetune": "all weights train, from a pre-trained backbone",
    "linear": "a linear classifier on the frozen class token",
    "scratch": "all weights train, from random ones: the supervised baseline",
}
"""protocol -> what trains"""

RAND_AUGMENT = re.compile(r"rand(-(m|n|p|mstd|mmax|inc)\d+(\.\d+)?)*")


@dataclass(frozen=True, kw_only=True)
class ClassificationRecipe(TransferRecipe):
    """Every number that can change a classification score."""

    trained_blocks: float | None
    """last blocks that train, 0.5 being the MLP half of the last one; None: the whole backbone"""
    pooling: Literal["patches", "cls"]
    """patches: mean of the patch tokens, a new layer norm; cls: class token, the backbone's norm"""
    head_batch_norm: bool
    """batch norm without weights (eps 1e-6, statistics per device) before the classifier"""
    head_init_std: float
    """standard deviation of the classifier's initial weights (truncated normal)"""
    min_crop_area: float
    """smallest share of an image's area that a training crop takes; the largest is 1"""
    oversize_crop: Literal["redraw", "clip"]
    """where a drawn crop exceeds the image: redraw up to ten times, or clip it to the image"""
    flip_prob: float
    """probability of a horizontal flip"""
    rand_augment: str | None
    """RandAugment in timm's notation, for example rand-m9-mstd0.5-inc1; None: off"""
    erase_prob: float
    """probability that a rectangle of an image is erased"""
    mixup: float
    """alpha of mixup's beta distribution; 0 switches it off"""
    cutmix: float
    """alpha of cutmix's beta distribution; 0 switches it off"""
    mix_switch_prob: float
    """probability of cutmix rather than mixup where both are on"""
    label_smoothing: float
    """share of the target spread evenly over all classes"""
    test_crop_ratio: float | None
    """side of the test crop / side of the resized image; None: 0.875 up to 224 pixels, 1 above"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("flip_prob", "erase_prob", "mix_switch_prob"):
            require(self, name, 0 <= getattr(self, name) <= 1, "0 to 1")
        smoothing = self.label_smoothing
        require(self, "label_smoothing", 0 <= smoothing < 1, "0 or more and below 1")
        for name in ("mixup", "cutmix"):
            require(self, name, getattr(self, name) >= 0, "0 or more")
        require(self, "min_crop_area", 0 < self.min_crop_area <= 1, "above 0 and at most 1")
        require(self, "head_init_std", self.head_init_std > 0, "above 0")
        require(self, "pooling", self.pooling in ("patches", "cls"), "patches or cls")
        require(self, "oversize_crop", self.oversize_crop in ("redraw", "clip"), "redraw or clip")
        blocks = self.trained_blocks
        whole = blocks is None or blocks == 0.5 or (blocks >= 0 and blocks == int(blocks))
        require(self, "trained_blocks", whole, "None, 0, 0.5, or a whole number of blocks")
        frozen = blocks == 0
        require(self, "drop_path", not (frozen and self.drop_path), "0 with a frozen backbone")
        policy = self.rand_augment
        require(
            self,
            "rand_augment",
            policy is None or RAND_AUGMENT.fullmatch(policy) is not None,
            "None or timm's notation, for example rand-m9-mstd0.5-inc1",
        )
        mixes = self.mixup > 0 or self.cutmix > 0
        even = self.device_batch % 2 == 0
        require(self, "device_batch", even or not mixes, "even, for mixup and cutmix pair images")
        many = self.device_batch > 1
        require(self, "device_batch", many or not self.head_batch_norm, "2 or more for batch norm")
        ratio = self.test_crop_ratio
        require(self, "test_crop_ratio", ratio is None or 0 < ratio <= 1, "None or in (0, 1]")

    @property
    def crop_ratio(self) -> float:
        """Side of the test crop / side of the resized image (mae util/datasets.py)."""
        if self.test_crop_ratio is not None:
            return self.test_crop_ratio
        return 224 / 256 if self.image_size <= 224 else 1.0


def recipe_type(protocol: str) -> type[ClassificationRecipe]:
    """The class of a protocol's recipes."""
    return ClassificationRecipe


COMMON = (
    said_by("mae util/lr_sched.py", schedule="cosine", milestones=(), warmup_start=0.0)
    | said_by("ours: bf16 needs no loss scaling; mae uses fp16 with it", precision="bf16")
    | said_by("timm default", flip_prob=0.5, oversize_crop="redraw")
    | said_by("mae util/datasets.py", test_crop_ratio=None)
)


def finetune() -> Sourced:
    """End-to-end fine-tuning as released for checkpoints with normalised pixels.

    Expected top-1 from the released checkpoints: ViT-B 83.664 (mean of four seeds 83.57, std
    0.08), ViT-L 85.952 (mean of four 85.87, std 0.07), ViT-H 86.928 (mae FINETUNE.md). MAE
    Table 9 differs (B: base lr 1e-3, layer decay 0.75; drop path L 0.1, H 0.2): it is for
    un-normalised pixels.
    """
    return (
        COMMON
        | said_by("mae FINETUNE.md", batch_size=1024, weight_decay=0.05)
        | said_by("mae main_finetune.py", image_size=224, clip_grad=None)
        | said_by("mae FINETUNE.md", mixup=0.8, cutmix=1.0, erase_prob=0.25)
        | said_by("mae main_finetune.py", warmup_epochs=5.0, min_lr=1e-6, mix_switch_prob=0.5)
        | said_by("mae main_finetune.py", rand_augment="rand-m9-mstd0.5-inc1")
        | said_by("mae main_finetune.py", label_smoothing=0.1, head_init_std=2e-5)
        | said_by("mae main_finetune.py", ema_decay=None, trained_blocks=None)
        | said_by("MAE Table 9", optimizer="adamw", betas=(0.9, 0.999))
        | said_by("timm default", min_crop_area=0.08)
        | said_by("mae models_vit.py", pooling="patches", head_batch_norm=False)
    )


def linear() -> Sourced:
    """Linear probing of the class token.

    Expected top-1 from the released checkpoints: ViT-B 67.8, ViT-L 76.0, ViT-H 77.2 (mae
    FINETUNE.md, which finds 50 epochs enough for L and H).
    """
    return (
        COMMON
        | said_by("MAE Table 10", optimizer="lars", base_lr=0.1, weight_decay=0.0)
        | said_by("MAE Table 10", batch_size=16384, epochs=90, warmup_epochs=10.0)
        | said_by("mae FINETUNE.md", device_batch=512)
        | said_by("MAE Table 10; LARS uses the first as momentum", betas=(0.9, 0.999))
        | said_by("MAE Table 10", rand_augment=None, erase_prob=0.0)
        | said_by("MAE Table 10", mixup=0.0, cutmix=0.0, label_smoothing=0.0)
        | said_by("ours: without effect, mixup is off", mix_switch_prob=0.5)
        | said_by("ours: without effect, the backbone is frozen", layer_decay=1.0)
        | said_by("mae main_linprobe.py", min_lr=0.0, drop_path=0.0, ema_decay=None)
        | said_by("mae main_linprobe.py", image_size=224, flip_prob=0.5, clip_grad=None)
        | said_by("mae main_linprobe.py", trained_blocks=0.0, head_batch_norm=True)
        | said_by("mae main_linprobe.py", head_init_std=0.01, min_crop_area=0.08)
        | said_by("mae main_linprobe.py", test_crop_ratio=None)
        | said_by("mae util/crop.py", oversize_crop="clip")
        | said_by("mae FINETUNE.md", pooling="cls")
    )


def scratch() -> Sourced:
    """Supervised training from random weights.

    Expected top-1: ViT-B 82.3, ViT-L 82.6, ViT-H 83.1 (MAE, Section A.2).
    """
    unnamed = "ours: as in fine-tuning; MAE Table 11 names none"
    return (
        COMMON
        | said_by("MAE Table 11", optimizer="adamw", base_lr=1e-4, weight_decay=0.3)
        | said_by("MAE Table 11", betas=(0.9, 0.95), batch_size=4096, warmup_epochs=20.0)
        | said_by("MAE Table 11", label_smoothing=0.1, mixup=0.8, cutmix=1.0, ema_decay=0.9999)
        | said_by("MAE Table 11, (9, 0.5) in timm's notation", rand_augment="rand-m9-mstd0.5-inc1")
        | said_by("MAE Table 11 names none", erase_prob=0.0, layer_decay=1.0, clip_grad=None)
        | said_by("MAE Table 11 (cosine decay without a floor)", min_lr=0.0)
        | said_by("MAE Section A.2", trained_blocks=None)
        | said_by(unnamed, device_batch=32, image_size=224, min_crop_area=0.08, mix_switch_prob=0.5)
        | said_by(unnamed, pooling="patches", head_batch_norm=False, head_init_std=2e-5)
    )


BY_SIZE: dict[str, dict[str, Sourced]] = {
    "finetune": {
        "vit_b": said_by(
            "mae FINETUNE.md",
            base_lr=5e-4,
            layer_decay=0.65,
            drop_path=0.1,
            epochs=100,
            device_batch=32,
        ),
        "vit_l": said_by(
            "mae FINETUNE.md",
            base_lr=1e-3,
            layer_decay=0.75,
            drop_path=0.2,
            epochs=50,
            device_batch=32,
        ),
        "vit_h": said_by(
            "mae FINETUNE.md",
            base_lr=1e-3,
            layer_decay=0.75,
            drop_path=0.3,
            epochs=50,
            device_batch=16,
        ),
    },
    "linear": {"vit_b": {}, "vit_l": {}, "vit_h": {}},
    "scratch": {
        "vit_b": said_by("MAE Table 11", epochs=300, drop_path=0.1),
        "vit_l": said_by("MAE Table 11", epochs=200, drop_path=0.2),
        "vit_h": said_by("MAE Table 11", epochs=200, drop_path=0.2),
    },
}
"""what differs between the published sizes"""

UNPUBLISHED = "ours: ViT-B's value; none is published"

MINIATURE_COMMON: dict[str, Any] = {
    "image_size": 32,
    "epochs": 40,
    "batch_size": 100,
    "device_batch": 100,
    "warmup_epochs": 5.0,
    "precision": "fp32",
    "drop_path": 0.0,
    "min_crop_area": 0.5,
    "oversize_crop": "redraw",
    "rand_augment": None,
    "erase_prob": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "ema_decay": None,
}
MINIATURE_ADAMW: dict[str, Any] = {
    "optimizer": "adamw",
    "base_lr": 2.5e-3,  # about 1e-3 at batch 100
    "min_lr": 1e-6,
    "weight_decay": 0.05,
    "betas": (0.9, 0.999),
    "label_smoothing": 0.1,
}
MINIATURE: dict[str, dict[str, Any]] = {
    "finetune": MINIATURE_COMMON | MINIATURE_ADAMW | {"layer_decay": 1.0},
    "linear": MINIATURE_COMMON
    | {
        "optimizer": "adamw",  # LARS is for batches of thousands
        "base_lr": 1e-2,  # about 4e-3 at batch 100
        "weight_decay": 0.0,
    },
    "scratch": MINIATURE_COMMON | MINIATURE_ADAMW | {"layer_decay": 1.0},
}
"""vit_mini on the miniature world: what differs from the published recipe"""


def recipe(task: str, backbone: str, protocol: str) -> ClassificationRecipe:
    """The recipe of a protocol, for example ("imagenet1k", "vit_b", "finetune").

    Raises `TaskError` with near matches for a task, backbone or protocol that has none.
    """
    values = {name: value for name, (value, _) in sourced(task, backbone, protocol).items()}
    return ClassificationRecipe(**values)


def sources(task: str, backbone: str, protocol: str) -> dict[str, str]:
    """Where each field of `recipe(task, backbone, protocol)` comes from."""
    return {name: source for name, (_, source) in sourced(task, backbone, protocol).items()}


def sourced(task: str, backbone: str, protocol: str) -> Sourced:
    """Every recipe field with its value and source, in the order of the fields."""
    check_known("classification task", task, list(DATASETS))
    check_known("protocol", protocol, list(PROTOCOLS))
    sizes = BY_SIZE[protocol]
    check_known(f"backbone for {task}/{protocol}", backbone, [*sizes, "vit_s", "vit_t", "vit_mini"])
    rows = {"finetune": finetune, "linear": linear, "scratch": scratch}[protocol]()
    rows |= sizes.get(backbone, sizes["vit_b"])
    if backbone not in sizes:
        rows = {
            name: (value, source if source.startswith("ours") else UNPUBLISHED)
            for name, (value, source) in rows.items()
        }
    if backbone == "vit_mini":
        rows |= said_by("ours: tuned on the miniature world", **MINIATURE[protocol])
    rows |= said_by("ours: what was asked for", protocol=protocol_id(task, protocol))
    rows |= said_by("ours: what was asked for", backbone=backbone)
    return {field.name: rows[field.name] for field in fields(ClassificationRecipe)}


def protocol_id(task: str, protocol: str) -> str:
    """Versioned id; the version rises whenever a recipe's numbers change."""
    return f"{task}/{protocol}@1"
