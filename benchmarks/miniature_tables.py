"""The tables of the MAE paper in miniature: their rows and columns, and what the paper finds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Column = tuple[str, str, str]
"""task, protocol (none: the first of the task), metric"""
TUNED: Column = ("imagenet1k", "finetune", "top1")
PROBED: Column = ("imagenet1k", "linear", "top1")
BOXES: Column = ("coco", "mask_rcnn-fpn", "ap_box")
MASKS: Column = ("coco", "mask_rcnn-fpn", "ap_mask")
VITDET_BOXES: Column = ("coco", "mask_rcnn-vitdet", "ap_box")
VITDET_MASKS: Column = ("coco", "mask_rcnn-vitdet", "ap_mask")
MIOU: Column = ("ade20k", "", "miou")
TRANSFERRED: dict[str, Column] = {
    title: (task, "finetune", "top1")
    for title, task in (
        ("iNat 2017", "inat2017"),
        ("iNat 2018", "inat2018"),
        ("iNat 2019", "inat2019"),
        ("Places205", "places205"),
        ("Places365", "places365"),
    )
}
RANDOM = "scratch"
MAE, MOCO, BEIT, SUPERVISED = "mae", "moco_v3", "beit", "supervised"
ABLATION = "mae-ablation"
"""MAE's weights by the schedule of the ablations"""
METHODS = {RANDOM: "random weights", SUPERVISED: "supervised", MOCO: "MoCo v3", BEIT: "BEiT"}
METHODS |= {MAE: "MAE"}


@dataclass(frozen=True)
class Layout:
    """A table of the paper."""

    number: str
    title: str
    rows: Mapping[str, str]
    """weights -> label, in the paper's order"""
    columns: Mapping[str, Column]
    ablates: bool = False


@dataclass(frozen=True)
class Case:
    """A row of an ablation."""

    label: str
    changes: Mapping[str, Any]
    """fields of MAE's recipe; none: the miniature world's own"""

    @property
    def weights(self) -> str:
        return "-".join([ABLATION, *(f"{k}-{v}" for k, v in self.changes.items())])


def case(label: str, **changes: Any) -> Case:
    return Case(label, changes)


