"""Every published cell of the paper's tables, filled by the run that somebody could make of it.

What each row takes is typed by hand: the flags of `mae-bench pretrain` and the protocol. 193 cells
are numbers of methods (the nine of "previous best" systems are not); a run can fill all but two.
"""

import pytest

from results import Checkpoint, Cost, Named, Record, paper_table, published

SIZES = {
    "ViT-B": ("vit_b", ""),
    "ViT-L": ("vit_l", ""),
    "ViT-H": ("vit_h", ""),
    "ViT-H, 448 pixels": ("vit_h", "-448"),
}
MAE = {"mask_ratio": 0.75, "decoder_depth": 8, "decoder_dim": 512, "min_crop_area": 0.2}
MAE |= {"norm_pix": False, "epochs": 800, "mask": "random", "target": "pixels"}
MAE |= {"encoder_mask_tokens": False, "augmentation": "crop_random"}
SETTINGS = {
    "1a": {str(depth): {"decoder_depth": depth} for depth in (1, 2, 4, 8, 12)},
    "1b": {str(width): {"decoder_dim": width} for width in (128, 256, 512, 768, 1024)},
    "1c": {"encoder with [M]": {"encoder_mask_tokens": True}, "encoder without [M]": {}},
    "1d": {
        "pixel (without norm)": {},
        "pixel (with norm)": {"norm_pix": True},
        "PCA": {"target": "pca"},
        "dVAE token": {"target": "tokens"},
    },
    "1e": {
        "none": {"augmentation": "none", "min_crop_area": 1.0},
        "crop, fixed size": {"augmentation": "crop_fixed"},
        "crop, random size": {"augmentation": "crop_random"},
        "crop + color jitter": {"augmentation": "crop_random_jitter"},
    },
    "1f": {
        "random 75": {},
        "block 50": {"mask": "block", "mask_ratio": 0.5},
        "block 75": {"mask": "block"},
        "grid 75": {"mask": "grid"},
    },
    "2": {
        "with [M] 8": {"encoder_mask_tokens": True},
        "without [M] 8": {},
        "without [M] 1": {"decoder_depth": 1},
    },
    "7": {
        "pixel (without norm)": {"epochs": 1600},
        "pixel (with norm)": {"epochs": 1600, "norm_pix": True},
        "dVAE token": {"epochs": 1600, "target": "tokens"},
    },
}
"""table -> label of a row -> the recipe that it takes, where that is not MAE's"""
METHODS = {"MoCo v3": "moco_v3", "BEiT": "beit", "supervised": "supervised", "MAE": "mae"}
METHODS |= {"DINO": "dino"}
"""as the paper has it -> `--method`, or `--init` of released weights"""
DATA_SETS = {
    "iNat 2017": "inat2017",
    "iNat 2018": "inat2018",
    "iNat 2019": "inat2019",
    "Places205": "places205",
    "Places365": "places365",
    "IN-Corruption (mCE, lower is better)": "imagenet_c",
    "IN-Adversarial": "imagenet_a",
    "IN-Rendition": "imagenet_r",
    "IN-Sketch": "imagenet_sketch",
}
NOBODY = {("12", "iGPT", "iGPT-L", "1362M"), ("12", "iGPT", "iGPT-XL", "6801M")}
"""rows that no run can fill: of a network that is no ViT"""


