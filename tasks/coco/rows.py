"""The annotations of a file as it is parsed: their columns, and their rows where some are odd."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET

from tasks.coco.fields import Row, crowd_flags, whole_numbers
from tasks.coco.notes import Notes


class Annotation(msgspec.Struct, gc=False):
    """What of an annotation is read, of any kind; its segmentation stays JSON until it is packed.

    It takes less time and a third of the memory of a dict.
    """

    id: Any = UNSET
    image_id: Any = UNSET
    category_id: Any = UNSET
    iscrowd: Any = UNSET
    bbox: Any = UNSET
    area: Any = UNSET
    ignore: Any = UNSET
    caption: Any = UNSET
    segments_info: Any = UNSET
    segmentation: msgspec.Raw = msgspec.Raw(b"null")


class Annotations:
    """Those of a file, by columns; and as dicts if one of them is odd, for the readers of such."""

    def __init__(self, path: Path, rows: Sequence[Annotation | Row], split: str) -> None:
        self.path = path
        self.rows = rows
        """dicts where `json` had to read the file"""
        self.split = split
        self._parsed = {*map(type, rows)} <= {Annotation}

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def dicts(self) -> list[Row]:
        """As `json` reads them, but for what is not read and segmentations, which may be `Raw`."""
        return [row if isinstance(row, dict) else given(row) for row in self.rows]

    def values(self, key: str) -> list[Any]:
        """A field of each; None or UNSET where there is none."""
        if self._parsed:
            return list(map(attrgetter(key), self.rows))
        return [row.get(key) for row in self.dicts]

    def whole_numbers(self, key: str, notes: Notes) -> np.ndarray:
        """As `fields.whole_numbers`."""
        values = self.values(key)
        if {*map(type, values)} <= {int}:
            with suppress(OverflowError):
                return np.array(values, dtype=np.int64)
        return whole_numbers(self.path, "annotations", self.dicts, key, self.split, notes)

    def crowd_flags(self, notes: Notes) -> np.ndarray:
        """As `fields.crowd_flags`."""
        values = self.values("iscrowd")
        if {*map(type, values)} <= {int} and {*values} <= {0, 1}:
            return np.array(values, dtype=bool)
        return crowd_flags(self.path, self.dicts, self.split, notes)


def given(row: Annotation) -> Row:
    """What an annotation gives."""
    found = ((key, getattr(row, key)) for key in row.__struct_fields__)
    return {key: value for key, value in found if value is not UNSET}
