"""What an annotation file says of its images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class Said:
    """What an annotation file says of its images."""

    path: Path
    names: Sequence[str]
    sizes: np.ndarray
    """int32 (N, 2): height, width; 0 where the file gives none"""
