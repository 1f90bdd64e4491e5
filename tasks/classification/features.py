"""Features of a frozen backbone: extracted once, kept on disk, used by every probe.

Shapes: B images of a batch, N images of a split, P patches, C channels, S image side.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from backbones.files import atomic_path
from backbones.vit import ViT
from tasks.classification.classifier import mean_patch
from tasks.classification.data import EvalImages
from tasks.classification.layout import LabelledImages, Split
from tasks.classification.probe_recipes import ProbeRecipe
from tasks.errors import TaskError
from tasks.images.unreadable import Unreadable, restored
from tasks.processes import first_alone
from tasks.scoring import chunks, refuse_unreadable, run_through
from tasks.task import Batch, Progress, Say, Scoring

VERSION = 1
"""rises when the same key would give other features"""
MAY_CHANGE = ("version", "files")
"""what of a key is not in the name of its file: such a file is out of date, and replaced"""
STAT_THREADS, STAT_FILES = 16, 4096
PATIENCE = timedelta(days=1)
"""how long processes wait for the first one, which extracts, reads or solves alone"""

TENSORS = ("values", "targets", "index")

Key = dict[str, str]
Part = Literal["train", "val"]
KINDS = {"train": "training", "val": "test"}
Result = TypeVar("Result")


@dataclass(frozen=True)
class Features:
    """One split through a backbone: a row for each image that decodes, in the split's order."""

    values: Tensor
    """float32 (N, C)"""
    targets: Tensor
    """class indices, int64 (N,)"""
    index: Tensor
    """places in the split, int64 (N,)"""
    unreadable: list[Unreadable]
    """the images that were left out"""


class Unusable(Exception):
    """A file of features that is not what is asked for. The message says why in one line."""


def key_of(backbone: ViT, recipe: ProbeRecipe, data: LabelledImages, part: Part) -> Key:
    """All that decides a split's features; reads the size and time of every image file."""
    split = data.train if part == "train" else data.val
    return {
        "version": str(VERSION),
        "data": data.facts.name,
        "fingerprint": data.fingerprint,
        "split": part,
        "images": str(len(split)),
        "files": files_digest(split),
        "backbone": recipe.backbone,
        "anatomy": str(getattr(backbone, "anatomy", type(backbone).__qualname__)),
        "weights": weights_digest(backbone),
        "pixels": json.dumps([backbone.pixel_mean, backbone.pixel_std]),
        "image_size": str(recipe.image_size),
        "crop_ratio": str(recipe.crop_ratio),
        "interpolation": "bicubic",
        "pooling": recipe.pooling,
        "precision": recipe.precision,
    }


def files_digest(split: Split) -> str:
    """SHA-256 of the names, sizes, times of change and classes of a split's files, in order."""

    def described(start: int) -> bytes:
        lines = []
        for index in range(start, min(start + STAT_FILES, len(split))):
            name = split.names[index]
            try:
                found = split.path(index).stat()
            except OSError:  # it will be named as unreadable
                lines.append(f"{name} -")
            else:
                lines.append(f"{name} {found.st_size} {found.st_mtime_ns}")
        return os.fsencode("\n".join(lines))

    digest = hashlib.sha256(split.targets.tobytes())
    with ThreadPoolExecutor(STAT_THREADS) as threads:  # network storage answers many at once
        for part in threads.map(described, range(0, len(split), STAT_FILES)):
            digest.update(part)
    return digest.hexdigest()


def weights_digest(backbone: ViT) -> str:
    """SHA-256 of a backbone's weights as they are used: after any resize of positions."""
    digest = hashlib.sha256()
    for name, value in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def file_name(key: Key) -> str:
    stable = {name: value for name, value in key.items() if name not in MAY_CHANGE}
    digest = hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()
    backbone = re.sub("[:/]", "-", key["backbone"])
    return f"{key['data']}-{key['split']}-{backbone}-{digest[:12]}.safetensors"


