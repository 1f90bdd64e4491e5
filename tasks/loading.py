"""Loading of batches ahead, in processes of their own: for training and for scoring."""

import traceback
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from tasks.errors import AloneError, TaskError
from tasks.task import Batch
from tasks.workers import refuse_long_tmpdir, worker_init


@dataclass
class Fault:
    """An error of a loading process, with the traceback that cannot travel with it."""

    error: Exception
    trace: str

    def to_raise(self) -> Exception:
        """The error, with its traceback as a note unless it is a message to the user."""
        if isinstance(self.error, TaskError):
            return AloneError(str(self.error))
        self.error.add_note(self.trace)
        return self.error


class Told(Dataset[Batch | Fault]):
    """Batches whose errors are values.

    One that is raised in a loading process holds on to the others in its traceback: they would
    outlive the work, and the program would wait for them.
    """

    def __init__(self, get: Callable[[Any], Batch]) -> None:
        self.get = get

    def __getitem__(self, key: Any) -> Batch | Fault:
        try:
            return self.get(key)
        except Exception as error:
            return Fault(error, traceback.format_exc())


def load(
    get: Callable[[Any], Batch],
    keys: Iterable[Any],
    workers: int,
    device: torch.device,
    ahead: int = 2,
) -> Generator[Batch, None, None]:
    """`get(key)` for each key in order, loaded by `workers` processes, each `ahead` batches ahead.

    Close it to end the processes. They end with this one, and leave signals to it. Raises
    `AloneError` where `get` raises `TaskError`, and `TaskError` where no process can be met.
    """
    if workers:
        refuse_long_tmpdir()
    batches = DataLoader(
        Told(get),
        batch_size=None,  # a key is a whole batch
        sampler=keys,
        collate_fn=as_it_is,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=worker_init,
        prefetch_factor=ahead if workers else None,
    )
    for batch in arriving(batches):
        if isinstance(batch, Fault):
            raise batch.to_raise()
        yield batch


def arriving(batches: Iterable[Any]) -> Generator[Any, None, None]:
    """The batches; `AloneError` if the connection to a loading process breaks."""
    try:
        yield from batches
    except (ConnectionError, EOFError) as error:
        said = str(error) or type(error).__name__
        raise AloneError(f"a loading process died ({said}); try fewer --workers") from None


def as_it_is(batch: Any) -> Any:
    return batch
