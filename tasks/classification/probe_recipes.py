"""Recipes of the probes of frozen features: every number with its source. Imports no torch.

Sources: "dino eval_knn.py" is a file of facebookresearch/dino @04c0ad9; "DINO" is the paper
(2104.14294); "CLIP A.3" is an appendix of 2103.00020; "mae main_linprobe.py" is a file of
facebookresearch/mae @efb2a80; "ours" is a decision of this project.

The same in every probe: bicubic interpolation, the centre crop for training images too, no
augmentation, and features after the backbone's own final norm.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import backbones
from tasks.recipe import MOST, Count, Recipe, Sourced, Within, complete, require, said_by

PROTOCOLS = {
    "knn": "nothing: the nearest training images vote, by frozen features",
    "logistic": "a logistic regression on frozen features, without augmentation",
}
"""protocol -> what trains"""


@dataclass(frozen=True, kw_only=True)
class ProbeRecipe(Recipe):
    """Every number that decides what the features are."""

    pooling: Literal["cls", "patches"]
    """cls: class token; patches: mean of the patch tokens; both after the final norm"""
    crop_ratio: Annotated[float, Within(0, 1, open_low=True)]
    """side of the centre crop / side of the resized image"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "pooling", self.pooling in ("cls", "patches"), "cls or patches")


@dataclass(frozen=True, kw_only=True)
class KnnRecipe(ProbeRecipe):
    """Every number that can change the score of nearest neighbours."""

    neighbours: Annotated[tuple[int, ...], Within(1, MOST)]
    """how many training images vote; each number is scored"""
    headline_neighbours: Count
    """the one of neighbours whose weighted vote is top1"""
    temperature: Annotated[float, Within(1e-3, MOST)]
    """a neighbour of cosine similarity s has exp(s / temperature) votes"""

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = list(self.neighbours) == sorted(set(self.neighbours)) and bool(self.neighbours)
        require(self, "neighbours", rising, "rising numbers of 1 or more")
        known = self.headline_neighbours in self.neighbours
        require(self, "headline_neighbours", known, f"one of neighbours {self.neighbours}")


@dataclass(frozen=True, kw_only=True)
class LogisticRecipe(ProbeRecipe):
    """Every number that can change the score of logistic regression."""

    l2: Annotated[tuple[float, ...], Within(0, MOST)]
    """factors of |weights|^2 / 2 in the mean loss, falling: the best on held-out images is taken"""
    holdout: Annotated[float, Within(0, 1, open_low=True, open_high=True)]
    """share of the training images of each class that is held out to choose l2"""
    max_iter: Count
    """most iterations of L-BFGS"""
    tolerance: Annotated[float, Within(0, 1, open_low=True)]
    """of the gradient's largest entry, as a share of the one at zero weights: the solver's end"""

    def __post_init__(self) -> None:
        super().__post_init__()
        falling = list(self.l2) == sorted(set(self.l2), reverse=True) and bool(self.l2)
        require(self, "l2", falling, "falling numbers of 0 or more")


FROZEN = said_by("dino eval_knn.py", image_size=224, crop_ratio=224 / 256, precision="fp32")


def knn() -> Sourced:
    """DINO's weighted nearest-neighbour classifier.

    Expected top-1 from DINO's released checkpoint: ViT-B 76.1 (DINO Table 2).
    """
    return (
        FROZEN
        | said_by("dino eval_knn.py", device_batch=128, pooling="cls", temperature=0.07)
        | said_by("dino eval_knn.py", neighbours=(10, 20, 100, 200))
        | said_by("DINO Section 3.2: consistently the best", headline_neighbours=20)
    )


def logistic() -> Sourced:
    """Logistic regression on standardised features.

    No number is published for it. CLIP A.3 fits the same classifier on features as they are, by
    scikit-learn's L-BFGS, searches the penalty on a validation part, of the training images where
    a data set has none, and then fits on all of them.
    """
    return (
        FROZEN
        | said_by("ours: as knn", device_batch=128)
        | said_by("mae FINETUNE.md: as its linear probing", pooling="cls")
        | said_by("ours: coarser than the 8 steps a decade of CLIP A.3", l2=GRID)
        | said_by("ours: CLIP A.3 does not state its share", holdout=0.1)
        | said_by("CLIP A.3", max_iter=1000)
        | said_by("ours: float32 reaches little less", tolerance=1e-3)
    )


GRID = (1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6)

RECIPES = {"knn": (KnnRecipe, knn), "logistic": (LogisticRecipe, logistic)}


def recipe_type(protocol: str) -> type[ProbeRecipe]:
    """The class of a probe's recipes."""
    return RECIPES[protocol][0]


def sourced(task: str, backbone: str, protocol: str) -> Sourced:
    """Every recipe field with its value and source, in the order of the fields.

    `protocol` is one of `PROTOCOLS`; raises `BackboneError` for an unknown backbone.
    """
    backbones.size_of(backbone)
    kind, make = RECIPES[protocol]
    rows = make()
    if backbone == "vit_mini":
        rows |= said_by("ours: the size of the miniature world", image_size=32)
    rows |= said_by("ours: what was asked for", protocol=f"{task}/{protocol}@1")
    rows |= said_by("ours: what was asked for", backbone=backbone)
    return complete(kind, rows)
