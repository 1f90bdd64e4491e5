"""Classification recipes: every number with its source. Imports no torch.

Sources: "MAE Table 9" is a table of the paper (2111.06377); "mae FINETUNE.md" is a file of
facebookresearch/mae @efb2a80; "mmpretrain" is open-mmlab/mmpretrain @ee7f2e8; "ours" is a decision
of this project.

The same in every recipe: bicubic interpolation, crop aspect ratios 3/4 to 4/3, erasing of one
rectangle per image with normal noise, and, where mixup or cutmix is on, one of them for every
batch as a whole.

For data sets other than ImageNet-1k the paper says that rates and epochs were adjusted (Section
A.5) and prints neither. Here they take ImageNet's recipe, and fine-tuning as many epochs as make
ImageNet's number of steps, rounded to tens, at most 300 (`FINETUNE_EPOCHS`).
"""

from collections.abc import Callable
from typing import Any

import backbones
from tasks import check_known
from tasks.classification import probe_recipes
from tasks.classification.datasets import DATASETS
from tasks.classification.recipe import ClassificationRecipe
from tasks.errors import TaskError
from tasks.face import PARTIAL
from tasks.recipe import Recipe, Sourced, complete, for_backbone, made, row_of, said_by

PROTOCOLS = {
    "finetune": "all weights train, from a pre-trained backbone",
    "finetune-448": "the same at 448 pixels, as the paper does with ViT-H",
    "linear": "a linear classifier on the frozen class token",
    PARTIAL: "the last K blocks train: 0, 0.5 (the MLP of one), 1, ...; partial:all: the curve",
    **probe_recipes.PROTOCOLS,
    "scratch": "all weights train, from random ones: the supervised baseline",
}
"""protocol -> what trains"""
SMALL = "small"
OF_ONE_TASK = {"folder": {SMALL: "all weights train, by a recipe for hundreds of images: minutes"}}
"""task -> further protocols that it alone has"""


def recipe_type(protocol: str) -> type[Recipe]:
    """The class of a protocol's recipes."""
    if protocol in probe_recipes.PROTOCOLS:
        return probe_recipes.recipe_type(protocol)
    return ClassificationRecipe


COMMON = (
    said_by("mae util/lr_sched.py", schedule="cosine", milestones=(), warmup_start=0.0)
    | said_by("ours: bf16 needs no loss scaling; mae uses fp16 with it", precision="bf16")
    | said_by("timm default", flip_prob=0.5, oversize_crop="redraw")
    | said_by("mae util/datasets.py", test_crop_ratio=None)
)


