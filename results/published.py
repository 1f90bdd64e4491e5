"""Published numbers, each with its source, kept as data in `published.csv`."""

import csv
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from results.errors import ResultsError

CSV_FILE = Path(__file__).with_name("published.csv")

SOURCES = {
    "mae2021": ("MAE paper", None),
    "mae_repo": ("mae repo", "github.com/facebookresearch/mae"),
    "mocov3_2021": ("MoCo v3 paper", None),
    "mocov3_repo": ("moco-v3 repo", "github.com/facebookresearch/moco-v3"),
    "beit2021": ("BEiT paper", None),
    "beit_repo": ("beit repo", "github.com/microsoft/unilm, folder beit"),
    "dino2021": ("DINO paper", None),
    "dino_repo": ("dino repo", "github.com/facebookresearch/dino"),
    "li2021_det": ("ViT detection paper", None),
    "vitdet2022": ("ViTDet paper", None),
    "vitdet_repo": ("ViTDet repo", "github.com/facebookresearch/detectron2"),
}
"""Key in the file -> a short title, and the address of what is not a paper."""

SCORES = ("top1", "top5", "miou", "ap_box", "ap_mask", "mce")
"""Metrics that are scores; the file also holds hours, speed-ups and spreads."""


class Published(BaseModel):
    """One number that somebody printed, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: str
    """key of SOURCES"""
    arxiv: str
    """id of the paper, or of the paper a repository belongs to"""
    locator: str
    """table, figure, section or file inside the source"""
    method: str
    pretrain_data: str
    backbone: str
    task: str
    protocol: str
    """the source's protocol in our words; not one of our versioned protocol ids"""
    metric: str
    value: float
    """percentages are 0 to 100"""
    note: str
    status: Literal["seen", "recalled"]
    """seen in the source, or only remembered and not confirmed there"""
    decimals: int
    """digits after the point, as printed"""

    @property
    def title(self) -> str:
        """Short name of the source."""
        return SOURCES[self.source][0]

    @property
    def citation(self) -> str:
        """Who printed it, and where."""
        title, address = SOURCES[self.source]
        where = f"{address} (code of arXiv {self.arxiv})" if address else f"arXiv {self.arxiv}"
        return f"{title}: {where}, {self.locator}"


def published(
    task: str | None = None,
    protocol: str | None = None,
    backbone: str | None = None,
    metric: str | None = None,
    *,
    include_recalled: bool = False,
) -> list[Published]:
    """The rows that match every argument given, in the order of the file.

    Numbers that nobody could confirm (status "recalled") are left out unless asked for.
    """
    wanted = {"task": task, "protocol": protocol, "backbone": backbone, "metric": metric}
    return [
        row
        for row in _load(CSV_FILE)
        if (include_recalled or row.status == "seen")
        and all(value is None or getattr(row, key) == value for key, value in wanted.items())
    ]


@functools.cache
def _load(path: Path) -> tuple[Published, ...]:
    names = [name for name in Published.model_fields if name != "decimals"]
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        if sorted(reader.fieldnames or ()) != sorted(names):
            raise ResultsError(f"{path.name}: columns are {reader.fieldnames}; expected {names}")
        return tuple(_row(row, f"{path.name} line {reader.line_num}") for row in reader)


def _row(row: dict[str, str], where: str) -> Published:
    if row["source"] not in SOURCES:
        raise ResultsError(f"{where}: source {row['source']!r} has no title in published.SOURCES")
    decimals = len(row["value"].partition(".")[2])
    try:
        return Published.model_validate({**row, "decimals": decimals})
    except ValidationError as error:
        detail = error.errors()[0]
        raise ResultsError(f"{where}, {detail['loc'][0]}: {detail['msg']}") from error


@dataclass(frozen=True)
class Headline:
    """The place in a source whose rows stand beside the measured ones of a protocol."""

    source: str
    locator: str
    task: str
    protocol: str
    """as `published.csv` names it"""
    same_recipe: str
    """the method that was scored with this very protocol; others used recipes of their own.
    Empty: no one can tell"""
    suffix: str = ""
    """of the backbone's name, where `published.csv` tells an input size by it"""


_FINE_GRAINED = ("inat2017", "inat2018", "inat2019", "places205", "places365")
_ROBUSTNESS = ("imagenet_a", "imagenet_c", "imagenet_r", "imagenet_sketch")
_LARGE = "_448"

