"""The pre-training runs that checkpoints come from."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
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

TOLD_FIRST = ("decoder_depth", "decoder_dim", *ADDED_SETTINGS, "norm_pix", "mask_ratio")
"""settings in the order of names, others after them and epochs last"""
TITLES: Mapping[str, str] = {"decoder_dim": "decoder width"}
"""settings that papers call otherwise than recipes"""

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


def changed_settings(
    record: Record,
    before: Pretrainings | None = None,
    but: Collection[str] = (),
    than: Mapping[str, Any] = MappingProxyType({}),
) -> list[str]:
    """ "decoder depth 4", "800 epochs": what a pre-training does otherwise than its protocol.

    Of the record, or of the pre-training `before` it, without the fields `but` and those that
    follow from others; `than`: settings of MAE to compare with in place of the protocol's. It
    depends on no other run: a name made of it stays the same in any report.
    """
    origin = record if record.kind == "pretrain" else before and before.of(record)
    if not origin:
        return []
    changed = {each.field: each.value for each in origin.changed}
    if method_of(origin) == "mae":
        recipe = {**ADDED_SETTINGS, **origin.recipe}
        usual = {**ADDED_SETTINGS, **than}
        changed = {k: value for k, value in changed.items() if k not in usual}
        changed |= {k: recipe[k] for k in usual if recipe.get(k, usual[k]) != usual[k]}
    left_out = {*but, *following(origin)}
    names = dict.fromkeys([*TOLD_FIRST, *(k for k in changed if k != "epochs"), "epochs"])
    return [_setting(k, changed[k]) for k in names if k in changed and k not in left_out]


def _setting(name: str, value: Any) -> str:
    if name == "norm_pix":
        return "w/ norm" if value else "w/o norm"
    if name == "epochs":
        return f"{value} epoch{'' if value == 1 else 's'}"
    title = TITLES.get(name, name.replace("_", " "))
    if isinstance(value, bool):
        return title if value else f"w/o {title}"
    return f"{title} {value}"


def following(pretraining: Record) -> set[str]:
    """Changed fields of a recipe that follow from others, so that no name needs them: a warmup
    that is as long, of all epochs, as the protocol's, and what another target brings with it."""
    changed = {each.field: each for each in pretraining.changed}
    found = {"norm_pix", "codebook"} & changed.keys() if "target" in changed else set()
    warmup, epochs = changed.get("warmup_epochs"), changed.get("epochs")
    if warmup and epochs:
        numbers = (warmup.value, epochs.standard, warmup.standard, epochs.value)
        if all(isinstance(each, int | float) for each in numbers):
            a, b, c, d = map(float, numbers)  # type: ignore[arg-type]
            found |= {"warmup_epochs"} if math.isclose(a * b, c * d, rel_tol=1e-6) else set()
    return found


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
