"""What to say about images whose EXIF tags turn them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tasks.images.header import UnreadableImage, orientation, read

SAMPLE = 200
"""images of which the tags are read"""
APPLIED = "turned upright, as viewers show them"
NOT_APPLIED = "not turned, as in the reference for this data"


def is_turned(path: Path | str) -> bool:
    """Whether an image's tags ask for a rotation or reflection; not if it cannot be read."""
    try:
        return orientation(read(path)) > 1
    except UnreadableImage:
        return False


def turned_note(paths: Sequence[Path | str], upright: bool) -> list[str]:
    """A line about the images, of a sample, that their EXIF tags turn; none if there are none."""
    count = min(SAMPLE, len(paths))
    rows = np.arange(count) * len(paths) // max(count, 1)
    turned = [paths[row] for row in rows.tolist() if is_turned(paths[row])]
    if not turned:
        return []
    of = f"of {count}" if count == len(paths) else f"of a sample of {count}"
    return [
        f"{len(turned)} {of} images have an EXIF rotation, as {turned[0]} has; these images are "
        f"{APPLIED if upright else NOT_APPLIED}"
    ]
