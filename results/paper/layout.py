"""What a table of the MAE paper is made of.

Rows and columns are filters over `published.csv`: where the two meet stands one number of the
paper, or none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from results.origins import ADDED_SETTINGS

LARGE = "_448"
"""ends the backbone of numbers at 448 pixels"""
Filter = Mapping[str, str]
Settings = Mapping[str, bool | int | float | str | None]
"""fields of a pre-training's recipe; None: whatever it is"""
OF_PRETRAINING = ("hours", "speedup", "flops_ratio")
"""metrics of the pre-training itself"""


@dataclass(frozen=True)
class Row:
    """A row of the paper: its labels, and what its numbers are filed under."""

    labels: tuple[str, ...]
    where: Filter
    note: str = ""
    """first part of its numbers' notes, which tells the rows of an ablation apart"""
    pretrained: Settings | None = None
    """what the row changes of the default pre-training, as fields of our recipe; None: nothing
    that we could change"""
    ours: bool = True
    """whether runs of ours can stand in it"""
    minus: str = ""
    """note of the numbers to subtract from those of `note`: a row of differences"""


@dataclass(frozen=True)
class Score:
    """A column of the paper. Its filter goes before that of a row."""

    title: str
    where: Filter
    unit: str = "%"
    ours: bool = True
    """whether runs of ours can stand in it"""
    same_recipe: bool = False
    """in a table of pre-training settings: whether our protocol is the one of its numbers"""
    ratio_to: Settings = field(default_factory=dict)
    """settings of the pre-training to which a ratio is taken"""


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper."""

    title: str
    labels: tuple[str, ...]
    rows: tuple[Row, ...]
    scores: tuple[Score, ...]
    notes: tuple[str, ...] = ()
    method_label: int | None = None
    """the label that names the method: runs of methods that the paper lacks get rows of their own
    with this label changed"""
    settings: bool = False
    """rows are settings of the pre-training, so that our runs are placed by their pre-training"""
    any_backbone: bool = False
    """runs of any backbone stand in it, marked"""
    epochs: int = 1600
    norm_pix: bool = True
    """of the paper's pre-training, where no row says otherwise"""
    best: bool = False
    """whether the best of a column is marked: its rows are rivals"""

    @property
    def pretrained(self) -> Settings:
        """Settings of the paper's pre-training in all rows that do not say otherwise."""
        return {"epochs": self.epochs, "norm_pix": self.norm_pix}


SIZES = {"vit_b": "ViT-B", "vit_l": "ViT-L", "vit_h": "ViT-H", "vit_h_448": "ViT-H, 448 pixels"}


def over_sizes(*names: str, **where: str) -> tuple[Score, ...]:
    return tuple(Score(SIZES[name], {"backbone": name, **where}) for name in names)


ABLATION_DEFAULTS: Settings = {
    **ADDED_SETTINGS,
    "mask_ratio": 0.75,
    "decoder_depth": 8,
    "decoder_dim": 512,
    "min_crop_area": 0.2,
}
"""what a run must have, unless its row says otherwise, to stand in a table of settings; of other
settings that differ a note tells"""