HEADLINES: dict[str, tuple[Headline, ...]] = {
    "imagenet1k/finetune@1": (
        Headline("mae2021", "Table 3", "imagenet1k", "finetune", "MAE"),
        Headline("mae_repo", "FINETUNE.md Evaluation", "imagenet1k", "finetune", "MAE"),
    ),
    # The body of the MAE paper prints no linear result at 1600 epochs; its appendix does.
    "imagenet1k/linear@1": (
        Headline("mae2021", "Table 12", "imagenet1k", "linear", "MAE"),
        Headline("mae_repo", "FINETUNE.md Linear Probing", "imagenet1k", "linear", "MAE"),
    ),
    # Table 3 repeats the results of the recipe in Table 11 (with EMA).
    "imagenet1k/scratch@1": (
        Headline("mae2021", "Table 3", "imagenet1k", "supervised_scratch", "scratch"),
    ),
    # The MAE paper searched rates for each entry and printed none of them, nor layer decay and drop
    # path, so that no run can be said to follow its very recipe.
    **{
        f"ade20k/{protocol}@1": (Headline("mae2021", "Table 5", "ade20k", "upernet", ""),)
        for protocol in ("upernet-512-160k", "upernet-512-100ep")
    },
    "coco/mask_rcnn-fpn@1": (
        Headline("mae2021", "Table 4", "coco", "mask_rcnn", "MAE"),
        Headline("li2021_det", "Table 1", "coco", "mask_rcnn", "MAE"),
    ),
    # The paper's table and its released models differ by a tenth; the code is the models'.
    "coco/mask_rcnn-vitdet@1": (
        Headline("vitdet_repo", "projects/ViTDet/README.md", "coco", "mask_rcnn", "MAE"),
        Headline("vitdet2022", "Table 5", "coco", "mask_rcnn", "MAE"),
    ),
    "imagenet1k/finetune-448@1": (
        Headline("mae2021", "Table 3", "imagenet1k", "finetune", "", _LARGE),
    ),
    # Rates and epochs of iNaturalist and Places, and all of 448 pixels but the size, were never
    # published.
    **{
        f"{task}/finetune{'-448' if suffix else ''}@1": (
            Headline("mae2021", "Table 6", task, "finetune", "", suffix),
        )
        for task in _FINE_GRAINED
        for suffix in ("", _LARGE)
    },
    **{
        f"{task}/finetune{'-448' if suffix else ''}@1": (
            Headline("mae2021", "Table 13", task, "finetune", "" if suffix else "MAE", suffix),
        )
        for task in _ROBUSTNESS
        for suffix in ("", _LARGE)
    },
    **{
        f"{task}/scratch@1": (
            Headline("mae2021", "Table 13 (bottom)", task, "supervised_scratch", "scratch"),
        )
        for task in _ROBUSTNESS
    },
    # Other people's classifiers, tested as they are.
    "imagenet1k/released@1": (
        Headline("mae_repo", "FINETUNE.md Evaluation", "imagenet1k", "finetune", "MAE"),
    ),
    # The paper tuned the epochs of each point; its point without a trained block is linear probing.
    # Version 1 of ours erased parts of images, which the paper does not.
    **{
        f"imagenet1k/partial-{count}@{version}": (
            Headline("mae2021", "Figure 9", "imagenet1k", f"partial-{count}", ""),
        )
        for count in (0, 1, 2, 4, 6, 12, 18, 24)
        for version in (2, 1)
    },
    **{
        f"imagenet1k/partial-0.5@{version}": (
            Headline("mae2021", "Section 4.3 text", "imagenet1k", "partial-0.5", ""),
        )
        for version in (2, 1)
    },
    "imagenet1k/knn@1": (
        Headline("dino2021", "Table 2 (also repo README)", "imagenet1k", "knn", "DINO"),
    ),
}
"""Protocol id -> where its headline numbers are printed, the first being the one to subtract.

Chosen by locator, so that the ablations of the same paper (other masks, decoders, targets or
schedules; Tables 1, 2 and 7, Figures 5 to 9) and single seeds never stand in a comparison.
"""


def headline(
    protocol: str, backbone: str, rows: Iterable[Published] | None = None
) -> list[Published]:
    """The published scores to compare runs of one protocol id and backbone with.

    In the order of HEADLINES; empty for a protocol without an entry. `rows` defaults to all
    confirmed rows.
    """
    pool = published() if rows is None else list(rows)
    return [
        row.model_copy(update={"backbone": backbone})
        for place in HEADLINES.get(protocol, ())
        for row in pool
        if row.backbone == backbone + place.suffix and row.metric in SCORES and _is_at(row, place)
    ]


def same_recipe(protocol: str, row: Published) -> bool:
    """Whether `row` was scored with the very protocol, so that a difference means something."""
    return any(
        _is_at(row, place) and row.method == place.same_recipe
        for place in HEADLINES.get(protocol, ())
    )


def _is_at(row: Published, place: Headline) -> bool:
    return (row.source, row.locator, row.task, row.protocol) == (
        place.source,
        place.locator,
        place.task,
        place.protocol,
    )