def read(file: Path, key: Key, split: Split, channels: int) -> Features:
    """The features in a file, if they are the ones of `key`; else raises `Unusable`.

    So it does for what no extraction of `split` would have written: the file may be anybody's.
    """
    if not file.is_file():
        raise Unusable("is no regular file")
    try:
        with safe_open(file, framework="pt") as opened:
            said = opened.metadata() or {}
            if "version" not in said:
                raise Unusable("holds no features of ours")
            for name, value in key.items():
                if said.get(name) != value:
                    there = said.get(name, "nothing")
                    raise Unusable(f"{name} differs ({there[:16]} there, {value[:16]} here)")
            tensors = {name: opened.get_tensor(name) for name in TENSORS}
            found = Features(**tensors, unreadable=restored(json.loads(said["unreadable"])))
    except (SafetensorError, OSError) as error:
        raise Unusable(f"truncated or no safetensors ({error})") from None
    except (KeyError, TypeError, ValueError, RecursionError):
        raise Unusable("its metadata do not list what was unreadable as ours do") from None
    odd = oddity(found, split, channels)
    if odd:
        raise Unusable(odd)
    return found


def oddity(found: Features, split: Split, channels: int) -> str:
    """What is wrong with features of a split, compared with its images; "" if nothing is."""
    count = len(found.index)
    kinds = (found.values.dtype, found.targets.dtype, found.index.dtype)
    shapes = (found.values.shape, found.targets.shape, found.index.shape)
    if kinds != (torch.float32, torch.int64, torch.int64):
        return f"its tensors are of the kinds {', '.join(map(str, kinds))}"
    if shapes != ((count, channels), (count,), (count,)):
        return f"its tensors have the shapes {', '.join(str(tuple(each)) for each in shapes)}"
    if count + len(found.unreadable) != len(split):
        return f"has {count} of {len(split)} images and names {len(found.unreadable)} unreadable"
    places = found.index.numpy()
    if count and not (places[0] >= 0 and places[-1] < len(split) and (np.diff(places) > 0).all()):
        return "its images are not in the order of the data set"
    if not np.array_equal(found.targets.numpy(), split.targets[places]):
        return "its classes are not those of the data set"
    left_out = {split.names[row] for row in set(range(len(split))) - set(places.tolist())}
    if left_out != {each.name for each in found.unreadable}:
        return "names other images as unreadable than it lacks"
    return "" if found.values.isfinite().all() else "holds features that are not finite"


def write(file: Path, key: Key, features: Features) -> None:
    """Write features; a reader sees the old file or the whole new one."""
    tensors = {name: getattr(features, name) for name in TENSORS}
    with atomic_path(file) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(tensors, temporary, {**key, "unreadable": json.dumps(features.unreadable)})
        temporary.chmod(mode)  # else the owner's alone


