"""A pair of annotation files as `tasks.kept` keeps it, and back."""

from collections.abc import Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from tasks.coco.files import Place
from tasks.coco.looked import Looked
from tasks.coco.notes import Notes
from tasks.coco.pair import Pair, read_pair
from tasks.coco.split import CocoSplit, Table
from tasks.images.files import FileNames
from tasks.kept import Kept, keep
from tasks.stores import StoredPath
from tasks.unchanged import identify, is_same, state_of

VERSION = 2
"""of what is kept and of what reading makes of a file: another one is made anew"""
LEAST_BYTES = 2**24
"""of the two files together from which on what they hold is kept: smaller ones are read at once"""
COLUMNS = ("image_ids", "sizes", "left_out", "objects", "packed", "spans")
"""fields of a split that are kept as they are"""
TABLE = tuple(field.name for field in fields(Table))


def read_or_keep(places: Mapping[str, Place], looked: MutableMapping[str, Looked]) -> Pair:
    """What both files hold, from the cache if they are large and have been read before.

    Image files that are looked at on the way go into `looked`.
    """
    files = {split: place.json_file for split, place in places.items()}
    if sum(StoredPath(file).stat().st_size for file in files.values()) < LEAST_BYTES:
        return read_pair(places, looked)

    def is_current(found: Kept) -> bool:
        known = found.facts["files"]
        return found.facts["version"] == VERSION and all(is_same(known[s], files[s]) for s in files)

    source = ",".join(str(file.absolute()) for file in files.values())
    kept = keep("annotations", source, is_current, lambda: read_to_keep(places, looked))
    return from_kept(kept, files)


def read_to_keep(places: Mapping[str, Place], looked: MutableMapping[str, Looked]) -> Kept:
    """Read both files, and say what they were."""
    files = {split: place.json_file for split, place in places.items()}
    before = {split: state_of(file) for split, file in files.items()}
    pair = read_pair(places, looked)
    with ThreadPoolExecutor(2) as pool:
        known = dict(zip(files, pool.map(identify, files.values()), strict=True))
    made = to_kept(pair)
    made.facts.update(version=VERSION, files=known)
    why = None
    if any(len(rows) for rows in pair.unsized.values()):
        why = "they say nothing of the sizes of some images"
    for split, file in files.items():
        if any(before[split][key] != known[split][key] for key in ("size", "times", "place")):
            why = f"{file} has changed while it was read"
    return Kept(made.facts, made.arrays, why)


def to_kept(pair: Pair) -> Kept:
    """A pair as facts and arrays."""
    arrays = {"kept": pair.kept}
    facts: dict[str, Any] = {
        "classes": pair.classes,
        "category_ids": pair.category_ids,
        "census": pair.census,
        "both": as_facts(pair.both),
    }
    for name, split in pair.splits.items():
        arrays |= {f"{name}.{column}": getattr(split, column) for column in COLUMNS}
        arrays |= {f"{name}.table.{column}": getattr(split.table, column) for column in TABLE}
        arrays[f"{name}.names"] = split.names.as_array()
        facts[name] = {
            "num_annotations": split.num_annotations,
            "masks": split.masks,
            "notes": [as_facts(notes) for notes in pair.notes[name]],
        }
    return Kept(facts, arrays)


def from_kept(kept: Kept, files: Mapping[str, Path]) -> Pair:
    """The pair of those files again."""
    facts, arrays = kept.facts, kept.arrays
    splits = {}
    for name, file in files.items():
        table = Table(**{column: arrays[f"{name}.table.{column}"] for column in TABLE})
        splits[name] = CocoSplit(
            root=file.parent,
            names=FileNames.of_array(arrays[f"{name}.names"]),
            json_file=file,
            num_annotations=facts[name]["num_annotations"],
            masks=facts[name]["masks"],
            table=table,
            **{column: arrays[f"{name}.{column}"] for column in COLUMNS},
        )
    return Pair(
        splits=splits,
        notes={
            name: (from_facts(facts[name]["notes"][0]), from_facts(facts[name]["notes"][1]))
            for name in files
        },
        both=from_facts(facts["both"]),
        unsized={name: np.zeros(0, np.int64) for name in files},
        kept=np.asarray(arrays["kept"]),
        classes=tuple(facts["classes"]),
        category_ids=tuple(facts["category_ids"]),
        census=tuple(facts["census"]),
    )


def as_facts(notes: Notes) -> list[Any]:
    return [notes.counts, notes.examples]


def from_facts(facts: list[Any]) -> Notes:
    counts, examples = facts
    return Notes(counts, {reason: tuple(some) for reason, some in examples.items()})
