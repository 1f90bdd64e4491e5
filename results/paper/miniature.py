"""The tables of the MAE paper in its own layout, for the miniature world: none of its numbers."""

import re
from collections.abc import Sequence
from dataclasses import replace

from results.paper.layout import SIZES, PaperTable, Row, Score
from results.record import Record
from results.wide_tables import MINIATURE

PARAMETERS = re.compile(r"[0-9]+M")
USUAL = "vit_l"
"""of the paper's sizes, whose rows and columns stand for those of the miniature world"""


def in_miniature(spec: PaperTable, records: Sequence[Record]) -> PaperTable:
    """A table with the backbones of the miniature world's runs in place of the paper's sizes."""
    backbones = tuple(dict.fromkeys(record.backbone for record in records))
    scores = [each for score in spec.scores for each in _scores(score, backbones)]
    rows = [each for row in spec.rows for each in _rows(row, backbones)]
    return replace(
        spec,
        title=f"Miniature world in the layout of {_without_size(spec.title)}",
        scores=tuple(scores),
        rows=tuple(rows),
        notes=(MINIATURE, *(note for note in spec.notes if "trained blocks" in note)),
        any_backbone=False,
    )


def _without_size(title: str) -> str:
    return title.replace(", ViT-L/16", "").replace(" of ViT-L", "")


def _labels(row: Row, backbone: str, several: bool) -> tuple[str, ...]:
    """A row's, with the backbone in place of the paper's and without the number of its weights."""
    told = SIZES[USUAL] in row.labels
    found = [
        backbone if text == SIZES[USUAL] else "–" if PARAMETERS.fullmatch(text) else text
        for text in row.labels
    ]
    if several and not told:
        found[0] += f" ({backbone})"
    return tuple(found)


def _scores(score: Score, backbones: Sequence[str]) -> list[Score]:
    """A column for each backbone; none but that of the usual size has one."""
    size = score.where.get("backbone")
    if size is None:
        return [score]
    if size != USUAL:
        return []
    return [
        replace(
            score,
            title=score.title.replace(SIZES[USUAL], name),
            where={**score.where, "backbone": name},
        )
        for name in backbones
    ]


def _rows(row: Row, backbones: Sequence[str]) -> list[Row]:
    size = row.where.get("backbone")
    if not row.ours or size not in (None, USUAL):
        return []
    if size is None:
        return [row]
    return [
        replace(
            row,
            labels=_labels(row, name, len(backbones) > 1),
            where={**row.where, "backbone": name},
        )
        for name in backbones
    ]
