"""Image files to training batches (fast) and to evaluation crops (exact)."""

from tasks.images.batches import BadImages, load_batch
from tasks.images.crops import (
    crop_resize,
    eval_crop,
    random_crop,
    random_resized_crop_box,
    resize,
    sample_rng,
)
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
from tasks.images.unlabelled import UnlabelledImages
from tasks.images.unreadable import Unreadable, by_reason
from tasks.images.walk import walk_images

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
