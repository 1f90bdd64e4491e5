"""Sizes and rotations of image files beside what the annotation file says of them.

The annotations decide how a photograph with an EXIF rotation is meant: turned, as viewers and
detectron2 (data/detection_utils.py, read_image) show it, if its turned size is theirs; as it is
stored if only that is.
"""

from pathlib import Path

import numpy as np

from tasks.coco.notes import Notes
from tasks.coco.said import Said
from tasks.errors import TaskError
from tasks.images import UnreadableImage
from tasks.images.header import Stored, stored

LOOKED_AT = 200
"""images of a split whose header is read at the start"""
MOST = 0.5
"""share of them that may be of another size than is said"""


def complete_sizes(split: str, root: Path, said: Said, notes: Notes) -> np.ndarray:
    """`said.sizes`, taken from the image files, as they are shown, where there is none."""
    sizes = said.sizes.copy()
    rows = np.flatnonzero(sizes[:, 0] == 0)
    for row in rows.tolist():
        try:
            sizes[row] = stored(root / said.names[row]).upright
        except UnreadableImage as error:
            raise TaskError(
                f"{said.path} gives no width and height of {said.names[row]}, and the file "
                f"{error.reason}; expected one or the other"
            ) from None
    what = f"{split} images without width and height (taken from the files)"
    notes.add(what, [said.names[row] for row in rows.tolist()])
    return sizes


def is_turned(image: Stored, size: tuple[int, int]) -> bool | None:
    """Whether annotations for an image of `size` (height, width) mean it turned by its EXIF tag.

    None if they fit neither way.
    """
    if image.upright == size:
        return image.orientation > 1
    return False if (image.height, image.width) == size else None


def compare_sizes(split: str, root: Path, said: Said, notes: Notes) -> None:
    """Compare a sample of the files with the sizes said; notes rotations.

    Raises TaskError if half of them, or more, are of another size. Files that cannot be read are
    left to those who decode them.
    """
    count = min(LOOKED_AT, len(said.names))
    turned: list[str] = []
    plain: list[str] = []
    other: list[tuple[str, tuple[int, int], tuple[int, int]]] = []
    looked = 0
    for row in (i * len(said.names) // count for i in range(count)):
        name, size = said.names[row], (int(said.sizes[row, 0]), int(said.sizes[row, 1]))
        try:
            image = stored(root / name)
        except UnreadableImage:
            continue
        looked += 1
        is_so = is_turned(image, size)
        if is_so is None:
            other.append((name, image.upright, size))
        elif image.orientation > 1:
            (turned if is_so else plain).append(name)
    if other and len(other) >= MOST * looked:
        name, (height, width), (own_height, own_width) = other[0]
        raise TaskError(
            f"{len(other)} of {looked} {split} images are of another size than {said.path} says: "
            f"{name} is {width} wide and {height} high, expected {own_width} and {own_height}; was "
            "another resolution annotated? Correct the files or the numbers"
        )
    many = f"of {looked} looked at"
    notes.add(f"{split} images turned by their EXIF tag, {many}", turned)
    what = f"{split} images annotated as stored, whose EXIF tag is not applied, {many}"
    notes.add(what, plain)
    notes.add(
        f"{split} images of another size than the file says, {many} (they count as unreadable)",
        [name for name, *_ in other],
    )
