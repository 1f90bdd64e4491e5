"""What names the training images of a data set alone, so that a test set may be put right."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from tasks.images.files import FileNames
from tasks.images.fingerprint import Fingerprint


def of_split(split: Any, classes: Sequence[Any]) -> str:
    """A fingerprint of a split, which is a dataclass with a `root`, and of the classes.

    Its fields that are `FileNames` count by the files themselves (all sizes, a sample of contents),
    its arrays (labels, annotations) by their values.
    """
    found = Fingerprint()
    found.add(*map(str, classes))
    for each in fields(split):
        value = getattr(split, each.name)
        if isinstance(value, FileNames):
            found.add(each.name)
            found.add_files(split.root, value)
        elif isinstance(value, np.ndarray):
            found.add(each.name, value)
    return found.hexdigest()