POOLED = (
    "ours: as mae's code fine-tunes; MAE A.1 takes the class token and says that average pooling "
    "works similarly well"
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


def finetune_448() -> Sourced:
    """Fine-tuning at 448 pixels.

    Expected top-1: ViT-H 87.8 (MAE Table 3). The paper states the size alone; the nearest public
    recipe, mmpretrain's, gives 87.3 and equals the released one at 224 pixels. Its batch is
    unclear (8 x 32 in the name, 128 x 32 in the body); its rate fits 1024.
    """
    return (
        finetune()
        | said_by("MAE Table 3", image_size=448)
        | said_by("mae util/datasets.py: no margin above 224 pixels", test_crop_ratio=None)
    )


def partial(blocks: float) -> Sourced:
    """Fine-tuning of the last blocks alone, the others being frozen as in evaluation.

    Expected top-1 of ViT-L after 800 epochs of pre-training: 79.1 for half a block, 81.0 for one,
    84.9 for all 24 (MAE Figure 9 and Section 4.3); its 73.5 for none is linear probing. The paper
    says "the settings of Table 9", which lists no erasing, and tunes the epochs over 50, 100 and
    200. Pooling is the released code's, for all of the curve to differ in the blocks alone. Version
    1 erased as the released fine-tuning does.
    """
    return (
        finetune()
        | said_by("MAE Table 9", base_lr=1e-3, layer_decay=0.75)
        | said_by("MAE Table 9 names none", erase_prob=0.0)
        | said_by(POOLED, pooling="patches")
        | said_by("ours: what was asked for", trained_blocks=blocks)
    )


def small() -> Sourced:
    """Fine-tuning on hundreds of images: our own recipe, and no published protocol.

    Fine-tuning's, but with a batch that hundreds of images fill, and as many epochs as end in
    minutes. The peak rate is fine-tuning's of ViT-B, 2e-3 at a batch of 1024, times the square root
    of 32/1024 (for AdamW: Malladi et al., 2205.10287). With so few steps crops are larger, and
    mixup, cutmix and erasing are off.
    """
    return finetune() | said_by(
        "ours: for hundreds of images",
        batch_size=32,
        device_batch=32,
        epochs=30,
        warmup_epochs=3.0,
        base_lr=2.8e-3,
        min_crop_area=0.35,
        mixup=0.0,
        cutmix=0.0,
        erase_prob=0.0,
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
        | said_by(unnamed, head_batch_norm=False, head_init_std=2e-5)
        | said_by(POOLED, pooling="patches")
    )


RELEASED: dict[str, Sourced] = {
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
}
LARGE_INPUT = said_by("ours: four times the tokens", device_batch=8)
AT_224 = "mae FINETUNE.md at 224 pixels; at 448, where none is published, ours"
TUNED = "ours: MAE Table 9's; the paper tunes them over 50, 100 and 200 and prints none"
NEAREST = "mmpretrain configs/mae/benchmarks/vit-huge-p14_32xb8-coslr-50e_in1k-448px.py"
BY_SIZE: dict[str, dict[str, Sourced]] = {
    "finetune": RELEASED,
    "finetune-448": {
        **{
            size: {name: (value, AT_224) for name, (value, _) in RELEASED[size].items()}
            | LARGE_INPUT
            for size in ("vit_b", "vit_l")
        },
        "vit_h": LARGE_INPUT
        | said_by(f"{NEAREST}, if its batch is 1024 (8 x 32 in its name)", base_lr=1e-3)
        | said_by(NEAREST, layer_decay=0.75, drop_path=0.3, epochs=50),
    },
    PARTIAL: {
        "vit_b": said_by("MAE Table 9", drop_path=0.1)
        | said_by(TUNED, epochs=100)
        | said_by("mae FINETUNE.md", device_batch=32),
        "vit_l": said_by("MAE Table 9", drop_path=0.1)
        | said_by(TUNED, epochs=50)
        | said_by("mae FINETUNE.md", device_batch=32),
        "vit_h": said_by("MAE Table 9", drop_path=0.2)
        | said_by(TUNED, epochs=50)
        | said_by("mae FINETUNE.md", device_batch=16),
    },
    "linear": {"vit_b": {}, "vit_l": {}, "vit_h": {}},
    SMALL: {
        size: {name: rows[name] for name in ("layer_decay", "drop_path")}
        for size, rows in RELEASED.items()
    },
    "scratch": {
        "vit_b": said_by("MAE Table 11", epochs=300, drop_path=0.1),
        "vit_l": said_by("MAE Table 11", epochs=200, drop_path=0.2),
        "vit_h": said_by("MAE Table 11", epochs=200, drop_path=0.2),
    },
}
"""what differs between the published sizes"""

FINETUNE_EPOCHS: dict[str, dict[str, int]] = {
    "inat2017": {"vit_b": 220, "vit_l": 110, "vit_h": 110},
    "inat2018": {"vit_b": 290, "vit_l": 150, "vit_h": 150},
    "inat2019": {"vit_b": 300, "vit_l": 240, "vit_h": 240},
    "places205": {"vit_b": 50, "vit_l": 30, "vit_h": 30},
    "places365": {"vit_b": 70, "vit_l": 40, "vit_h": 40},
}
STEPS = (
    "ours: as many steps as on ImageNet, at most 300 epochs, DINO's number (dino issue 171); never "
    "published"
)

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
    "finetune-448": MINIATURE_COMMON | MINIATURE_ADAMW | {"layer_decay": 1.0, "image_size": 64},
    "linear": MINIATURE_COMMON
    | {
        "optimizer": "adamw",  # LARS is for batches of thousands
        "base_lr": 1e-2,  # about 4e-3 at batch 100
        "weight_decay": 0.0,
    },
    PARTIAL: MINIATURE_COMMON | MINIATURE_ADAMW | {"layer_decay": 1.0},
    "scratch": MINIATURE_COMMON | MINIATURE_ADAMW | {"layer_decay": 1.0},
    SMALL: MINIATURE_COMMON
    | MINIATURE_ADAMW
    | {"layer_decay": 1.0, "batch_size": 32, "device_batch": 32, "warmup_epochs": 3.0}
    | {"base_lr": 4.5e-3},  # ImageNet's times the square root of 32/100
}
"""vit_mini on the miniature world: what differs from the published recipe"""


