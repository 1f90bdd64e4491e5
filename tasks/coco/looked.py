"""What the image files tell that annotations belong to: where they lie, and their sizes."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.coco.files import Place, image_folder, refuse_missing
from tasks.coco.notes import Notes
from tasks.coco.said import Said
from tasks.coco.sizes import compare_sizes, complete_sizes


class Looked(NamedTuple):
    """What there is."""

    root: Path
    """folder of the images"""
    sizes: np.ndarray
    """int32 (N, 2), complete"""
    notes: Notes


def look(split: str, place: Place, said: Said) -> Looked:
    """Find the images of an annotation file. TaskError for those that are missing, or are others.

    They are looked at in every process: what is kept is of annotations alone.
    """
    notes = Notes()
    root = place.root or image_folder(place.json_file, said.names[0], split, notes)
    refuse_missing(root, place.json_file, said.names)
    sizes = complete_sizes(split, root, said, notes)
    compare_sizes(split, root, Said(said.path, said.names, sizes), notes)
    return Looked(root, sizes, notes)
