"""The one scoring loop: every test image once, over all processes, unreadable ones with reasons."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any, Protocol, TypeVar

import torch

from tasks.errors import TaskError
from tasks.images.batches import BadImages
from tasks.images.unreadable import Unreadable, by_reason
from tasks.loading import load
from tasks.processes import finish_in_first, num_processes, own_part, own_share
from tasks.task import Batch, Scored, Scoring

Part = TypeVar("Part")


class ScoredImages(Protocol):
    """The images of a test set, by whole batches.

    A batch has "skipped", the `Unreadable` ones of its key, and "index", the places in the test
    set of the others, of which there may be none.
    """

    def __len__(self) -> int:
        """Images, not batches."""
        ...

    def __getitem__(self, key: Any) -> Batch: ...


def score(
    images: ScoredImages,
    step: Callable[[Batch], Part],
    finish: Callable[[list[Part]], Scored],
    how: Scoring,
    device: torch.device,
    keys: Iterable[Any] | None = None,
) -> Scored:
    """Take every test image once, over all processes, and `finish` in the first one.

    `step` makes a part of the result from a batch, and `finish` the whole from all parts. `keys`
    are those of this process's batches; by default its share of the images, `how.batch_size` at a
    time. Images that cannot be read are in the result, whatever `finish` says of them. Raises
    `TaskError` for more of them than `how.max_bad_images`, and if no image could be read.
    """
    parts: list[Part] = []
    if keys is None:
        keys = chunks(own_share(len(images))[0], how.batch_size)
    unreadable = run_through(images, keys, lambda batch: parts.append(step(batch)), how, device)

    def finish_all(found: list[tuple[list[Part], list[Unreadable]]]) -> Scored:
        left = sorted(each for _, some in found for each in some)
        refuse_unreadable(left, len(images), how.max_bad_images)
        scored = finish([part for some, _ in found for part in some])
        scored.unreadable = left
        return scored

    return finish_in_first((parts, unreadable), finish_all)


def run_through(
    images: ScoredImages,
    keys: Iterable[Any],
    step: Callable[[Batch], Any],
    how: Scoring,
    device: torch.device,
) -> list[Unreadable]:
    """Give each batch of this process that has readable images to `step`; the unreadable ones.

    Ends early with more of these than `how.max_bad_images`, which `refuse_unreadable` will refuse
    in all processes together. An error in loading is raised here, with the file that it names.
    """
    unreadable: list[Unreadable] = []
    world, total, done = num_processes(), len(images), 0
    with own_part(), closing(load(images.__getitem__, keys, how.workers, device)) as batches:
        for batch in batches:
            readable = torch.as_tensor(batch["index"]).numel()
            if readable:
                step(batch)
            unreadable += batch["skipped"]
            done += readable + len(batch["skipped"])
            if how.on_progress is not None:
                how.on_progress(min(done * world, total))
            if len(unreadable) > how.max_bad_images:
                break
    return unreadable


def refuse_unreadable(
    unreadable: Sequence[Unreadable], images: int, limit: int, kind: str = "test"
) -> None:
    """Raise `TaskError` if too many of `images` test or training images, or all, are unreadable."""
    if len(unreadable) >= images:
        why = "; ".join(by_reason(unreadable)[:3])
        raise TaskError(
            f"none of the {images} {kind} images can be read: {why}; repair them, or the "
            "annotations that they contradict"
        )
    bad = BadImages(limit, what=f"{kind} image files")
    for each in unreadable:
        bad.add(each)


def chunks(indices: Sequence[int], size: int) -> list[Sequence[int]]:
    """`indices` by `size` at a time."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]
