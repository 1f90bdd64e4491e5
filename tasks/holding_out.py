"""Training images divided once more: most to train on, the others to choose settings by."""

import hashlib

import numpy as np

from tasks.errors import TaskError


def hold_out(targets: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which of the images (N,) are held out: `share` of each class, drawn with `seed`.

    Of a class with two images or more at least one is held out and one is not; of a class with one
    image, none. Raises `TaskError` if that leaves nothing held out.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(targets), dtype=bool)
    for each in np.unique(targets):
        members = np.flatnonzero(targets == each)
        if len(members) > 1:
            count = min(max(1, round(share * len(members))), len(members) - 1)
            held[rng.permutation(members)[:count]] = True
    if not held.any():
        raise TaskError(
            "no class has two training images, so that none can be held out to choose by; use more "
            "images, or give a single --l2 and no --sweep"
        )
    return held


def hold_out_images(count: int, share: float, seed: int) -> np.ndarray:
    """The same, bool (count,), of images that have no one class: `share` of all."""
    if count < 2:
        raise TaskError(f"{count} training images: none can be held out to choose by; use more")
    return hold_out(np.zeros(count, dtype=np.int64), share, seed)


def divided_fingerprint(whole: str, images: int, share: float, seed: int) -> str:
    """Of the data set that training images divided so make; `whole`: of the one they are from."""
    text = f"{whole}: of {images} training images {share} held out, seed {seed}"
    return hashlib.sha256(text.encode()).hexdigest()[: len(whole)]