def recipe(task: str, backbone: str, protocol: str) -> ClassificationRecipe:
    """The recipe of a protocol of training, for example ("imagenet1k", "vit_b", "finetune").

    Raises `TaskError` with near matches for a task, backbone or protocol that has none.
    """
    return made(ClassificationRecipe, sourced(task, backbone, protocol))


def sources(task: str, backbone: str, protocol: str) -> dict[str, str]:
    """Where each field of `recipe(task, backbone, protocol)` comes from."""
    return {name: source for name, (_, source) in sourced(task, backbone, protocol).items()}


def sourced(task: str, backbone: str, protocol: str) -> Sourced:
    """Every recipe field with its value and source, in the order of the fields."""
    check_known("classification task", task, list(DATASETS))
    family = family_of(protocol, task)
    if family in probe_recipes.PROTOCOLS:
        return probe_recipes.sourced(task, backbone, protocol)
    sizes = BY_SIZE[family]
    row = row_of(backbone, sizes)
    made: dict[str, Callable[[], Sourced]] = {
        "finetune": finetune,
        "finetune-448": finetune_448,
        "linear": linear,
        PARTIAL: lambda: partial(blocks_of(protocol, backbone)),
        "scratch": scratch,
        SMALL: small,
    }
    rows = made[family]() | sizes[row]
    if family in ("finetune", "finetune-448") and task in FINETUNE_EPOCHS:
        rows |= said_by(STEPS, epochs=FINETUNE_EPOCHS[task][row])
    if task != "imagenet1k":
        rows = {name: (value, elsewhere(source)) for name, (value, source) in rows.items()}
    rows = for_backbone(rows, backbone, row)
    if backbone == "vit_mini":
        rows |= said_by("ours: tuned on the miniature world", **MINIATURE[family])
        if task != "imagenet1k" and family != SMALL:
            rows |= said_by("ours: half of ImageNet's, to be quick", epochs=20)
    if rows["trained_blocks"][0] == 0:
        rows |= said_by("ours: without effect, the backbone is frozen", drop_path=0.0)
    rows |= said_by("ours: what was asked for", protocol=protocol_id(task, protocol))
    rows |= said_by("ours: what was asked for", backbone=backbone)
    return complete(ClassificationRecipe, rows)


def elsewhere(source: str) -> str:
    """The source of a number of ImageNet's recipe that another data set takes."""
    return source if source.startswith("ours") else f"ours: as on ImageNet ({source})"


def family_of(protocol: str, task: str) -> str:
    """The row of the task's protocols that one belongs to: "partial:2" to "partial:K"."""
    if protocol.startswith("partial"):
        return PARTIAL
    check_known("protocol", protocol, [*PROTOCOLS, *OF_ONE_TASK.get(task, {})])
    return protocol


def blocks_of(protocol: str, backbone: str) -> float:
    """K of "partial:K"; `TaskError` unless it is 0, 0.5 or a whole number up to the depth."""
    depth = backbones.size_of(backbone).depth
    _, _, text = protocol.partition(":")
    try:
        blocks = float(text)
    except ValueError:
        blocks = -1.0
    if text != f"{blocks:g}":  # one spelling, for it becomes part of an id
        blocks = -1.0
    if blocks != 0.5 and not (0 <= blocks <= depth and blocks == int(blocks)):
        raise TaskError(
            f"protocol {protocol}: expected partial:K with K the number of last blocks to train, "
            f"0, 0.5 or a whole number up to {depth} for {backbone}; or partial:all for the curve"
        )
    return blocks


def curve(backbone: str) -> list[str]:
    """The protocols of a partial fine-tuning curve: the block counts of MAE's Figure 9."""
    depth = backbones.size_of(backbone).depth
    counts = [0, 0.5, 1, 2, 4, *range(6, depth, 6), depth]
    return [f"partial:{count}" for count in dict.fromkeys(c for c in counts if c <= depth)]


def protocol_id(task: str, protocol: str) -> str:
    """Versioned id; the version rises whenever a recipe's numbers change."""
    version = 2 if family_of(protocol, task) == PARTIAL else 1
    return f"{task}/{protocol.replace(':', '-')}@{version}"