CASES: dict[str, tuple[str, tuple[Case, ...]]] = {
    "1a": (
        "decoder depth (the paper's 8 of 24 blocks are 2 here)",
        (
            case("1", decoder_depth=1),
            case("2"),
            *(case(str(depth), decoder_depth=depth) for depth in (4, 8, 12)),
        ),
    ),
    "1b": (
        "decoder width (the paper's 512 of 1024 are 64 of 128 here)",
        (
            *(case(str(width), decoder_dim=width) for width in (16, 32)),
            case("64"),
            *(case(str(width), decoder_dim=width) for width in (96, 128)),
        ),
    ),
    "1c": (
        "mask token",
        (case("encoder with [M]", encoder_mask_tokens=True), case("encoder without [M]")),
    ),
    "1d": (
        "reconstruction target",
        (
            case("pixel (without norm)"),
            case("pixel (with norm)", norm_pix=True),
            case("PCA", target="pca"),
            case("dVAE token", target="tokens"),
        ),
    ),
    "1e": (
        "data augmentation",
        (
            case("none", augmentation="none"),
            case("crop, fixed size", augmentation="crop_fixed"),
            case("crop, random size"),
            case("crop + color jitter", augmentation="crop_random_jitter"),
        ),
    ),
    "1f": (
        "mask sampling",
        (
            case("random 75 %"),
            case("block 50 %", mask="block", mask_ratio=0.5),
            case("block 75 %", mask="block"),
            case("grid 75 %", mask="grid"),
        ),
    ),
}
LAYOUTS = (
    *(
        Layout(
            number,
            f"{title}, MAE",
            {each.weights: each.label for each in cases},
            {"fine-tuning": TUNED, "linear probing": PROBED},
            ablates=True,
        )
        for number, (title, cases) in CASES.items()
    ),
    Layout(
        "3",
        "ImageNet-1k",
        {k: v for k, v in METHODS.items() if k != SUPERVISED},
        {"top-1 %": TUNED},
    ),
    Layout("4", "COCO", METHODS, {"box AP": BOXES, "mask AP": MASKS}),
    Layout(
        "4v",
        "COCO by ViTDet, which has no place for BEiT's relative positions (not in the paper)",
        {k: v for k, v in METHODS.items() if k != BEIT},
        {"box AP": VITDET_BOXES, "mask AP": VITDET_MASKS},
    ),
    Layout("5", "ADE20K", METHODS, {"mIoU %": MIOU}),
    Layout("6", "other data sets, top-1 %", METHODS, TRANSFERRED),
    Layout(
        "12", "linear probing on ImageNet-1k", {MOCO: "MoCo v3", BEIT: "BEiT", MAE: "MAE"},
        {"top-1 %": PROBED},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What the paper finds: one of two is better, or both are alike."""

    table: str
    text: str
    column: Column
    first: str
    second: str
    alike: bool = False
    """else the first is better"""


def weights_of(number: str, label: str) -> str:
    return next(each.weights for each in CASES[number][1] if each.label == label)


def ablation(number: str, text: str, first: str, second: str, *columns: Column) -> list[Finding]:
    a, b = weights_of(number, first), weights_of(number, second)
    return [Finding(number, text, column, a, b) for column in columns]


NOT_THERE = ("", " (not in the paper)")

FINDINGS = [
    Finding("1a", "one block of decoder fine-tunes as well", TUNED, *[
        weights_of("1a", label) for label in ("1", "2")], alike=True),
    *ablation("1a", "a deeper decoder probes better", "8", "1", PROBED),
    *ablation("1c", "the encoder is better off without mask tokens", "encoder without [M]",
              "encoder with [M]", TUNED, PROBED),
    *ablation("1d", "normalised pixels are the better target", "pixel (with norm)",
              "pixel (without norm)", TUNED, PROBED),
    *ablation("1d", "normalised pixels beat PCA", "pixel (with norm)", "PCA", TUNED, PROBED),
    Finding("1d", "tokens are no better than normalised pixels", TUNED, *[
        weights_of("1d", label) for label in ("dVAE token", "pixel (with norm)")], alike=True),
    *ablation("1e", "colour jitter does harm", "crop, random size", "crop + color jitter",
              TUNED, PROBED),
    *ablation("1e", "crops help", "crop, random size", "none", TUNED, PROBED),
    *ablation("1f", "random masks beat blocks at 75 %", "random 75 %", "block 75 %",
              TUNED, PROBED),
    *ablation("1f", "random masks beat a grid", "random 75 %", "grid 75 %", TUNED, PROBED),
    *(Finding("3", f"MAE beats {METHODS[other]} when fine-tuned", TUNED, MAE, other)
      for other in (RANDOM, MOCO, BEIT)),
*(Finding("4", f"MAE beats {METHODS[other]}{NOT_THERE[other == RANDOM]}", column, MAE, other)
      for other in (RANDOM, SUPERVISED, MOCO, BEIT) for column in (BOXES, MASKS)),
    *(Finding("4v", f"MAE beats {METHODS[other]}", column, MAE, other)
      for other in (RANDOM, SUPERVISED, MOCO) for column in (VITDET_BOXES, VITDET_MASKS)),
    *(Finding("5", f"MAE beats {METHODS[other]}{NOT_THERE[other == RANDOM]}", MIOU, MAE, other)
      for other in (RANDOM, SUPERVISED, MOCO, BEIT)),
    *(Finding("6", "MAE beats random weights", column, MAE, RANDOM)
      for column in TRANSFERRED.values()),
    Finding("12", "MAE probes better than BEiT", PROBED, MAE, BEIT),
    Finding("12", "MoCo v3 probes better than MAE (Section 4.3)", PROBED, MOCO, MAE),
]  # fmt: skip