class Runs:
    """Makes the pre-training and the transfer behind one cell."""

    def __init__(self, make) -> None:
        self.make = make

    def pretrained(self, method: str, backbone: str, **recipe) -> Record:
        recipe = {**(MAE if method == "mae" else {"epochs": 300}), **recipe}
        return self.make(
            name="pretrain",
            kind="pretrain",
            protocol=f"pretrain/{method}@1",
            task="pretrain",
            backbone=backbone,
            init="scratch",
            checkpoint=None,
            recipe=recipe | {"backbone": backbone},
            recipe_hash="ab" * 6,
            metrics={"loss": 0.4},
            cost=Cost(seconds=3600.0, flops_per_image=1e9),
        )

    def transfer(self, before: Record | None, protocol: str, backbone: str, metric: str) -> Record:
        weights = before and Checkpoint(
            file="backbone.safetensors",
            sha256="cd" * 32,
            recipe_hash=before.recipe_hash,
            data=Named(name=before.data.name, fingerprint=before.data.fingerprint),
            seed=before.seed,
        )
        return self.make(
            name="transfer",
            protocol=protocol,
            task=protocol.partition("/")[0],
            backbone=backbone,
            init="scratch" if before is None else "a name of one's own",
            checkpoint=weights,
            metrics={metric: 61.25},
        )

    def of(self, name: str, labels: list[str], column: str) -> list[Record]:
        """The records of a cell, made by hand from the table's name and its labels."""
        size = next((s for s in sorted(SIZES, key=len, reverse=True) if s in column), None)
        if name == "2":
            size = labels[0]
        backbone, large = SIZES[size or "ViT-L"]
        if name == "12":
            backbone = {"ViT-B": "vit_b", "ViT-L": "vit_l", "ViT-H": "vit_h"}[labels[1]]
        settings, method = {}, "mae"
        if name in SETTINGS:
            settings = SETTINGS[name][" ".join(labels[1:] if name == "2" else labels)]
        else:
            method = METHODS.get(labels[1 if name in ("6", "13") else 0], "scratch")
        before = None if method == "scratch" else self.pretrained(method, backbone, **settings)
        if column in ("FLOPs", "hours", "speed-up"):
            references = {"FLOPs": {}, "hours": {}, "speed-up": {"encoder_mask_tokens": True}}
            other = self.pretrained("mae", backbone, **references[column])
            other = other.model_copy(update={"name": "other", "recipe_hash": "ef" * 6})
            return [before] if before.recipe == other.recipe else [before, other]
        protocol, metric = self.protocol(name, labels, column, method, large)
        transfer = self.transfer(before, protocol, backbone, metric)
        return [transfer] if before is None else [before, transfer]

    def protocol(self, name, labels, column, method, large) -> tuple[str, str]:
        what = f"finetune{large}" if method != "scratch" else "scratch"
        if "box AP" in column or "mask AP" in column:
            return "coco/mask_rcnn-fpn@1", "ap_box" if "box" in column else "ap_mask"
        if name == "5" or "ADE20K" in column:
            return "ade20k/upernet-512-100ep@1", "miou"
        if name in ("6", "13"):
            data = DATA_SETS[labels[0]]
            return f"{data}/{what}@1", "mce" if data == "imagenet_c" else "top1"
        if name == "12" or column == "linear probing":
            return "imagenet1k/linear@1", "top1"
        if name == "partial":
            return f"imagenet1k/partial-{labels[1]}@2", "top1"
        return f"imagenet1k/{what}@1", "top1"


TABLES = ["1a", "1b", "1c", "1d", "1e", "1f", "2", "3", "4", "5", "6", "7", "12", "13", "partial"]


def cells(name: str) -> list[tuple[list[str], str]]:
    """Labels and column of every published number of a method in a table."""
    table = paper_table(name, [], published())
    count = sum(column.kind == "label" for column in table.columns)
    return [
        ([str(cell.value) for cell in row[:count]], column.title)
        for row in table.rows
        for column, cell in zip(table.columns, row, strict=True)
        if column.kind == "published"
        and cell.value is not None
        and "prev best" not in (row[1].value, column.title)
        and row[0].value != "Δ"
    ]


def filled(name: str, labels: list[str], column: str, records: list[Record]) -> bool:
    """Whether a number of ours stands in this very row and column, and nowhere else but in those
    of the reference of a ratio."""
    table = paper_table(name, records, published())
    rows = [
        ([str(cell.value) for cell in row[: len(labels)]], {c.title: cell for c, cell in found})
        for row in table.rows
        for found in [
            [
                (c, cell)
                for c, cell in zip(table.columns, row, strict=True)
                if c.kind == "measured" and cell.value is not None
            ]
        ]
        if found
    ]
    there = [row for row in rows if row[0] == labels]
    assert len(there) <= 1
    if column not in ("FLOPs", "hours", "speed-up"):
        assert [row[0] for row in rows] in ([], [labels])
    return bool(there) and any(
        title == column or title.startswith(f"{column}, UperNet") for title in there[0][1]
    )


@pytest.mark.parametrize("name", TABLES)
def test_a_run_fills_every_cell_of_a_table(name, make_record):
    runs = Runs(make_record)
    for labels, column in cells(name):
        can = (name, *labels) not in NOBODY
        if can:
            assert filled(name, labels, column, runs.of(name, labels, column)), (labels, column)


def test_191_of_193_cells_can_be_filled():
    count = {(name, *labels, column) for name in TABLES for labels, column in cells(name)}
    assert len(count) == 193
    out_of_reach = {each for each in count if each[:-1] in NOBODY}
    assert len(count - out_of_reach) == 191
    assert {each[1] for each in out_of_reach} == {"iGPT"}
