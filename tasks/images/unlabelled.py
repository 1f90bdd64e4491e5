"""Images without labels: what pre-training reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from tasks.errors import TaskError
from tasks.images.batches import load_batch
from tasks.images.crops import Crop, draw_crop, resize, sample_rng, square_box
from tasks.images.decoding import decode_box
from tasks.images.files import FileNames, Paths
from tasks.images.fingerprint import Fingerprint
from tasks.images.jitter import Jitter
from tasks.images.keeping import kept_walk
from tasks.images.turned import turned_note
from tasks.images.walk import OWN_SUFFIXES, empty, plural
from tasks.stores import opened, unread_members

if TYPE_CHECKING:
    from tasks.task import Batch

NAMED = 4
"""folders that the summary names"""


class UnlabelledImages:
    """The images below some folders, as pre-training data (`tasks.task.TrainData`).

    A sample is a random crop of at least `min_crop_area` of the image, resized, half mirrored
    (MAE, Table 8; facebookresearch/mae, main_pretrain.py), or what another `augmentation` cuts
    (MAE, Table 1e). `upright`: images are turned by their EXIF tags. Folders called like those
    of test images are left out. Raises TaskError for a folder without images.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        image_size: int,
        min_crop_area: float = 0.2,
        seed: int = 0,
        upright: bool = False,
        augmentation: str = "crop_random",
        fixed_crop: float = 0.875,
        colour_jitter: float = 0.4,
        leave_out: Mapping[str, Sequence[Path]] | None = None,
    ) -> None:
        """`augmentation`: none, crop_fixed, crop_random or crop_random_jitter.

        `fixed_crop`: side of the square of "none" (in the middle, not mirrored) and "crop_fixed",
        by the shorter side. `colour_jitter`: how much "crop_random_jitter" changes brightness,
        contrast and saturation. `leave_out`: words -> files that are no training images.
        """
        if not 0 < min_crop_area <= 1:
            raise TaskError(f"min_crop_area is {min_crop_area}; expected a share in (0, 1]")
        if not 0 <= seed < 2**32:
            raise TaskError(f"seed is {seed}; expected a whole number from 0 to 2^32 - 1")
        if not folders:
            raise TaskError("no image folder is given; expected at least one")
        folders = [opened(folder) for folder in folders]
        found, all_names = kept_walk(folders, OWN_SUFFIXES)
        left_out, parts = [], {}
        for folder, names in zip(folders, all_names, strict=True):
            if not len(names):
                raise TaskError(empty(folder, found))
            for what, files in (leave_out or {}).items():
                before = len(names)
                names = without(names, folder, files)
                count = before - len(names)
                left_out += [f"left out: {plural(count, 'file')}: {what}"] if count else []
            if not len(names):
                raise TaskError(f"{folder}: {'; '.join(left_out)}; no image is left to train on")
            parts[str(folder)] = names
        members = dict.fromkeys(line for folder in folders for line in unread_members(folder))
        self.passed_over = [*found.notes(), *left_out, *members]
        """lines about what was not taken"""
        self.all_names = Paths(parts)
        """paths of the images, folder by folder"""
        self.folders = folders
        """kept, since a process that is started afresh opens archives in them by these"""
        self.image_size = image_size
        self.area = (min_crop_area, 1.0)
        self.seed = seed
        self.upright = upright
        self.augmentation, self.fixed_crop = augmentation, fixed_crop
        self.colour_jitter = colour_jitter

    def __len__(self) -> int:
        return len(self.all_names)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """The samples (epoch, index) as `load_batch` returns them."""
        return self.batch(keys, self.load, self.resize)

    def batch(
        self,
        keys: Sequence[tuple[int, int]],
        load: Callable[[int, int], Crop],
        finish: Callable[[Crop], Tensor],
    ) -> Batch:
        """The same with other functions than `load` and `resize`."""
        return load_batch(keys, load, self.all_names, finish=finish)

    def load(self, epoch: int, index: int) -> Crop:
        """One sample before it is resized. Raises UnreadableImage."""
        rng = sample_rng(self.seed, epoch, index)
        path = self.all_names[index]
        if self.augmentation in ("none", "crop_fixed"):
            moves = rng if self.augmentation == "crop_fixed" else None
            share = self.fixed_crop
            pixels = decode_box(path, lambda h, w: square_box(h, w, share, moves), self.upright)
            return Crop(pixels, flip=moves is not None and rng.random() < 0.5)
        crop = draw_crop(path, rng, self.area, self.upright)
        if self.augmentation == "crop_random_jitter":
            return crop._replace(jitter=Jitter.draw(rng, self.colour_jitter, self.colour_jitter, 0))
        return crop

    def resize(self, crop: Crop) -> Tensor:
        resized = resize(crop.pixels, self.image_size, crop.flip)
        return crop.jitter.apply_to(resized) if crop.jitter else resized

    def names(self, indices: Sequence[int]) -> list[str]:
        return [self.all_names[index] for index in indices]

    @cached_property
    def fingerprint(self) -> str:
        """Names the images by their content, and how they are read; see `Fingerprint`."""
        print_ = Fingerprint()
        print_.add("upright" if self.upright else "as stored")
        for folder, names in self.all_names.parts.items():
            print_.add_files(folder, names)
        return print_.hexdigest()

    def notes(self) -> list[str]:
        """How many images, where, how turned, and what was not taken; a line each."""
        places = []
        for folder, names in self.all_names.parts.items():
            tops = names.in_first_folders()
            inside = [f"{count:,} in {top}" for top, count in tops.most_common(NAMED)]
            more = len(tops) - len(inside)
            inside += [f"the others in {plural(more, 'more folder')}"] if more else []
            what = f"{plural(len(names), 'image')} in {folder}"
            places.append(what if set(tops) == {"."} else f"{what} ({', '.join(inside)})")
        turned = turned_note(self.all_names, self.upright)
        return [f"pre-training on {'; '.join(places)}", *turned, *self.passed_over]


def without(names: FileNames, folder: Path, files: Sequence[Path]) -> FileNames:
    """The names of images below a folder that are none of `files`."""
    start = f"{folder.absolute()}/"
    inside = {name[len(start) :] for name in map(str, files) if name.startswith(start)}
    if not inside:
        return names
    return names.take(np.flatnonzero([name not in inside for name in names]))
