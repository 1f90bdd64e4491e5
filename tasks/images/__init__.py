"""Image files to training batches (fast) and to evaluation crops (exact).

Readers of data sets import it, so torch is not imported before what needs it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tasks.images.decoding import Box, decode, decode_box
from tasks.images.files import FileNames
from tasks.images.header import (
    MOST_PIXELS,
    Stored,
    UnreadableImage,
    orientation,
    stored,
    stored_size,
)
from tasks.images.unreadable import Unreadable, by_reason
from tasks.images.walk import walk_images

if TYPE_CHECKING:
    from tasks.images.batches import BadImages, load_batch
    from tasks.images.crops import (
        crop_resize,
        eval_crop,
        random_crop,
        random_resized_crop_box,
        resize,
        sample_rng,
    )
    from tasks.images.unlabelled import UnlabelledImages

__all__ = [
    "MOST_PIXELS",
    "BadImages",
    "Box",
    "FileNames",
    "Stored",
    "UnlabelledImages",
    "Unreadable",
    "UnreadableImage",
    "by_reason",
    "crop_resize",
    "decode",
    "decode_box",
    "eval_crop",
    "load_batch",
    "orientation",
    "random_crop",
    "random_resized_crop_box",
    "resize",
    "sample_rng",
    "stored",
    "stored_size",
    "walk_images",
]

PLACES = {"BadImages": "batches", "load_batch": "batches", "UnlabelledImages": "unlabelled"}
"""where what needs torch is; all else of it is in crops"""


def __getattr__(name: str) -> Any:
    """What needs torch, imported when first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"tasks.images.{PLACES.get(name, 'crops')}")
    globals()[name] = getattr(module, name)
    return globals()[name]
