"""The pre-training runs that checkpoints come from."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from results.protocol import ProtocolId
from results.record import Record

ADDED_SETTINGS: Mapping[str, Any] = {
    "mask": "random",
    "target": "pixels",
    "encoder_mask_tokens": False,
    "augmentation": "crop_random",
}
"""of MAE's pre-training: what records have that are older than these fields"""


SCRATCH, SUPERVISED = "scratch", "supervised"
"""A classifier that was trained from random weights is a supervised pre-training for other runs."""


class Pretrainings:
    """Our pre-trainings, found by the runs that started from their weights."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.by_recipe: dict[str, list[Record]] = defaultdict(list)
        found = [
            record
            for record in records
            if record.kind == "pretrain" or ProtocolId.read(record.protocol).name == SCRATCH
        ]
        for record in sorted(found, key=lambda r: (r.complete, r.data.standard), reverse=True):
            self.by_recipe[record.recipe_hash].append(record)

    def all_of(self, record: Record) -> list[Record]:
        """Those whose weights a run started from, by recipe, data and what they continued.

        All of the recipe where the run's record does not tell the data. Complete ones on the
        official data come first.
        """
        file = record.checkpoint
        if file is None or file.recipe_hash is None:
            return []
        alike = self.by_recipe.get(file.recipe_hash, [])
        return [each for each in alike if made(each) == file.origin] if file.is_traced else alike

    def of(self, record: Record) -> Record | None:
        """The one of them that is least like the paper's stands for all."""
        return next(reversed(self.all_of(record)), None)

    def only(self, record: Record) -> Record | None:
        """One of them if they are complete and had the same images: then any stands for all."""
        found = [each for each in self.all_of(record) if each.complete]
        return found[0] if len({made(each) for each in found}) == 1 else None


def method_of(pretraining: Record) -> str:
    """What a pre-training of ours is called: "mae"."""
    name = ProtocolId.read(pretraining.protocol).name
    return SUPERVISED if pretraining.kind == "transfer" else name


def added_settings(record: Record, before: Pretrainings | None = None) -> list[str]:
    """ "mask block": what a pre-training does otherwise than its method of itself.

    Of the record, or of the pre-training `before` it.
    """
    origin = record if record.kind == "pretrain" else before and before.of(record)
    if not origin or method_of(origin) != "mae":
        return []
    return [
        f"{name.replace('_', ' ')} {value}"
        for name, standard in ADDED_SETTINGS.items()
        if (value := origin.recipe.get(name, standard)) != standard
    ]


def made(pretraining: Record) -> tuple:
    """`Checkpoint.origin` of the weights that a pre-training of ours wrote."""
    before = pretraining.checkpoint
    known = (
        pretraining.recipe_hash,
        pretraining.data.fingerprint,
        before.origin if before else (),
    )
    tokenizer = pretraining.tokenizer
    return known if tokenizer is None else (*known, tokenizer.origin)