class Processes:
    """All processes of a run, of which the first does alone what is not shared out."""

    def __init__(self) -> None:
        spread = dist.is_available() and dist.is_initialized()
        self.rank, self.count = (dist.get_rank(), dist.get_world_size()) if spread else (0, 1)
        # Through memory and not through GPUs, and with more patience than the usual minutes.
        self.group: Any = dist.new_group(backend="gloo", timeout=PATIENCE) if spread else None

    def share(self, total: int) -> range:
        """This process's part of `total` images, in a row."""
        return range(total * self.rank // self.count, total * (self.rank + 1) // self.count)

    def first_alone(self, work: Callable[[], Result]) -> Result:
        """Let the first process do `work`; its result, or its error, is every process's."""
        return first_alone(work, self.group)

    def gather(self, part: Features) -> Features:
        """The parts of all processes in order, in the first one; the others keep their own."""
        if self.group is None:
            return part
        parts: list[Any] = [None] * self.count
        dist.gather_object(part, parts if self.rank == 0 else None, group=self.group)
        if self.rank != 0:
            return part
        tensors = {name: torch.cat([getattr(each, name) for each in parts]) for name in TENSORS}
        return Features(**tensors, unreadable=[e for each in parts for e in each.unreadable])


@dataclass(frozen=True)
class Extraction:
    """How features are extracted. Nothing here changes what they are."""

    processes: Processes
    device: torch.device
    scoring: Scoring
    """`features` is where they are kept"""

    @property
    def folder(self) -> Path | None:
        return self.scoring.features

    @property
    def say(self) -> Say:
        return self.scoring.say


def obtain(
    backbone: ViT,
    recipe: ProbeRecipe,
    data: LabelledImages,
    part: Part,
    how: Extraction,
    on_progress: Progress,
) -> Features | None:
    """The features of a split, from their file or extracted and kept.

    The first process returns them, any other None. A file that is not exactly what is asked for is
    named with the reason, and replaced. Whoever else wants the same features at the same time
    waits for them. Raises `TaskError` if too many images, or all, do not decode, or features are
    not finite.
    """
    split = data.train if part == "train" else data.val
    found: Features | None = None
    key: Key = {}
    lock: FileLock | None = None

    def accept(features: Features) -> None:
        limit, kind = how.scoring.max_bad_images, KINDS[part]
        refuse_unreadable(features.unreadable, len(split), limit, kind)

    def look() -> bool:
        nonlocal found, key, lock
        if how.folder is not None:
            how.folder.mkdir(parents=True, exist_ok=True)
            key = key_of(backbone, recipe, data, part)
            file = how.folder / file_name(key)
            lock = wait_for(file, how.say)
            found = look_up(file, key, split, backbone.embed_dim, how.say)
            if found is not None:
                accept(found)
        return found is not None

    def keep() -> None:
        assert found is not None
        check(found, recipe)
        accept(found)
        if how.folder is not None:
            file = how.folder / file_name(key)
            try:
                write(file, key, found)
            except (OSError, SafetensorError) as error:
                why = getattr(error, "strerror", None) or error  # which names the file again
                how.say(f"{file}: not kept, the next probe extracts again ({why})")

    try:
        if how.processes.first_alone(look):
            on_progress(len(split))
        else:
            found = extract(backbone, recipe, split, how, on_progress)
            how.processes.first_alone(keep)
    finally:
        if lock is not None:
            lock.release()
    return found if how.processes.rank == 0 else None


def wait_for(file: Path, say: Say) -> FileLock | None:
    """A lock on a file of features that is this process's own; None, said, if it cannot be had.

    Then two processes may extract the same at the same time, which only costs time: a file is
    whole or not there.
    """
    lock = FileLock(f"{file}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{file}: waiting for another process that works on it")
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # another user's, or no locks here
        reason = getattr(error, "strerror", None) or "this file system has no locks"
        say(f"{file}.lock: {reason}; going on without")
        return None
    return lock


def look_up(file: Path, key: Key, split: Split, channels: int, say: Say) -> Features | None:
    """The features in a file; None, after a line that says why, if it cannot be used."""
    if not file.exists():
        return None
    try:
        found = read(file, key, split, channels)
    except Unusable as error:
        say(f"{file}: {error}; extracting again")
        return None
    say(f"features of {len(found.targets)} {key['split']} images: {file}")
    return found


def check(found: Features, recipe: ProbeRecipe) -> None:
    """Raise `TaskError` for features that nothing can be measured with."""
    if not found.values.isfinite().all():
        raise TaskError(
            f"the features of {recipe.backbone} are not finite; check the checkpoint, or use "
            "--precision fp32"
        )


@torch.no_grad()
def extract(
    backbone: ViT, recipe: ProbeRecipe, split: Split, how: Extraction, on_progress: Progress
) -> Features:
    """Features of the centre crops of a split: all in the first process, its share in another.

    The transform is that of facebookresearch/dino, eval_knn.py.
    """
    backbone = backbone.to(how.device).eval()
    mean, std = (
        255 * torch.tensor(colour, device=how.device).view(3, 1, 1)
        for colour in (backbone.pixel_mean, backbone.pixel_std)
    )
    own = how.processes.share(len(split))
    values = torch.empty(len(own), backbone.embed_dim)
    index = torch.empty(len(own), dtype=torch.int64)
    count = 0

    def step(batch: Batch) -> None:
        nonlocal count
        rows = slice(count, count + len(batch["index"]))
        images = (batch["images"].to(how.device, non_blocking=True).float() - mean) / std
        values[rows] = pooled(backbone, images, recipe).cpu()
        index[rows] = batch["index"]
        count = rows.stop

    crops = EvalImages(split, recipe.image_size, recipe.crop_ratio)
    keys = chunks(own, how.scoring.batch_size)
    scoring = replace(how.scoring, on_progress=on_progress)
    unreadable = run_through(crops, keys, step, scoring, how.device)
    index = index[:count]
    targets = torch.from_numpy(split.targets)[index]
    return how.processes.gather(Features(values[:count], targets, index, unreadable))


def pooled(backbone: ViT, images: Tensor, recipe: ProbeRecipe) -> Tensor:
    """Normalised images (B, 3, S, S) to float32 features (B, C), after the final norm."""
    bf16 = recipe.precision == "bf16"
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bf16):
        tokens = backbone(images)  # (B, 1 + P, C)
    tokens = tokens.float()
    return tokens[:, 0] if recipe.pooling == "cls" else mean_patch(backbone, tokens)
